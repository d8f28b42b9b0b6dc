/**
 * One engine on the socket of a probe, in the role of a client: what `doctor` and `health` send is built, and what
 * arrives is read, by the engine that a tunnel runs. Several voices, of other methods and keys, may share one socket.
 */

import { type Config, type KcpConfig, MODE_CLIENT } from '../../config/config.ts'
import { kcpMtu, MTU_TOP } from '../../config/mtu.ts'
import type { Aead } from '../../crypto/aead.ts'
import { HostTimer } from '../../driver/timer.ts'
import { instantiateHere } from '../../engine/address-space.ts'
import { coreConfig } from '../../engine/config-block.ts'
import {
  Core,
  type CoreConfig,
  DATAGRAM_MAX,
  ErrorCode,
  Event,
  EventType,
  Pong,
  Rx,
  TICKS_PER_MS,
  Tx,
} from '../../engine/core.ts'
import { type Announcement, Engine } from '../../engine/engine.ts'
import { EndpointSecret } from '../../engine/secret.ts'
import { ADDRESS_RECORD_BYTES, type SocketAddress } from '../../net/address.ts'
import type { Runtime, UdpSocket } from '../../runtime.ts'

/** Memory of the sessions of a probe, bytes. */
const MEMORY_BYTES = 16 << 20
/** Maximum number of rounds of one drain. */
const DRAIN_ROUNDS = 256
/** Pings that a voice can number. */
const NUMBERS = 2 ** 31

/** A method with its key, or none. */
export interface Cipher {
  /** Method and key as shown in the report. */
  readonly name: string
  readonly aead: Aead | undefined
  /** Bytes of tag and nonce. */
  readonly overhead: number
  /** Overwrites the key. */
  wipe(): void
}

/** No method: the datagram is the plaintext. */
export const PLAIN: Cipher = { name: 'no method', aead: undefined, overhead: 0, wipe: () => {} }

export function cipherOf(aead: Aead, name: string = aead.method): Cipher {
  return { name, aead, overhead: aead.tagBytes + aead.nonceBytes, wipe: () => aead.wipe() }
}

/** An answer to a ping. */
export interface Answer {
  /** What `ping` returned. */
  readonly number: number
  readonly from: SocketAddress
  /** Monotonic ms. */
  readonly at: number
  readonly cipher: Cipher
}

/** What a voice reports to its probe. */
export interface VoiceListener {
  onAnswer(answer: Answer): void
  /** A rendezvous server named these addresses. */
  onPunched(addresses: readonly SocketAddress[]): void
  /** A rendezvous client found its peer. */
  onPeer(peer: SocketAddress): void
}

/** Events of a session. */
export type SessionListener = (type: number, arg: number, arg2: number) => void

/** The timing of our sessions is the engine's own. */
const UNSET: Omit<KcpConfig, 'mtu'> = {
  flush: undefined,
  interval: undefined,
  nc: undefined,
  nodelay: undefined,
  rcvwnd: undefined,
  redundancy: false,
  resend: undefined,
  sndwnd: undefined,
}

/** The engine's configuration: that of the tunnel, as far as it concerns datagrams. */
function voiceConfig(config: Config, { aead, overhead }: Cipher, family: 4 | 6, mode: number): CoreConfig {
  const { mtu } = config.kcp
  const plain = (packet: number | undefined): number => kcpMtu(packet, family, undefined, undefined) - overhead
  const own = { ...config, mode, obfs: undefined, kcp: { ...UNSET, mtu } }
  return {
    ...coreConfig(own, aead, family),
    kcpMtu: plain(mtu),
    searchMtu: mtu === undefined ? plain(MTU_TOP) : 0,
    // a client that finds its peer by rendezvous has to have one
    keepalive: mode === MODE_CLIENT ? 0 : Math.max(config.keepalive, 1),
    memoryCeiling: MEMORY_BYTES,
    // a datagram that the network duplicates is a finding
    replayCapacity: 0,
  }
}

export class Voice {
  readonly cipher: Cipher
  readonly #runtime: Runtime
  readonly #listener: VoiceListener
  readonly #engine: Engine
  readonly #timer: HostTimer
  readonly #first: number
  readonly #sessions = new Map<number, SessionListener>()
  #socket: UdpSocket | undefined
  /** Acquired from the socket, for the next datagram. */
  #buffer: Uint8Array | undefined
  /** Destination of all datagrams if the socket is connected. */
  #connected: SocketAddress | undefined
  #isDraining = false
  #unsent = 0

