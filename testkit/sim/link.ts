/**
 * One direction of a network in virtual time: delay, jitter, loss, duplication, reordering, bit errors, and a
 * bottleneck of limited rate with a drop-tail queue. All choices come from a seed.
 */
import { MS } from './endpoint.ts'
import type { Random } from './random.ts'

export interface LinkOptions {
  /** one-way, ms */
  readonly delay: number
  /** added to the delay, uniform 0..jitter, ms; order is kept except by `reorder` */
  readonly jitter: number
  readonly loss: number
  readonly duplicate: number
  /** probability that a datagram is held back by up to 3 delays + 20 ms */
  readonly reorder: number
  /** probability that a bit is flipped */
  readonly corrupt: number
  /** bytes per ms; 0 = unlimited */
  readonly rate: number
  /** queue limit of the bottleneck, bytes */
  readonly queue: number
  /** longer datagrams are dropped, unless they may be fragmented, bytes; 0 = unlimited */
  readonly longest: number
}

export const PERFECT: LinkOptions = {
  delay: 10,
  jitter: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  corrupt: 0,
  rate: 0,
  queue: 1 << 20,
  longest: 0,
}

/** A datagram and its arrival time in ticks. */
export interface Delivery {
  readonly at: number
  readonly bytes: Uint8Array
}

export class Link {
  options: LinkOptions
  /** Drops every datagram while set. */
  blackhole = false
  sent = 0
  dropped = 0
  readonly #random: Random
  #freeAt = 0
  #lastAt = 0

  constructor(options: LinkOptions, random: Random) {
    this.options = options
    this.#random = random
  }

  /** Sends a datagram at `time` (ticks). @returns its deliveries at the other end */
  send(time: number, bytes: Uint8Array, mayFragment = false): Delivery[] {
    const { delay, jitter, loss, duplicate, reorder, corrupt, rate, queue, longest } = this.options
    const random = this.#random
    this.sent++
    const isTooLong = longest > 0 && bytes.length > longest && !mayFragment
    if (this.blackhole || random.chance(loss) || isTooLong) {
      this.dropped++
      return []
    }
    let at = time
    if (rate > 0) {
      const waiting = Math.max(0, this.#freeAt - time)
      if ((waiting * rate) / MS > queue) {
        this.dropped++
        return []
      }
      this.#freeAt = Math.max(time, this.#freeAt) + (bytes.length * MS) / rate
      at = Math.ceil(this.#freeAt)
    }
    const copies = random.chance(duplicate) ? 2 : 1
    const result: Delivery[] = []
    for (let i = 0; i < copies; i++) {
      let arrival = at + delay * MS + random.below(jitter * MS + 1)
      if (random.chance(reorder)) arrival += random.below((3 * delay + 20) * MS)
      else this.#lastAt = arrival = Math.max(arrival, this.#lastAt)
      let delivered = bytes
      if (random.chance(corrupt) && bytes.length > 0) {
        delivered = bytes.slice()
        const bit = random.below(bytes.length * 8)
        delivered[bit >> 3] = (delivered[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      }
      result.push({ at: arrival, bytes: delivered })
    }
    return result
  }
}
