/**
 * Repeats name resolution: on request, one lookup at a time, and with exponential backoff after a failure. A series of
 * failures is logged once, since a tunnel may be idle for days without a network.
 */

import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Delay of the next lookup while there is no socket, ms; doubles up to REOPEN_LONGEST_MS. */
const REOPEN_MS = 2000
const REOPEN_LONGEST_MS = 16_000
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
  /** A lookup ended: what is missing may have changed. */
  onEnded(): void
}

export class ResolveLoop {
  readonly #host: ResolveHost
  readonly #log: Log
  readonly #clock: Clock
  /** The lookup in progress, and whether another one must follow it. */
  #looking: Promise<void> | undefined
  #again = false
  /** Why the last lookup failed; undefined if it did not. */
  failure: string | undefined
  /** Retries since the last success. */
  #retries = 0
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
    const isFirst = this.failure === undefined
    if (failure !== undefined && isFirst) this.#log.warning(`address update failed, retrying: ${messageOf(failure)}`)
    if (failure === undefined && !isFirst) this.#log.notice('addresses resolved again')
    this.failure = failure === undefined ? undefined : messageOf(failure)
    this.#host.onEnded()
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
    const isUnbound = this.#host.isUnbound()
    if (!isUnbound && failure === undefined && !this.#host.isUnsettled()) {
      this.#retries = 0
      return
    }
    const [first, longest] = isUnbound ? [REOPEN_MS, REOPEN_LONGEST_MS] : [RETRY_MS, RETRY_LONGEST_MS]
    const pause = Math.min(first * 2 ** this.#retries++, longest)
    this.#timer = this.#clock.setTimer(() => void this.look(), pause)
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimer(this.#timer)
  }
}
