/** An attacker that reads all traffic and sends from any address, without the key. */
import type { SocketAddress } from '../../host/net/address.ts'
import type { Random } from '../sim/random.ts'
import type { Violation } from './machine.ts'
import { type Datagram, ipv4, type Network } from './network.ts'

/** Source addresses of datagrams never sealed with the key, and of recorded ones. */
const FORGER = '203.0.113.66'
const REPLAYER = '203.0.113.77'
const RECORDED_MAX = 3000
const LATEST = 100
/** Limit of bytes sent to an address that is not validated: docs/validation.md, "Addresses". */
const AMPLIFICATION = 3
const ALLOWANCE_BYTES = 4096

export class Attacker {
  /** Sends copies of datagrams from another address, ahead of the original. */
  isRacing = false
  readonly sent = { forged: 0, replayed: 0 }
  /** Addresses exempt from attacks: kcptun-libev accepts replays and its own datagrams. */
  readonly spared = new Set<string>()
  readonly #network: Network
  readonly #random: Random
  readonly #recorded: Datagram[] = []
  #replayedBytes = 0
  #answeredBytes = 0

  constructor(network: Network, random: Random, report: Violation) {
    this.#network = network
    this.#random = random
    network.outsiders.set(FORGER, ({ from, bytes }) => {
      report(`a forged datagram was answered by ${from.address} with ${bytes.length} bytes`)
    })
    network.outsiders.set(REPLAYER, ({ bytes }) => {
      this.#answeredBytes += bytes.length
      const limit = AMPLIFICATION * this.#replayedBytes + ALLOWANCE_BYTES * this.sent.replayed
      if (this.#answeredBytes > limit) report(`replays were answered with ${this.#answeredBytes} bytes`)
    })
    network.tap = (datagram) => this.#onDatagram(datagram)
  }

  #onDatagram(datagram: Datagram): void {
    if (this.spared.has(datagram.to.address)) return
    if (this.#recorded.length >= RECORDED_MAX) this.#recorded[this.#random.below(RECORDED_MAX)] = datagram
    else this.#recorded.push(datagram)
    if (this.isRacing && this.#random.chance(0.2)) this.#replayFrom(ipv4(REPLAYER, 7), datagram, 0)
  }

  #pick(): Datagram | undefined {
    return this.#recorded[this.#random.below(this.#recorded.length)]
  }

  #replayFrom(from: SocketAddress, { to, bytes }: Datagram, delay: number): void {
    this.sent.replayed++
    if (from.address === REPLAYER) this.#replayedBytes += bytes.length
    this.#network.inject(from, to, bytes, delay)
  }

  /** Sends datagrams back to their senders. */
  reflect(): void {
    for (let i = 0; i < 3; i++) {
      const datagram = this.#pick()
      if (datagram === undefined) return
      const { from, to } = datagram
      if (this.spared.has(from.address)) return
      this.#replayFrom(this.#random.chance(0.7) ? to : ipv4(REPLAYER, 8), { ...datagram, to: from }, 1)
    }
  }

  /** Replays recorded datagrams from their own source or another one. */
  replay(): void {
    for (let i = 0; i < 4; i++) {
      const recorded = this.#recorded
      const isLate = this.#random.chance(0.5) && recorded.length > LATEST
      const datagram = isLate ? recorded[recorded.length - 1 - this.#random.below(LATEST)] : this.#pick()
      if (datagram === undefined) return
      this.#replayFrom(this.#random.chance(0.5) ? datagram.from : ipv4(REPLAYER, 9), datagram, 1)
    }
  }

  /** Sends modified copies of recorded datagrams. */
  forge(): void {
    const datagram = this.#pick()
    if (datagram === undefined) return
    const bytes = datagram.bytes.slice(0, this.#random.pick(datagram.bytes.length, 60, 41))
    const at = this.#random.below(bytes.length)
    bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#random.below(8))
    this.#forgeFrom(this.#random.chance(0.5) ? datagram.from : ipv4(FORGER, 66), datagram.to, bytes)
  }

  /** Sends random bytes from many addresses. */
  flood(count: number): void {
    const datagram = this.#pick()
    if (datagram === undefined) return
    for (let i = 0; i < count; i++) {
      const from = ipv4(FORGER, 1024 + this.#random.below(60_000))
      this.#forgeFrom(from, datagram.to, this.#random.bytes(this.#random.between(1, 1500)))
    }
  }

  /** Sends random bytes with the source address of a peer. */
  spoof(): void {
    const datagram = this.#pick()
    if (datagram === undefined) return
    this.#forgeFrom(datagram.from, datagram.to, this.#random.bytes(this.#random.pick(datagram.bytes.length, 0, 100)))
  }

  #forgeFrom(from: SocketAddress, to: SocketAddress, bytes: Uint8Array): void {
    this.sent.forged++
    this.#network.inject(from, to, bytes)
  }
}
