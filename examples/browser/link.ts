/** An emulated link in real time: a bottleneck with a drop-tail queue, random loss, and a delay. */

/** Of both directions. May be changed at any time. */
export interface LinkSettings {
  /** Without the queue, ms. */
  roundTrip: number
  /** Probability that a datagram is lost. */
  loss: number
  /** Mbit/s */
  rate: number
  /** Bytes that the bottleneck holds. */
  queue: number
}

/** IPv4 and UDP headers. */
const HEADER_BYTES = 28
/** Bits of a byte, by bits/ms of a Mbit/s. */
const BYTES_PER_MS = 1e6 / 8 / 1000

interface Arrival {
  readonly at: number
  readonly data: Uint8Array
}

/** One direction. */
export class Direction {
  sent = 0
  lost = 0
  /** Called with each datagram that arrives. */
  deliver: (data: Uint8Array) => void = () => {}
  readonly #settings: LinkSettings
  #arrivals: Arrival[] = []
  #freeAt = 0
  #lastAt = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(settings: LinkSettings) {
    this.#settings = settings
  }

  /** Bytes that wait at the bottleneck. */
  get queued(): number {
    return Math.max(0, this.#freeAt - performance.now()) * this.#settings.rate * BYTES_PER_MS
  }

  /** @param data kept */
  send(data: Uint8Array): void {
    const { roundTrip, loss, rate, queue } = this.#settings
    const now = performance.now()
    this.sent++
    if (Math.random() < loss || this.queued > queue) {
      this.lost++
      return
    }
    this.#freeAt = Math.max(now, this.#freeAt) + (data.length + HEADER_BYTES) / (rate * BYTES_PER_MS)
    // a shorter delay does not reorder
    this.#lastAt = Math.max(this.#freeAt + roundTrip / 2, this.#lastAt)
    this.#arrivals.push({ at: this.#lastAt, data })
    this.#timer ??= setTimeout(this.#arrive, this.#lastAt - now)
  }

  readonly #arrive = (): void => {
    const now = performance.now()
    // a timer may fire a little early
    const count = this.#arrivals.findIndex(({ at }) => at > now + 1)
    const arrived = count < 0 ? this.#arrivals : this.#arrivals.slice(0, count)
    this.#arrivals = count < 0 ? [] : this.#arrivals.slice(count)
    const [next] = this.#arrivals
    this.#timer = next && setTimeout(this.#arrive, next.at - now)
    for (const { data } of arrived) this.deliver(data)
  }
}

/** Both directions between two endpoints. */
export interface Link {
  readonly up: Direction
  readonly down: Direction
}

export const makeLink = (settings: LinkSettings): Link => ({
  up: new Direction(settings),
  down: new Direction(settings),
})
