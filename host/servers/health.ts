/** Whether one of several servers answers, and how fast. member.ts finds it out, chooser.ts acts on it. */

/** A server that was down gets new sessions only after it has answered for so long, ms, while another one does. */
export const WELL_MS = 30_000
/** The round trip time is the least of so many pings: what the tunnel's own traffic adds does not count. */
const SAMPLES = 4

/** `checking`: not known yet. */
export type ServerState = 'checking' | 'up' | 'down'

export class ServerHealth {
  state: ServerState = 'checking'
  /** When it got into this state, monotonic ms. */
  since: number
  #hasBeenDown = false
  readonly #samples: number[] = []

  constructor(now: number) {
    this.since = now
  }

  /** The round trip time, ms; undefined before the first answer. */
  get rtt(): number | undefined {
    return this.#samples.length === 0 ? undefined : Math.min(...this.#samples)
  }

  /** A ping was answered after `ms`. */
  sample(ms: number): void {
    this.#samples.push(ms)
    if (this.#samples.length > SAMPLES) this.#samples.shift()
  }

  /** @returns whether that changes the state */
  set(state: 'up' | 'down', now: number): boolean {
    if (state === this.state) return false
    this.state = state
    this.since = now
    if (state === 'down') {
      this.#hasBeenDown = true
      // the path may be another one when it comes back
      this.#samples.length = 0
    }
    return true
  }

  /** Whether it answers, and has done so for long enough to be relied on. */
  isWell(now: number): boolean {
    return this.state === 'up' && (!this.#hasBeenDown || now - this.since >= WELL_MS)
  }
}
