/**
 * Competing TCP flows; one with CUBIC (RFC 9438): slow start, cubic growth with the Reno-friendly region, multiplicative
 * decrease to 0.7, recovery with selective acknowledgements, RTO. Packet numbers replace byte numbers; every packet is
 * acknowledged with its number and the cumulative number.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import type { Bottleneck } from './bottleneck.ts'
import { MSS } from './engine.ts'
import type { Flow } from './flow.ts'
import { Host } from './host.ts'
import type { Packets } from './packets.ts'

const PACKET_BYTES = 1400
const ACK_BYTES = 64
export const INITIAL_WINDOW = 10
const BETA = 0.7
const C = 0.4
const DUPLICATE_THRESHOLD = 3
export const MIN_RTO_TICKS = 200 * TICKS_PER_MS
const MAX_RTO_TICKS = 60_000 * TICKS_PER_MS
/** Limit of outstanding packets, a power of two. */
export const RING = 1 << 17

const IN_FLIGHT = 1
const LOST = 2
const ARRIVED = 3

/** Cube root by Newton's method: the same digits on every runtime. */
function cubeRoot(x: number): number {
  if (x <= 0) return 0
  let root = x > 1 ? x / 2 : 1
  for (let i = 0; i < 200; i++) {
    const next = (2 * root + x / (root * root)) / 3
    if (Math.abs(next - root) <= 1e-9 * root) return next
    root = next
  }
  return root
}

/** Sender of a TCP flow: what was sent, arrived and was lost; when to send is the congestion control's. */
export abstract class Sender extends Host {
  readonly #startAt: number
  /** No new data from then on. */
  readonly #stopAt: number
  readonly #state = new Uint8Array(RING)
  readonly #sentAt = new Float64Array(RING)
  /** value of `#transmissions` at the last transmission of the packet: order of sending */
  readonly #order = new Float64Array(RING)
  #transmissions = 0
  #newestArrived = 0
  #lostCount = 0
  #scan = 0
  protected una = 0
  protected nxt = 0
  protected pipe = 0

  constructor(number: number, packets: Packets, out: Bottleneck, startAt: number, stopAt: number) {
    super(number, packets, out)
    this.#startAt = startAt
    this.#stopAt = stopAt
  }

  /** Sends what may be sent now, and sets the deadline. */
  protected abstract pump(now: number): void
  /** A packet arrived at the first time; `inFlight`: it did not count as lost. */
  protected abstract onArrived(at: number, sentAt: number, inFlight: boolean, now: number): void
  /** An acknowledgement was handled: `acked` packets arrived, `lost` ones counted as lost. */
  protected abstract onHandled(acked: number, lost: readonly number[], now: number): void

  start(): void {
    this.deadline = this.#startAt
  }

  /** Sends the next packet, lost ones first. @returns its place in the ring; -1: there is none */
  protected transmitNext(now: number): number {
    const sn = this.#next(now)
    if (sn < 0) return -1
    const at = sn & (RING - 1)
    this.#state[at] = IN_FLIGHT
    this.#sentAt[at] = now
    this.#order[at] = ++this.#transmissions
    this.pipe++
    const slot = this.packets.take()
    this.packets.first[slot] = sn
    this.packets.second[slot] = this.#transmissions
    this.send(slot, PACKET_BYTES, now)
    return at
  }

  #next(now: number): number {
    if (this.#lostCount > 0) {
      while (this.#scan < this.nxt && this.#state[this.#scan & (RING - 1)] !== LOST) this.#scan++
      if (this.#scan < this.nxt) {
        this.#lostCount--
        return this.#scan++
      }
      this.#lostCount = 0
    }
    return this.nxt - this.una >= RING || now >= this.#stopAt ? -1 : this.nxt++
  }

