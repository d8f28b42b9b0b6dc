/**
 * The engine of one endpoint, with its configuration. A trap makes an instance useless; `replace` starts a new one with
 * the same state except for the sessions. The calling sequence is in driver.ts.
 */

import type { SocketAddress } from '../net/address.ts'
import { ADDRESS_KEY_OFFSET } from '../net/address.ts'
import { AddressCache } from '../net/address-cache.ts'
import type { Clock, UdpSocket } from '../runtime.ts'
import { Key as KeyBlock, RENDEZVOUS_OTHERS } from './abi.ts'
import { ClockJump } from './clock-jump.ts'
import { type Core, type CoreConfig, Info, NonceStrategy, TICKS_PER_MS } from './core.ts'
import { ALL_PARTS, type RateParts } from './rate-share.ts'
import type { EndpointSecret } from './secret.ts'

/** An announcement to a rendezvous server. */
export interface Announcement {
  readonly server: SocketAddress
  /** Other addresses of the server's name, which a client asks, too. */
  readonly others: readonly SocketAddress[]
  /** Local address of our socket. */
  readonly local: SocketAddress
  readonly service: Uint8Array
}

/** A key as the engine knows it. */
export interface KeySetting {
  /** In the addresses of its peers. */
  readonly number: number
  /** What the tag of a nonce is computed with: 16 bytes. */
  readonly tag: Uint8Array
  /** Most sessions of its peers; 0 = no limit of its own. */
  readonly maxSessions: number
}

/** Whether an error is the engine's: a trap or a stack overflow. */
export function isTrap(error: unknown): error is Error {
  return error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message))
}

export class Engine {
  readonly peers = new AddressCache()
  /** In force, or applied by the next call below. */
  config: CoreConfig | undefined
  #canSearch = false
  /** Client: destination of new sessions. */
  peer: SocketAddress | undefined
  announcement: Announcement | undefined
  /** The first one is that of new sessions of a client. */
  keys: readonly KeySetting[] = []
  /** Of the rate limits in the configuration, where several engines are one tunnel. */
  #parts = ALL_PARTS
  readonly #make: () => Core
  readonly #secret: EndpointSecret
  readonly #clock: Pick<Clock, 'monotonic' | 'wall'>
  readonly #jump: ClockJump
  #core: Core

  /**
   * @param make creates an instance
   * @param secret the endpoint's secret
   */
  constructor(make: () => Core, secret: EndpointSecret, clock: Pick<Clock, 'monotonic' | 'wall'>) {
    this.#make = make
    this.#secret = secret
    this.#clock = clock
    this.#jump = new ClockJump(clock)
    this.#core = make()
  }

  /** The current instance. */
  get core(): Core {
    return this.#core
  }

