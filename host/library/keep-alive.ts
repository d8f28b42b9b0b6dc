/** A clock whose timers keep the event loop alive, or do not: `ref` and `unref` of clients and servers. */

import type { Clock, Timer } from '../runtime.ts'

/** Timers of runtimes whose event loop ends by itself. */
interface Referenced {
  ref?(): unknown
  unref?(): unknown
}

const set = (timer: Timer, isKept: boolean): void => {
  const referenced = timer as Referenced
  if (isKept) referenced.ref?.()
  else referenced.unref?.()
}

export class KeptClock implements Clock {
  readonly #clock: Clock
  readonly #pending = new Set<Timer>()
  #isKept = true

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Applies to pending timers too. */
  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    for (const timer of this.#pending) set(timer, isKept)
  }

  monotonic(): number {
    return this.#clock.monotonic()
  }

  wall(): number {
    return this.#clock.wall()
  }

  setTimer(callback: () => void, ms: number): Timer {
    const timer = this.#clock.setTimer(() => {
      this.#pending.delete(timer)
      callback()
    }, ms)
    this.#pending.add(timer)
    if (!this.#isKept) set(timer, false)
    return timer
  }

  clearTimer(timer: Timer | undefined): void {
    if (timer !== undefined) this.#pending.delete(timer)
    this.#clock.clearTimer(timer)
  }

  /** What is deferred is done in the same turn of the event loop. */
  defer(callback: () => void): Timer {
    return this.#clock.defer(callback)
  }

  clearDeferred(timer: Timer | undefined): void {
    this.#clock.clearDeferred(timer)
  }
}
