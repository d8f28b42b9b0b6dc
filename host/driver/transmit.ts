/**
 * The way out of one driver: takes datagrams from the engine, seals them into buffers of the UDP socket and sends them, as far as the socket takes them.
 * When to do so is driver.ts's business, and so is the socket's life.
 */

import type { Aead } from '../crypto/aead.ts'
import { type Core, DATAGRAM_MAX, ErrorCode, Tx } from '../engine/core.ts'
import type { SocketAddress } from '../net/address.ts'
import type { AddressCache } from '../net/address-cache.ts'
import type { Runtime, Timer, UdpSocket } from '../runtime.ts'
import { StartViews } from '../view-cache.ts'
import type { StreamTable } from './stream-table.ts'

/** After ENOBUFS or EAGAIN nothing is sent for this time, ms. */
const BACKOFF_MS = 5
/** Send buffers asked for before the first poll_transmit of a drain; later rounds ask for a full array. */
const FIRST_BUFFERS = 8

/** What a transmitter needs from the driver. */
export interface TransmitHost {
  readonly runtime: Pick<Runtime, 'clock'>
  readonly core: Core
  readonly streams: StreamTable
  /** The engine's clock, fresh. */
  now(): number
  /** The pause that the system asked for is over. */
  pump(): void
}

export class Transmitter {
  /** Bytes of the longest datagram sent. */
  longest = 0
  readonly #host: TransmitHost
  readonly #aead: Aead | undefined
  readonly #peers: AddressCache
  readonly #views = new StartViews(DATAGRAM_MAX)
  #udp: UdpSocket | null = null
  /** Receiver of everything, when the socket is connected. */
  #connected: SocketAddress | undefined
  /** Buffers from acquire() that wait for a datagram: the first `#spareCount` entries. */
  readonly #spare: (Uint8Array | undefined)[]
  #spareCount = 0
  /** acquire() gave null and onWritable has not come. */
  #blocked = false
  /** Runs while nothing is sent because the system asked for a pause. */
  #backoff: Timer | undefined

  /** @param aead undefined: datagrams are plaintext */
  constructor(host: TransmitHost, aead: Aead | undefined, peers: AddressCache) {
    this.#host = host
    this.#aead = aead
    this.#peers = peers
    this.#spare = new Array<undefined>(host.core.txSlots).fill(undefined)
  }

  /** Takes a socket into use; null = none. What belonged to the one before is forgotten. `connected`: receiver of everything. */
  attach(udp: UdpSocket | null, connected: SocketAddress | undefined): void {
    this.#udp = udp
    this.#connected = connected
    this.#spareCount = 0
    this.#spare.fill(undefined)
    this.#blocked = false
    this.#host.runtime.clock.clearTimer(this.#backoff)
    this.#backoff = undefined
  }

  /** Another engine is in use. Buffers belong to the socket, which stays. */
  engineReplaced(): void {
    this.#views.clear()
    this.#blocked = false
  }

  /** The socket may take datagrams again. */
  unblock(): void {
    this.#blocked = false
  }

  /** Sends nothing for a moment, then calls the host. */
  backOff(): void {
    this.#backoff ??= this.#host.runtime.clock.setTimer(this.#onBackoffEnd, BACKOFF_MS)
  }

  readonly #onBackoffEnd = (): void => {
    this.#backoff = undefined
    this.#host.pump()
  }

  /**
   * Sends what the engine has.
   * @returns whether that was all. Without a socket datagrams are lost, as on any bad network
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
        if (++refills > 2) throw new Error('the engine wants more random bytes than fit')
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
   * Takes send buffers from the socket until there are `want` of them, or none is free.
   * @returns how many there are
   */
  #stock(udp: UdpSocket, want: number): number {
    while (this.#spareCount < want && !this.#blocked) {
      const buffer = udp.acquire()
      if (buffer === null) this.#blocked = true
      else this.#spare[this.#spareCount++] = buffer
    }
    return this.#spareCount
  }

  /** Seals and sends the datagram of one descriptor. */
  #send(udp: UdpSocket, at: number): void {
    const buffer = this.#spare[this.#spareCount - 1]
    if (buffer === undefined) return
    const { core, streams } = this.#host
    const { u8, u32 } = core
    const source = u32[at + Tx.source] ?? 0
    const length = u32[at + Tx.length] ?? 0
    let total = length
    let to = this.#connected
    to ??= this.#peers.read(u32, (u32[at + Tx.address] ?? 0) >>> 2)
    if (streams.unnamed > 0) this.#name(u32[at + Tx.handle] ?? 0, source, to)
    if (this.#aead === undefined) buffer.set(this.#views.at(u8, source))
    else total = this.#aead.seal(u8, source, length, u8, u32[at + Tx.nonce] ?? 0, buffer, 0)
    // it was ours until now, should anything have thrown
    this.#spareCount--
    if (total > this.longest) this.longest = total
    udp.send(buffer, total, to)
  }

  /** conv is the first field of the plaintext (protocol.md 5.1). */
  #name(handle: number, source: number, peer: SocketAddress): void {
    if (handle === 0) return
    const { core, streams } = this.#host
    const { u8 } = core
    let conv = 0
    for (let i = 0; i < 4; i++) conv = (conv << 8) | (u8[source + i] ?? 0)
    streams.name(handle, conv >>> 0, peer)
  }
}
