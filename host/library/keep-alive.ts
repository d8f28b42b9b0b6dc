/** A clock and listeners that keep the event loop alive, or do not: `ref` and `unref` of clients and servers. */

import type { Clock, Runtime, Timer } from '../runtime.ts'

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

/** A listener of a runtime. */
interface Kept {
  close(): void
  keepAlive?(isKept: boolean): void
}

export class KeptClock implements Clock {
  readonly #clock: Clock
  readonly #pending = new Set<Timer>()
  readonly #listeners = new Set<Kept>()
  #isKept = true

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Applies to pending timers and open listeners too. */
  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    for (const timer of this.#pending) set(timer, isKept)
    for (const listener of this.#listeners) listener.keepAlive?.(isKept)
  }

  /** Adds a listener until it is closed. @returns the listener to use */
  keep<Listener extends Kept>(listener: Listener): Listener {
    this.#listeners.add(listener)
    if (!this.#isKept) listener.keepAlive?.(false)
    const close = (): void => {
      this.#listeners.delete(listener)
      listener.close()
    }
    return { ...listener, close }
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

/** A runtime with a clock of its own, which also keeps the listeners that are opened by it. */
export function keptRuntime(base: Runtime): Runtime & { readonly clock: KeptClock } {
  const clock = new KeptClock(base.clock)
  return {
    ...base,
    clock,
    listenTcp: async (...words) => clock.keep(await base.listenTcp(...words)),
    serveHttp: async (...words) => clock.keep(await base.serveHttp(...words)),
  }
}
