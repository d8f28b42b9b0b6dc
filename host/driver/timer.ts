/** The single timer of a driver. */

import { TICKS_PER_MS } from '../engine/core.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Longest delay, ms: setTimeout uses a signed 32-bit number. */
const TIMER_MAX_MS = 0x7fffffff
/** Shortest delay, ms. Limits how often past deadlines are served. */
export const TIMER_MIN_MS = 1

export class HostTimer {
  readonly #clock: Clock
  readonly #onFire: () => void
  #timer: Timer | undefined
  /** Deadline of `#timer`, monotonic ms. */
  #at = 0

  constructor(clock: Clock, onFire: () => void) {
    this.#clock = clock
    this.#onFire = onFire
  }

  /** Fires after at most `delay` ms. An earlier deadline is kept: an early wake-up is cheaper than re-arming. */
  arm(delay: number): void {
    const wanted = Math.min(Math.max(delay, TIMER_MIN_MS), TIMER_MAX_MS)
    const at = this.#clock.monotonic() + wanted
    if (this.#timer !== undefined) {
      if (this.#at <= at) return
      this.#clock.clearTimer(this.#timer)
    }
    this.#at = at
    this.#timer = this.#clock.setTimer(this.#fire, wanted)
  }

  /**
   * Fires at the engine's next deadline, or earlier to collect what is held.
   * @param ticks until the deadline; negative: there is none
   * @param held ms; Infinity: nothing is held
   */
  armNext(ticks: number, held: number): void {
    const delay = ticks < 0 ? held : Math.min(Math.ceil(ticks / TICKS_PER_MS), held)
    if (delay === Number.POSITIVE_INFINITY) this.disarm()
    else this.arm(delay)
  }

  disarm(): void {
    if (this.#timer === undefined) return
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  readonly #fire = (): void => {
    this.#timer = undefined
    this.#onFire()
  }
}