  /** The engine's clock: ticks of 1/8 ms, wraps around. */
  now(): number {
    return (this.#clock.monotonic() * TICKS_PER_MS) >>> 0
  }

  /**
   * Configures the instance for the first time.
   * @throws Error naming the field that is out of range
   */
  start(): void {
    const { core, config } = this
    if (config === undefined) return
    const [first, ...later] = this.#secret.next()
    core.fillEntropy()
    if (first !== undefined) core.writeSecret(first)
    core.configure(this.#possible(config), this.now())
    this.#writeKeys()
    if (this.#parts !== ALL_PARTS) this.#tellParts()
    if (config.nonceStrategy !== NonceStrategy.COUNTER) return
    for (const block of later) this.#renew(block)
  }

  /** Starts a new instance with the configuration, peer and announcement of the old one. */
  replace(): void {
    this.#core = this.#make()
    this.start()
    if (this.peer !== undefined) this.tellPeer()
    if (this.announcement !== undefined) this.announce()
  }

  /**
   * Applies configuration changes that docs/abi.md allows.
   * @throws Error naming the field that is out of range
   */
  reconfigure(): void {
    if (this.config !== undefined) this.core.configure(this.#possible(this.config), this.now())
  }

  /** Whether the socket can send what a search for the largest datagram needs: without it `searchMtu` has no effect. */
  get canSearch(): boolean {
    return this.#canSearch
  }

  /**
   * Sets don't fragment on the sending socket while the configuration wants a search; `reconfigure` applies it.
   * @returns whether it became possible or impossible
   */
  prepareSearch(socket: Pick<UdpSocket, 'dontFragment'> | undefined): boolean {
    const before = this.#canSearch
    const isWanted = this.config !== undefined && this.config.searchMtu > 0
    this.#canSearch = socket?.dontFragment?.(isWanted) ?? false
    return this.#canSearch !== before
  }

  #possible(config: CoreConfig): CoreConfig {
    return this.#canSearch ? config : { ...config, searchMtu: 0 }
  }

  /** Tells the engine the keys, and under which one a client opens sessions. */
  tellKeys(): void {
    this.#writeKeys()
    if (this.peer !== undefined) this.tellPeer()
  }

  #writeKeys(): void {
    const { core, keys } = this
    core.refresh()
    for (const { number, tag, maxSessions } of keys) {
      const at = core.keysPtr + number * KeyBlock.BYTES
      core.u8.set(tag, at + KeyBlock.tag)
      core.u32[(at + KeyBlock.maxSessions) >>> 2] = maxSessions
      core.calls.set_key(number, this.now())
    }
  }

  /** Sets the parts of the rate limits that this engine has. */
  shareRate(parts: RateParts): void {
    this.#parts = parts
    if (this.config !== undefined) this.#tellParts()
  }

  #tellParts(): void {
    this.core.calls.share_rate(this.#parts.up, this.#parts.down, this.now())
  }

  tellPeer(): void {
    this.#writePeer(this.peer)
    this.core.calls.set_peer(this.now())
  }

  #writePeer(peer: SocketAddress | undefined): void {
    const { core } = this
    core.refresh()
    const word = core.calls.peer_ptr() >>> 2
    if (peer === undefined) core.u32.fill(0, word, word + 6)
    else {
      this.peers.write(peer, core.u32, word)
      core.u8[word * 4 + ADDRESS_KEY_OFFSET] = this.keys[0]?.number ?? 0
    }
  }

  /**
   * Pings the peer from the sending and from the probing socket.
   * @param port local port of the probing socket
   * @param address the address that the probing socket pings; undefined: that of the peer
   */
  probePath(port: number, address: SocketAddress | undefined): void {
    this.#writePeer(address ?? this.peer)
    this.core.calls.probe_path(port, this.now())
    this.#writePeer(this.peer)
  }

  /** Sends LISTEN or CONNECT immediately (protocol.md 8). */
  announce(): void {
    const { core, announcement } = this
    if (announcement === undefined) return
    const { server, others, local, service } = announcement
    core.refresh()
    this.peers.write(server, core.u32, core.calls.rendezvous_ptr() >>> 2)
    this.peers.write(local, core.u32, core.calls.local_ptr() >>> 2)
    core.u8.set(service, core.calls.service_ptr() >>> 0)
    core.calls.set_rendezvous(service.length, this.now())
    for (const other of others.slice(0, RENDEZVOUS_OTHERS)) {
      this.peers.write(other, core.u32, core.calls.rendezvous_ptr() >>> 2)
      core.calls.add_rendezvous(this.now())
    }
  }

  /** Reads the peer that the engine found or followed. */
  readPeer(): SocketAddress {
    const { core } = this
    core.refresh()
    this.peer = this.peers.read(core.u32, core.calls.peer_ptr() >>> 2)
    return this.peer
  }

  /** Peer of a session. Scans all sessions. */
  peerOf(handle: number): SocketAddress | undefined {
    const { core } = this
    if (core.calls.session_find(handle, this.now()) !== 0) return undefined
    core.refresh()
    return this.peers.read(core.u32, (core.calls.info_ptr() + Info.address) >>> 2)
  }

  /** Number of the key of a session. Scans all sessions. */
  keyOf(handle: number): number {
    const { core } = this
    if (core.calls.session_find(handle, this.now()) !== 0) return 0
    core.refresh()
    return core.u8[(core.calls.info_ptr() >>> 0) + Info.address + ADDRESS_KEY_OFFSET] ?? 0
  }

  /** conv of a session, 0 if it is gone. Scans all sessions. */
  convOf(handle: number): number {
    const { core } = this
    if (core.calls.session_find(handle, this.now()) !== 0) return 0
    core.refresh()
    return core.u32[(core.calls.info_ptr() + Info.conv) >>> 2] ?? 0
  }

  /** The system reports a step of the wall clock. */
  clockStepped(): void {
    this.#jump.expect()
  }

  /**
   * Call at each wake-up before sending. After a clock jump, renews the random bytes and the nonce base: if the machine
   * was cloned, the other clone uses the same ones.
   * @returns ms that the clock jumped, 0 for none
   */
  renewAfterJump(): number {
    const jump = this.#jump.look()
    if (jump === 0) return 0
    this.core.fillEntropy()
    if (this.config?.nonceStrategy === NonceStrategy.COUNTER) this.#renew(this.#secret.renew())
    return jump
  }

  /** Wipes the secret. */
  close(): void {
    this.#secret.wipe()
  }

  #renew(block: Uint8Array): void {
    this.core.writeSecret(block)
    const result = this.core.calls.renew_nonce()
    this.core.refresh()
    if (result !== 0) throw new Error(`engine: renew_nonce failed with code ${result}`)
  }
}
