/**
 * One direction of a network path in virtual time: random and bursty loss, then a bottleneck with a drop-tail queue,
 * then delay, jitter, reordering and duplication.
 *
 * The bottleneck serialises in fractions of a tick and schedules each datagram on the wheel at its arrival tick.
 * `serve` updates the queue on demand, so that a change of rate takes effect in the middle of a packet.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import type { Random } from '../random.ts'
import type { Packets } from './packets.ts'

/** Shape of a path. Absent fields are 0 (no limit, no impairment). */
export interface Shape {
  /** one-way delay, ms */
  readonly delay?: number
  /** added to the delay, uniform in [0, jitter], ms */
  readonly jitter?: number
  /** true: jitter keeps the order */
  readonly inOrder?: boolean
  /** probability of loss before the queue */
  readonly loss?: number
  /** mean length of a burst of total loss, ms, in addition to `loss` */
  readonly burst?: number
  /** mean time between two bursts, ms */
  readonly burstEvery?: number
  readonly duplicate?: number
  /** probability that a datagram is held back by `reorderDelay` ms */
  readonly reorder?: number
  readonly reorderDelay?: number
  /** bits per second, all headers counted; 0: unlimited */
  readonly rate?: number
  /** queue limit of the bottleneck, bytes */
  readonly queueBytes?: number
  /** queue limit of the bottleneck, datagrams; 0: no limit */
  readonly queuePackets?: number
}

/** Counters of one direction. */
export interface Counters {
  /** datagrams and bytes that entered */
  packets: number
  bytes: number
  /** lost at random or in a blackhole, before the queue */
  lost: number
  /** dropped at the tail of the queue */
  dropped: number
  delivered: number
  deliveredBytes: number
  /** sum of the queueing delays of the datagrams served, in ticks */
  waited: number
  served: number
}

const INITIAL_RING = 1024

export class Bottleneck {
  readonly counters: Counters = {
    packets: 0,
    bytes: 0,
    lost: 0,
    dropped: 0,
    delivered: 0,
    deliveredBytes: 0,
    waited: 0,
    served: 0,
  }
  /** longest queueing delay since the last reset to 0, ticks */
  maxWait = 0
  /** drops every datagram while set */
  blackhole = false
  readonly #packets: Packets
  readonly #random: Random
  #shape: Shape = {}
  /** ticks for one byte */
  #ticksPerByte = 0
  #delayTicks = 0
  #ring = new Int32Array(INITIAL_RING)
  #entered = new Float64Array(INITIAL_RING)
  #first = 0
  #end = 0
  /** bytes in the ring that are not yet being sent */
  #waitingBytes = 0
  /** tick at which the head of the ring is sent; Infinity if the ring is empty */
  #headDone = Infinity
  #lastArrival = 0
  #bursting = false
  #burstClock = 0

  constructor(packets: Packets, random: Random, shape: Shape) {
    this.#packets = packets
    this.#random = random
    this.reshape(shape, 0)
  }

  get shape(): Shape {
    return this.#shape
  }

  /** Replaces fields of the shape at `now` (ticks); datagrams past the bottleneck keep their arrival time. */
  reshape(change: Shape, now: number): void {
    this.serve(now)
    const before = this.#ticksPerByte
    this.#shape = { ...this.#shape, ...change }
    const { rate = 0, delay = 0 } = this.#shape
    this.#ticksPerByte = rate > 0 ? (TICKS_PER_MS * 8000) / rate : 0
    this.#delayTicks = Math.max(1, Math.round(delay * TICKS_PER_MS))
    if (this.#headDone !== Infinity && before > 0) {
      this.#headDone = now + ((this.#headDone - now) / before) * this.#ticksPerByte
    }
  }

  /** The latest tick at which `serve` must be called: the next arrival on the other side. */
  next(): number {
    return this.#headDone === Infinity ? Infinity : Math.ceil(this.#headDone) + this.#delayTicks
  }

