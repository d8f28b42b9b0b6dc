/**
 * Repeats name resolution: on request, one lookup at a time, and with exponential backoff after a failure. A series of
 * failures is logged once, since a tunnel may be idle for days without a network.
 */

import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Delay of the next lookup while there is no socket, ms. */
const REOPEN_MS = 2000
/** Delay of the next lookup after a failure, ms; doubles up to RETRY_LONGEST_MS. */
const RETRY_MS = 5000
const RETRY_LONGEST_MS = 60_000

export interface ResolveHost {
  /** Whether there is no socket. */
  isUnbound(): boolean
  /** Whether another lookup is needed although the last one succeeded. */
  isUnsettled(): boolean
  /** Resolves all names once and applies the result. @throws Error if the lookup failed */
  resolve(): Promise<void>
}

export class ResolveLoop {
  readonly #host: ResolveHost
  readonly #log: Log
  readonly #clock: Clock
  /** The lookup in progress, and whether another one must follow it. */
  #looking: Promise<void> | undefined
  #again = false
  #failing = false
  #pause = RETRY_MS
  #timer: Timer | undefined
  #closed = false

  constructor(host: ResolveHost, log: Log, clock: Clock) {
    this.#host = host
    this.#log = log
    this.#clock = clock
  }

  /** Resolves all names again. The promise resolves when that is done; it never rejects. */
  look(): Promise<void> {
    if (this.#closed) return Promise.resolve()
    this.#again = true
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
      if (this.#again) void this.look()
    })
    return this.#looking
  }

  async #look(): Promise<void> {
    let failure: unknown
    while (this.#again && !this.#closed) {
      this.#again = false
      failure = undefined
      await this.#host.resolve().catch((error) => {
        failure = error
      })
    }
    this.ended(failure)
  }

  /** A lookup of this loop or of its owner ended: logs a change of state and schedules the next lookup if needed. */
  ended(failure: unknown): void {
    if (this.#closed) return
    if (failure !== undefined && !this.#failing) {
      this.#log.warning(`address update failed, retrying: ${messageOf(failure)}`)
    }
    if (failure === undefined && this.#failing) this.#log.notice('addresses resolved again')
    this.#failing = failure !== undefined
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    let pause = this.#pause
    if (this.#host.isUnbound()) pause = REOPEN_MS
    else if (this.#failing || this.#host.isUnsettled()) this.#pause = Math.min(2 * pause, RETRY_LONGEST_MS)
    else {
      this.#pause = RETRY_MS
      return
    }
    this.#timer = this.#clock.setTimer(() => void this.look(), pause)
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimer(this.#timer)
  }
}
