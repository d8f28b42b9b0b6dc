/**
 * Detects jumps of the wall clock relative to the monotonic clock: the machine may have been suspended, restored from a
 * snapshot, or cloned, and a clone continues with the same nonces. Best effort: a clone whose clock is not corrected is
 * not detected. Setting the clock by hand is also detected, which costs a little entropy.
 */

import type { Clock } from '../runtime.ts'

/** Minimum interval between two checks, ms. */
const LOOK_MS = 1000
/** Difference above the jitter of two clock readings, ms. */
const JUMP_MS = 500

export class ClockJump {
  readonly #clock: Pick<Clock, 'monotonic' | 'wall'>
  #lookedAt: number
  /** Wall clock minus monotonic clock at the last check, ms. */
  #offset: number

  constructor(clock: Pick<Clock, 'monotonic' | 'wall'>) {
    this.#clock = clock
    this.#lookedAt = clock.monotonic()
    this.#offset = clock.wall() - this.#lookedAt
  }

  /** The system reports a step of the wall clock: the next look() checks, however soon it is. */
  expect(): void {
    this.#lookedAt = Number.NEGATIVE_INFINITY
  }

  /**
   * Call at wake-ups; checks at most once a second.
   * @returns ms that the wall clock jumped since the last check, 0 for none
   */
  look(): number {
    const at = this.#clock.monotonic()
    if (at - this.#lookedAt < LOOK_MS) return 0
    this.#lookedAt = at
    const offset = this.#clock.wall() - at
    const moved = offset - this.#offset
    this.#offset = offset
    return Math.abs(moved) < JUMP_MS ? 0 : moved
  }
}