  #inBurst(now: number): boolean {
    const { burst = 0, burstEvery = 0 } = this.#shape
    if (burst <= 0 || burstEvery <= 0) return false
    // each ms leaves the state with probability 1 / mean: bursts depend on time, not on packets
    for (; this.#burstClock + TICKS_PER_MS <= now; this.#burstClock += TICKS_PER_MS) {
      if (this.#random.unit() < 1 / (this.#bursting ? burst : burstEvery)) this.#bursting = !this.#bursting
    }
    return this.#bursting
  }

  /** Sends a datagram at `now` (ticks). The path takes ownership of the slot. */
  send(slot: number, now: number): void {
    const { loss = 0, queueBytes = Infinity, queuePackets = 0 } = this.#shape
    const weight = this.#packets.weight[slot] ?? 0
    const { counters } = this
    counters.packets++
    counters.bytes += weight
    if (this.blackhole || this.#random.chance(loss) || this.#inBurst(now)) {
      counters.lost++
      this.#packets.drop(slot)
      return
    }
    if (this.#ticksPerByte === 0) {
      counters.served++
      this.#depart(slot, now)
      return
    }
    this.serve(now)
    const waiting = this.#end - this.#first
    const free = waiting === 0
    const fits = free || (this.#waitingBytes + weight <= queueBytes && (queuePackets === 0 || waiting <= queuePackets))
    if (!fits) {
      counters.dropped++
      this.#packets.drop(slot)
      return
    }
    if (waiting === this.#ring.length) this.#enlarge()
    const at = this.#end++ & (this.#ring.length - 1)
    this.#ring[at] = slot
    this.#entered[at] = now
    if (free) {
      this.#headDone = now + weight * this.#ticksPerByte
      counters.served++
    } else this.#waitingBytes += weight
  }

  #enlarge(): void {
    const ring = new Int32Array(this.#ring.length * 2)
    const entered = new Float64Array(ring.length)
    for (let i = this.#first; i < this.#end; i++) {
      ring[i & (ring.length - 1)] = this.#ring[i & (this.#ring.length - 1)] ?? 0
      entered[i & (ring.length - 1)] = this.#entered[i & (this.#ring.length - 1)] ?? 0
    }
    this.#ring = ring
    this.#entered = entered
  }

  /** Schedules the arrival of every datagram that the bottleneck has sent by `now`. */
  serve(now: number): void {
    while (this.#headDone <= now) {
      const done = this.#headDone
      const mask = this.#ring.length - 1
      this.#depart(this.#ring[this.#first++ & mask] ?? 0, done)
      if (this.#first === this.#end) {
        this.#headDone = Infinity
        return
      }
      const at = this.#first & mask
      const weight = this.#packets.weight[this.#ring[at] ?? 0] ?? 0
      const wait = done - (this.#entered[at] ?? 0)
      this.counters.waited += wait
      this.counters.served++
      if (wait > this.maxWait) this.maxWait = wait
      this.#waitingBytes -= weight
      this.#headDone = done + weight * this.#ticksPerByte
    }
  }

  #depart(slot: number, at: number): void {
    const { jitter = 0, inOrder = false, duplicate = 0, reorder = 0, reorderDelay = 0 } = this.#shape
    let arrival = Math.ceil(at) + this.#delayTicks
    if (jitter > 0) {
      arrival += this.#random.below(jitter * TICKS_PER_MS + 1)
      if (inOrder) arrival = this.#lastArrival = Math.max(arrival, this.#lastArrival)
    }
    if (this.#random.chance(reorder)) arrival += Math.round(reorderDelay * TICKS_PER_MS)
    this.counters.delivered++
    this.counters.deliveredBytes += this.#packets.weight[slot] ?? 0
    if (this.#random.chance(duplicate)) this.#packets.schedule(this.#packets.copy(slot), arrival + 1)
    this.#packets.schedule(slot, arrival)
  }
}
