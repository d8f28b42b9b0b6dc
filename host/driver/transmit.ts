/**
 * The transmit path of one driver: takes datagrams from the engine, seals them into buffers of the UDP socket and sends
 * them until the socket is full. driver.ts decides when, and owns the socket.
 */

import { type Core, DATAGRAM_MAX, ErrorCode, Tx } from '../engine/core.ts'
import type { SocketAddress } from '../net/address.ts'
import type { AddressCache } from '../net/address-cache.ts'
import type { Runtime, Timer, UdpSocket } from '../runtime.ts'
import { StartViews } from '../view-cache.ts'
import type { KeyRing } from './key-ring.ts'
import type { StreamTable } from './stream-table.ts'

/** Pause after ENOBUFS or EAGAIN, ms. */
const BACKOFF_MS = 5
/** Send buffers acquired before the first poll_transmit of a drain; later rounds acquire a full array. */
const FIRST_BUFFERS = 8

/** The part of the driver used by Transmitter. */
export interface TransmitHost {
  readonly runtime: Pick<Runtime, 'clock'>
  readonly core: Core
  readonly streams: StreamTable
  /** Current time of the engine's clock. */
  now(): number
  /** Drains the engine; called when the pause ends. */
  pump(): void
}

export class Transmitter {
  /** Length of the longest datagram sent, bytes. */
  longest = 0
  readonly #host: TransmitHost
  readonly #keys: KeyRing | undefined
  readonly #peers: AddressCache
  readonly #views = new StartViews(DATAGRAM_MAX)
  #udp: UdpSocket | null = null
  /** Sends what the engine sends from the probing socket. */
  probe: UdpSocket | undefined
  /** Destination of all datagrams if the socket is connected. */
  #connected: SocketAddress | undefined
  /** Unused buffers from acquire(): the first `#spareCount` entries. */
  readonly #spare: (Uint8Array | undefined)[]
  #spareCount = 0
  /** acquire() returned null and onWritable has not been called since. */
  #blocked = false
  /** Set during the pause after ENOBUFS or EAGAIN. */
  #backoff: Timer | undefined

  /** @param keys undefined: datagrams are plaintext */
  constructor(host: TransmitHost, keys: KeyRing | undefined, peers: AddressCache) {
    this.#host = host
    this.#keys = keys
    this.#peers = peers
    this.#spare = new Array<undefined>(host.core.txSlots).fill(undefined)
  }

  /**
   * Switches to another socket and drops the state of the previous one.
   * @param udp null = no socket
   * @param connected destination of all datagrams, if the socket is connected
   */
  attach(udp: UdpSocket | null, connected: SocketAddress | undefined): void {
    this.#udp = udp
    this.#connected = connected
    this.#spareCount = 0
    this.#spare.fill(undefined)
    this.#blocked = false
    this.#host.runtime.clock.clearTimer(this.#backoff)
    this.#backoff = undefined
  }

  /** Another engine is in use. The socket and its buffers stay. */
  engineReplaced(): void {
    this.#views.clear()
    this.#blocked = false
  }

  /** The socket may accept datagrams again. */
  unblock(): void {
    this.#blocked = false
  }

  /** Pauses transmission for BACKOFF_MS, then drains again. */
  backOff(): void {
    this.#backoff ??= this.#host.runtime.clock.setTimer(this.#onBackoffEnd, BACKOFF_MS)
  }

  readonly #onBackoffEnd = (): void => {
    this.#backoff = undefined
    this.#host.pump()
  }

  /**
   * Sends the engine's datagrams. Without a socket they are dropped.
   * @returns whether the engine is drained
   */
  transmit(): boolean {
    const udp = this.#udp
    const { core } = this.#host
    let sent = false
    let drained = false
    let refills = 0
    let want = FIRST_BUFFERS
    for (;;) {
      if (this.#backoff !== undefined) break
      const max = udp === null ? core.txSlots : this.#stock(udp, want)
      if (max === 0) break
      const count = core.calls.poll_transmit(max, this.#host.now())
      core.refresh()
      if (count === ErrorCode.ENTROPY) {
        if (++refills > 2) throw new Error('the engine requests more random bytes than fit')
        core.fillEntropy()
        continue
      }
      if (count < 0) throw new Error(`poll_transmit failed with code ${count}`)
      if (count === 0) {
        drained = true
        break
      }
      refills = 0
      want = core.txSlots
      if (udp === null) continue
      for (let i = 0; i < count; i++) this.#send(udp, core.txWord + i * Tx.WORDS)
      sent = true
    }
    if (sent) udp?.flush()
    return drained
  }

  /**
   * Acquires send buffers from the socket until there are `want` of them or none is free.
   * @returns number of buffers
   */
  #stock(udp: UdpSocket, want: number): number {
    while (this.#spareCount < want && !this.#blocked) {
      const buffer = udp.acquire()
      if (buffer === null) this.#blocked = true
      else this.#spare[this.#spareCount++] = buffer
    }
    return this.#spareCount
  }

  /** Seals and sends the datagram of one transmit descriptor. */
  #send(udp: UdpSocket, at: number): void {
    const { core, streams } = this.#host
    const { u32 } = core
    if (((u32[at + Tx.flags] ?? 0) & Tx.PROBE) !== 0) {
      this.#sendFromProbe(at)
      return
    }
    const buffer = this.#spare[this.#spareCount - 1]
    if (buffer === undefined) return
    const to = this.#receiver(at)
    if (streams.unnamed > 0) this.#name(u32[at + Tx.handle] ?? 0, u32[at + Tx.source] ?? 0, to, at)
    const total = this.#seal(at, buffer)
    if (total === 0) return
    // only now: if sealing throws, the buffer stays available
    this.#spareCount--
    const flags = u32[at + Tx.flags] ?? 0
    if ((flags & (Tx.SIZE_TEST | Tx.MAY_FRAGMENT)) !== 0) {
      udp.send(buffer, total, to, true, (flags & Tx.SIZE_TEST) !== 0 ? 'size test' : 'may fragment')
      return
    }
    if (total > this.longest) this.longest = total
    udp.send(buffer, total, to, (flags & Tx.JOINS) === 0)
  }

  /** A probe that cannot be sent at once is lost. */
  #sendFromProbe(at: number): void {
    const buffer = this.probe?.acquire()
    if (this.probe === undefined || !buffer) return
    const total = this.#seal(at, buffer)
    if (total === 0) return
    this.probe.send(buffer, total, this.#receiver(at))
    this.probe.flush()
  }

  #receiver(at: number): SocketAddress {
    return this.#connected ?? this.#peers.read(this.#host.core.u32, (this.#host.core.u32[at + Tx.address] ?? 0) >>> 2)
  }

  /** @returns bytes of the datagram of one transmit descriptor, sealed into `buffer`; 0 if it is not to be sent */
  #seal(at: number, buffer: Uint8Array): number {
    const { core } = this.#host
    if (this.#keys !== undefined) return this.#keys.seal(core, at, buffer)
    buffer.set(this.#views.at(core.u8, core.u32[at + Tx.source] ?? 0))
    return core.u32[at + Tx.length] ?? 0
  }

  /** Reads conv, the first field of the plaintext (protocol.md 5.1), and sets it on the stream. */
  #name(handle: number, source: number, peer: SocketAddress, at: number): void {
    if (handle === 0) return
    const { core, streams } = this.#host
    const { u8 } = core
    let conv = 0
    for (let i = 0; i < 4; i++) conv = (conv << 8) | (u8[source + i] ?? 0)
    streams.name(handle, conv >>> 0, peer, this.#keys?.userOf(core, at))
  }
}
