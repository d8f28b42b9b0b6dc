/**
 * Schedules the redials of a client (protocol.md 9.5): at once after a success, then with growing backoff.
 */

import type { Clock, Timer } from '../../runtime.ts'

/** Delay of the next dial after the n-th failed redial, ms; LONGEST_MS applies after the last entry. */
const PAUSES_MS = [200, 2000, 2000, 5000, 5000, 15_000, 15_000, 15_000, 60_000, 60_000, 120_000, 300_000] as const
const LONGEST_MS = 300_000

export class Redial {
  readonly #dial: () => void
  readonly #clock: Pick<Clock, 'setTimer' | 'clearTimer'>
  #timer: Timer | undefined
  /** Redials since the last success. */
  #count = 0

  constructor(dial: () => void, clock: Pick<Clock, 'setTimer' | 'clearTimer'>) {
    this.#dial = dial
    this.#clock = clock
  }

  /** Redials since the last success. */
  get count(): number {
    return this.#count
  }

  /** A dial succeeded: resets the backoff. */
  succeeded(): void {
    this.#count = 0
  }

  /**
   * A dial failed or its tunnel ended: schedules the next dial.
   * @returns ms until then
   */
  failed(): number {
    const pause = this.#count === 0 ? 0 : (PAUSES_MS[this.#count - 1] ?? LONGEST_MS)
    this.#count++
    this.cancel()
    this.#timer = this.#clock.setTimer(() => {
      this.#timer = undefined
      this.#dial()
    }, pause)
    return pause
  }

  /** Dials at once and resets the backoff. */
  now(): void {
    this.cancel()
    this.#count = 0
    this.#dial()
  }

  cancel(): void {
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }
}
