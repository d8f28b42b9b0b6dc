/**
 * Looks names up again: when asked to, one look at a time, and by itself with growing pauses while a look fails. A row of
 * failures is logged once: a tunnel may be idle for days without a network.
 */

import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Without a socket the next look comes after this time, ms. */
const REOPEN_MS = 2000
/** After a failure the next look comes after this time, ms; it doubles up to the longest. */
const RETRY_MS = 5000
const RETRY_LONGEST_MS = 60_000

export interface ResolveHost {
  /** There is no socket. */
  isUnbound(): boolean
  /** Another look is needed though the last one did not fail. */
  isUnsettled(): boolean
  /** One look: resolves names and follows them. @throws Error: the look failed */
  resolve(): Promise<void>
}

export class ResolveLoop {
  readonly #host: ResolveHost
  readonly #log: Log
  readonly #clock: Clock
  /** The look under way, and whether another one is wanted after it. */
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

  /** Looks once more. Fulfilled when that is done; never rejects. */
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

  /** A look ended, this loop's or another one: logs what changed, and arms the next look if one is needed. */
  ended(failure: unknown): void {
    if (this.#closed) return
    if (failure !== undefined && !this.#failing) {
      this.#log.warning(`addresses are looked up again later: ${messageOf(failure)}`)
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
