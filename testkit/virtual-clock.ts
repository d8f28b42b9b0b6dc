/** A Clock whose time advances only when a test advances it. */
import type { Clock, Timer } from '../host/runtime.ts'

interface Entry {
  readonly at: number
  /** Order of entry, for timers due at the same time. */
  readonly order: number
  readonly callback: () => void
}

export class VirtualClock implements Clock {
  #now = 0
  #order = 0
  readonly #timers = new Set<Entry>()
  readonly #deferred = new Set<Entry>()

  monotonic(): number {
    return this.#now
  }

  /** Time for which the machine was suspended so far, ms: only the wall clock counted it. */
  suspended = 0

  wall(): number {
    return 1_700_000_000_000 + this.#now + this.suspended
  }

  setTimer(callback: () => void, ms: number): Timer {
    const entry = { at: this.#now + Math.max(0, ms), order: this.#order++, callback }
    this.#timers.add(entry)
    return entry
  }

  clearTimer(timer: Timer | undefined): void {
    this.#timers.delete(timer as Entry)
  }

  defer(callback: () => void): Timer {
    const entry = { at: this.#now, order: this.#order++, callback }
    this.#deferred.add(entry)
    return entry
  }

  clearDeferred(timer: Timer | undefined): void {
    this.#deferred.delete(timer as Entry)
  }

  /** Number of armed timers. */
  get armed(): number {
    return this.#timers.size
  }

  /** Lets promises settle and runs deferred callbacks. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) {
      await Promise.resolve()
      for (const entry of [...this.#deferred]) {
        this.#deferred.delete(entry)
        entry.callback()
      }
    }
  }

  /** Advances the time by `ms` and runs each timer at its due time. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await this.settle()
    for (;;) {
      let next: Entry | undefined
      for (const entry of this.#timers) {
        if (entry.at > end) continue
        if (next === undefined || entry.at < next.at || (entry.at === next.at && entry.order < next.order)) next = entry
      }
      if (next === undefined) break
      this.#timers.delete(next)
      this.#now = next.at
      next.callback()
      await this.settle()
    }
    this.#now = end
  }
}