  #arrived(sn: number, now: number, isSample: boolean): boolean {
    const at = sn & (RING - 1)
    const state = this.#state[at]
    if (state === ARRIVED) return false
    if (state === IN_FLIGHT) this.pipe--
    else this.#lostCount--
    this.#state[at] = ARRIVED
    const order = this.#order[at] ?? 0
    if (order > this.#newestArrived) this.#newestArrived = order
    if (isSample) this.onArrived(at, this.#sentAt[at] ?? 0, state === IN_FLIGHT, now)
    return true
  }

  #lose(sn: number): void {
    this.#state[sn & (RING - 1)] = LOST
    this.pipe--
    this.#lostCount++
    if (sn < this.#scan) this.#scan = sn
  }

  /** Everything in flight counts as lost. */
  protected loseAll(): void {
    for (let sn = this.una; sn < this.nxt; sn++) if (this.#state[sn & (RING - 1)] === IN_FLIGHT) this.#lose(sn)
  }

  receive(now: number): void {
    for (let i = 0; i < this.inboxCount; i++) {
      const slot = this.inbox[i] ?? 0
      const sn = this.packets.first[slot] ?? 0
      const una = this.packets.second[slot] ?? 0
      this.packets.drop(slot)
      this.#acknowledge(sn, una, now)
    }
    this.inboxCount = 0
    this.pump(now)
  }

  #acknowledge(sn: number, una: number, now: number): void {
    let acked = 0
    if (sn >= this.una && sn < this.nxt && this.#arrived(sn, now, true)) acked++
    for (; this.una < una; this.una++) if (this.#arrived(this.una, now, false)) acked++
    if (this.#scan < this.una) this.#scan = this.una
    if (acked === 0) return
    const lost: number[] = []
    // packets are sent in order of their number except for retransmissions, which the order of sending reveals
    for (let n = this.una; n < sn; n++) {
      const at = n & (RING - 1)
      if (this.#state[at] !== IN_FLIGHT) continue
      if ((this.#order[at] ?? 0) + DUPLICATE_THRESHOLD > this.#newestArrived) continue
      this.#lose(n)
      lost.push(n)
    }
    this.onHandled(acked, lost, now)
  }
}

/** CUBIC. */
export class TcpSender extends Sender {
  #cwnd = INITIAL_WINDOW
  #ssthresh = Infinity
  #wMax = 0
  #k = 0
  #epoch = -1
  #wEstimate = 0
  #recover = 0
  #srtt = 0
  #rttvar = 0
  #backoff = 1

  protected pump(now: number): void {
    while (this.pipe < Math.floor(this.#cwnd) && this.transmitNext(now) >= 0);
    const rto = this.#srtt === 0 ? 1000 * TICKS_PER_MS : Math.max(MIN_RTO_TICKS, this.#srtt + 4 * this.#rttvar)
    this.deadline = this.una === this.nxt ? Infinity : Math.ceil(now + Math.min(MAX_RTO_TICKS, rto * this.#backoff))
  }

  protected onArrived(_at: number, sentAt: number, _inFlight: boolean, now: number): void {
    this.#sample(now - sentAt)
  }

  protected onHandled(acked: number, lost: readonly number[], now: number): void {
    this.#backoff = 1
    if (lost.some((sn) => sn >= this.#recover)) this.#reduce()
    else if (this.una >= this.#recover) this.#grow(acked, now)
  }

  #sample(rtt: number): void {
    if (this.#srtt === 0) {
      this.#srtt = rtt
      this.#rttvar = rtt / 2
      return
    }
    this.#rttvar += (Math.abs(rtt - this.#srtt) - this.#rttvar) / 4
    this.#srtt += (rtt - this.#srtt) / 8
  }

  #reduce(): void {
    this.#recover = this.nxt
    this.#wMax = this.#cwnd < this.#wMax ? (this.#cwnd * (1 + BETA)) / 2 : this.#cwnd
    this.#cwnd = this.#ssthresh = Math.max(2, this.#cwnd * BETA)
    this.#epoch = -1
  }

  #grow(acked: number, now: number): void {
    if (this.#cwnd < this.#ssthresh) {
      this.#cwnd += acked
      return
    }
    if (this.#epoch < 0) {
      this.#epoch = now
      this.#wMax = Math.max(this.#wMax, this.#cwnd)
      this.#k = cubeRoot((this.#wMax - this.#cwnd) / C)
      this.#wEstimate = this.#cwnd
    }
    const seconds = (now + this.#srtt - this.#epoch) / (1000 * TICKS_PER_MS) - this.#k
    const target = Math.min(1.5 * this.#cwnd, C * seconds * seconds * seconds + this.#wMax)
    this.#wEstimate += (((3 * (1 - BETA)) / (1 + BETA)) * acked) / this.#cwnd
    this.#cwnd = Math.max(
      this.#wEstimate,
      this.#cwnd + (acked * Math.max(target - this.#cwnd, this.#cwnd * 0.01)) / this.#cwnd,
    )
  }

  expire(now: number): void {
    if (this.una < this.nxt) {
      this.loseAll()
      if (this.#backoff === 1) this.#reduce()
      this.#cwnd = 1
      this.#backoff = Math.min(64, this.#backoff * 2)
    }
    this.pump(now)
  }
}

export class TcpReceiver extends Host {
  readonly #flow: Flow
  readonly #have = new Uint8Array(RING)
  #next = 0

  constructor(number: number, packets: Packets, out: Bottleneck, flow: Flow) {
    super(number, packets, out)
    this.#flow = flow
  }

  start(): void {}

  expire(): void {
    this.deadline = Infinity
  }

  receive(now: number): void {
    for (let i = 0; i < this.inboxCount; i++) {
      const slot = this.inbox[i] ?? 0
      const sn = this.packets.first[slot] ?? 0
      this.packets.drop(slot)
      if (sn >= this.#next) this.#have[sn & (RING - 1)] = 1
      const before = this.#next
      while (this.#have[this.#next & (RING - 1)] === 1) this.#have[this.#next++ & (RING - 1)] = 0
      if (this.#next > before) this.#flow.deliver((this.#next - before) * MSS, now)
      const ack = this.packets.take()
      this.packets.first[ack] = sn
      this.packets.second[ack] = this.#next
      this.send(ack, ACK_BYTES, now)
    }
    this.inboxCount = 0
  }
}
