/**
 * The engine of one endpoint, and what it was configured with. A trap makes an instance useless; `replace` starts a fresh one that
 * knows all of it but the sessions. When to call what, and what follows from it, is driver.ts.
 */

import type { SocketAddress } from '../net/address.ts'
import { AddressCache } from '../net/address-cache.ts'
import type { Clock } from '../runtime.ts'
import { ClockJump } from './clock-jump.ts'
import { type Core, type CoreConfig, Info, NonceStrategy, TICKS_PER_MS } from './core.ts'
import type { EndpointSecret } from './secret.ts'

/** An announcement to a rendezvous server. */
export interface Announcement {
  readonly server: SocketAddress
  /** What our own socket is called locally. */
  readonly local: SocketAddress
  readonly service: Uint8Array
}

/** Whether an error is the engine's: a trap, or a stack that overflowed. */
export function isTrap(error: unknown): error is Error {
  return error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message))
}

export class Engine {
  readonly peers = new AddressCache()
  /** In force, or to be put in force by the next call below. */
  config: CoreConfig | undefined
  /** Client: where new sessions go. */
  peer: SocketAddress | undefined
  announcement: Announcement | undefined
  readonly #make: () => Core
  readonly #secret: EndpointSecret
  readonly #clock: Pick<Clock, 'monotonic' | 'wall'>
  readonly #jump: ClockJump
  #core: Core

  /**
   * @param make a fresh instance
   * @param secret of the endpoint
   */
  constructor(make: () => Core, secret: EndpointSecret, clock: Pick<Clock, 'monotonic' | 'wall'>) {
    this.#make = make
    this.#secret = secret
    this.#clock = clock
    this.#jump = new ClockJump(clock)
    this.#core = make()
  }

  /** The instance in use. */
  get core(): Core {
    return this.#core
  }

  /** The engine's clock: ticks of 1/8 ms, wrapping. */
  now(): number {
    return (this.#clock.monotonic() * TICKS_PER_MS) >>> 0
  }

  /**
   * First configuration of the instance.
   * @throws Error naming the field that is out of range
   */
  start(): void {
    const { core, config } = this
    if (config === undefined) return
    const [first, ...later] = this.#secret.next()
    core.fillEntropy()
    if (first !== undefined) core.writeSecret(first)
    core.configure(config, this.now())
    if (config.nonceStrategy !== NonceStrategy.COUNTER) return
    for (const block of later) this.#renew(block)
  }

  /** A fresh instance with everything that was given to the one before. */
  replace(): void {
    this.#core = this.#make()
    this.start()
    if (this.peer !== undefined) this.tellPeer()
    if (this.announcement !== undefined) this.announce()
  }

  /**
   * Later configuration: what docs/abi.md lets change.
   * @throws Error naming the field that is out of range
   */
  reconfigure(): void {
    if (this.config !== undefined) this.core.configure(this.config, this.now())
  }

  tellPeer(): void {
    const { core, peer } = this
    core.refresh()
    const word = core.calls.peer_ptr() >>> 2
    if (peer === undefined) core.u32.fill(0, word, word + 6)
    else this.peers.write(peer, core.u32, word)
    core.calls.set_peer(this.now())
  }

  /** LISTEN or CONNECT leaves at once (protocol.md 8). */
  announce(): void {
    const { core, announcement } = this
    if (announcement === undefined) return
    const { server, local, service } = announcement
    core.refresh()
    this.peers.write(server, core.u32, core.calls.rendezvous_ptr() >>> 2)
    this.peers.write(local, core.u32, core.calls.local_ptr() >>> 2)
    core.u8.set(service, core.calls.service_ptr() >>> 0)
    core.calls.set_rendezvous(service.length, this.now())
  }

  /** Takes note of the peer that the engine found, or followed, by itself. */
  readPeer(): SocketAddress {
    const { core } = this
    core.refresh()
    this.peer = this.peers.read(core.u32, core.calls.peer_ptr() >>> 2)
    return this.peer
  }

  /** Peer of a session. Looks at every session. */
  peerOf(handle: number): SocketAddress | undefined {
    const { core } = this
    const slots = core.calls.session_slots()
    for (let slot = 0; slot < slots; slot++) {
      if (core.calls.session_info(slot, this.now()) !== handle) continue
      core.refresh()
      return this.peers.read(core.u32, (core.calls.info_ptr() + Info.address) >>> 2)
    }
    return undefined
  }

  /**
   * To be called at a wake-up before anything is sent. After a jump of the clock random bytes and the base of nonces are
   * drawn anew: should the machine have been cloned, its other half has the same, and uses them too.
   * @returns ms that the clock jumped, 0 for none
   */
  renewAfterJump(): number {
    const jump = this.#jump.look()
    if (jump === 0) return 0
    this.core.fillEntropy()
    if (this.config?.nonceStrategy === NonceStrategy.COUNTER) this.#renew(this.#secret.renew())
    return jump
  }

  /** Lets go of the secret. */
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
