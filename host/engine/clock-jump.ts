/**
 * Notices that the wall clock moved against the monotonic one: the machine may have been suspended, restored from a
 * snapshot, or cloned, and a clone goes on with the same nonces. A best effort: a clone whose clock is not corrected
 * is not detected. An administrator who sets the clock looks the same, which costs a little entropy.
 */

import type { Clock } from '../runtime.ts'

/** Least time between two looks, ms. */
const LOOK_MS = 1000
/** A difference that is no jitter of two readings, ms. */
const JUMP_MS = 500

export class ClockJump {
  readonly #clock: Pick<Clock, 'monotonic' | 'wall'>
  #lookedAt: number
  /** Wall clock less monotonic clock at the last look, ms. */
  #offset: number

  constructor(clock: Pick<Clock, 'monotonic' | 'wall'>) {
    this.#clock = clock
    this.#lookedAt = clock.monotonic()
    this.#offset = clock.wall() - this.#lookedAt
  }

  /**
   * To be called at wake-ups; looks at most once a second.
   * @returns ms that the wall clock jumped since the last look, 0 for none
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