  /** @param index of the voice on its socket */
  constructor(runtime: Runtime, cipher: Cipher, index: number, listener: VoiceListener) {
    this.#runtime = runtime
    this.cipher = cipher
    this.#first = index * NUMBERS
    this.#listener = listener
    this.#engine = new Engine(() => new Core(instantiateHere(runtime.os)), new EndpointSecret(), runtime.clock)
    this.#timer = new HostTimer(runtime.clock, () => this.drain())
  }

  /** Starts the engine on a socket. @param mode bits of Mode */
  start(socket: UdpSocket, config: Config, connected: SocketAddress | undefined, mode: number): void {
    const family = connected?.family ?? socket.local.family
    this.#socket = socket
    this.#connected = connected
    this.#engine.config = voiceConfig(config, this.cipher, family, mode)
    this.#engine.prepareSearch(socket)
    this.#engine.start()
  }

  close(): void {
    this.#timer.disarm()
    this.#socket = undefined
    this.#engine.close()
  }

  /**
   * Sends a PING.
   * @param bytes of the datagram, sealed; 0: an ordinary ping
   * @returns its number
   */
  ping(to: SocketAddress, bytes: number): number {
    const { core, peers } = this.#engine
    core.refresh()
    const word = core.calls.peer_ptr() >>> 2
    const before = core.u32.slice(word, word + ADDRESS_RECORD_BYTES / 4)
    peers.write(to, core.u32, word)
    const number = core.calls.ping_address(Math.max(bytes - this.cipher.overhead, 0), this.#engine.now())
    core.refresh()
    core.u32.set(before, word)
    this.drain()
    return number < 0 ? -++this.#unsent : this.#first + number
  }

  /** Sets the server of sessions. */
  setPeer(peer: SocketAddress): void {
    this.#engine.peer = peer
    this.#engine.tellPeer()
    this.drain()
  }

  /** Sends CONNECT to a rendezvous server, and to other addresses of its name. */
  announce(announcement: Announcement): void {
    this.#engine.announcement = announcement
    this.#engine.announce()
    this.drain()
  }

  /**
   * Opens a session.
   * @param echo bytes that the peer is asked to return; 0: the peer connects to its target
   * @returns its handle; an error code if it cannot be opened
   */
  open(echo: number, listener: SessionListener): number {
    const { calls } = this.#engine.core
    const now = this.#engine.now()
    const handle = echo > 0 ? calls.echo_open(echo, now) : calls.stream_open(now)
    if (handle > 0) this.#sessions.set(handle, listener)
    this.drain()
    return handle
  }

  /** Drops what a session received. */
  discard(handle: number): void {
    const { core } = this.#engine
    for (let spans = core.calls.stream_peek(handle); spans > 0; spans = core.calls.stream_peek(handle)) {
      core.refresh()
      let bytes = 0
      for (let i = 0; i < spans; i++) bytes += core.u32[core.spanWord + 2 * i + 1] ?? 0
      core.calls.stream_consume(handle, bytes, this.#engine.now())
    }
  }

  /** Ends our direction of a session. */
  shutdown(handle: number): void {
    this.#engine.core.calls.stream_shutdown(handle, this.#engine.now())
    this.drain()
  }

  /** Ends a session, in both directions and at once, unless it ended by itself. */
  reset(handle: number): void {
    if (!this.#sessions.delete(handle)) return
    this.#engine.core.calls.stream_reset(handle, this.#engine.now())
    this.drain()
  }

  /**
   * Passes a datagram to the engine.
   * @returns false if it is not sealed with our key
   */
  receive(data: Uint8Array, from: SocketAddress): boolean {
    const { core, peers } = this.#engine
    const { aead } = this.cipher
    if (this.#socket === undefined || data.length > DATAGRAM_MAX) return false
    core.refresh()
    const ptr = core.u32[core.rxWord + Rx.ptr] ?? 0
    if (aead === undefined) core.u8.set(data, ptr)
    else if (aead.openInto(data, data.length, core.u8, ptr) < 0) return false
    core.u32[core.rxWord + Rx.length] = data.length
    core.u32[core.rxWord + Rx.flags] = Rx.OPENED
    peers.write(from, core.u32, core.rxWord + Rx.address)
    const at = this.#runtime.clock.monotonic()
    core.calls.handle_datagrams(1, this.#engine.now())
    this.#answers(at)
    this.drain()
    return true
  }

  #answers(at: number): void {
    const { core, peers } = this.#engine
    const count = core.calls.poll_pongs()
    core.refresh()
    for (let i = 0; i < count; i++) {
      const word = (core.calls.pongs_ptr() >>> 2) + i * Pong.WORDS
      const number = this.#first + (core.u32[word + Pong.number] ?? 0)
      this.#listener.onAnswer({ number, from: peers.read(core.u32, word + Pong.address), at, cipher: this.cipher })
    }
  }

  /** Sends what is due, reports events and arms the timer. */
  drain(): void {
    if (this.#isDraining || this.#socket === undefined) return
    this.#isDraining = true
    try {
      this.#rounds()
    } finally {
      this.#isDraining = false
    }
  }

  #rounds(): void {
    const { calls } = this.#engine.core
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      // onWritable continues
      if (!this.#transmit()) return
      if (this.#events() > 0) continue
      const wait = calls.next_timeout(this.#engine.now())
      if (wait === 0) {
        calls.handle_timeout(this.#engine.now())
        continue
      }
      if (wait > 0) this.#timer.arm(Math.ceil(wait / TICKS_PER_MS))
      return
    }
    this.#timer.arm(0)
  }

  /** @returns false if the socket takes no more at present */
  #transmit(): boolean {
    const { core } = this.#engine
    for (;;) {
      // a buffer cannot be given back
      this.#buffer ??= this.#socket?.acquire() ?? undefined
      if (this.#buffer === undefined) return false
      let count = core.calls.poll_transmit(1, this.#engine.now())
      if (count === ErrorCode.ENTROPY) {
        core.fillEntropy()
        count = core.calls.poll_transmit(1, this.#engine.now())
      }
      core.refresh()
      if (count <= 0) return true
      this.#send(this.#buffer)
    }
  }

  #send(buffer: Uint8Array): void {
    const { core, peers } = this.#engine
    const { u8, u32, txWord: at } = core
    const { aead } = this.cipher
    const source = u32[at + Tx.source] ?? 0
    let length = u32[at + Tx.length] ?? 0
    if (aead !== undefined) length = aead.seal(u8, source, length, u8, u32[at + Tx.nonce] ?? 0, buffer, 0)
    else buffer.set(u8.subarray(source, source + length))
    const to = this.#connected ?? peers.read(u32, (u32[at + Tx.address] ?? 0) >>> 2)
    const isTest = ((u32[at + Tx.flags] ?? 0) & Tx.SIZE_TEST) !== 0
    this.#buffer = undefined
    this.#socket?.send(buffer, length, to, true, isTest ? 'size test' : undefined)
    this.#socket?.flush()
  }

  #events(): number {
    const { core } = this.#engine
    const count = core.calls.poll_events()
    core.refresh()
    // listeners may call the engine
    const events = core.u32.slice(core.eventWord, core.eventWord + count * Event.WORDS)
    for (let at = 0; at < events.length; at += Event.WORDS) {
      const [type = 0, handle = 0, arg = 0, arg2 = 0] = events.subarray(at, at + Event.WORDS)
      if (type === EventType.PUNCHED) this.#listener.onPunched(this.#punched())
      else if (type === EventType.PEER_FOUND) this.#listener.onPeer(this.#engine.readPeer())
      const listener = this.#sessions.get(handle)
      if (type === EventType.ABORT || type === EventType.DETACH) this.#sessions.delete(handle)
      listener?.(type, arg, arg2)
    }
    return count
  }

  #punched(): SocketAddress[] {
    const { core, peers } = this.#engine
    const words = [0, 1].map((i) => (core.calls.punched_ptr() + i * ADDRESS_RECORD_BYTES) >>> 2)
    return words.filter((word) => core.u32[word] !== 0).map((word) => peers.read(core.u32, word))
  }
}
