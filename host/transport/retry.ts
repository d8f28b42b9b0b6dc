/**
 * Opens a local socket now or, while its address does not exist yet, later (protocol.md 10.5). Errors that cannot heal
 * end the program at its start.
 */

import { isTemporary, messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'

/** Delay of the second attempt, ms; doubles up to LONGEST_MS. */
const FIRST_MS = 1000
const LONGEST_MS = 30_000

export class Retry {
  /** Why it is not open; undefined once it is. */
  failure: string | undefined
  readonly #open: () => Promise<void>
  readonly #onChange: () => void
  readonly #clock: Clock
  readonly #log: Log
  #pause = FIRST_MS
  #timer: Timer | undefined
  #closed = false

  /** @param onChange called after a retry that changed `failure` */
  constructor(clock: Clock, log: Log, open: () => Promise<void>, onChange: () => void) {
    this.#clock = clock
    this.#log = log
    this.#open = open
    this.#onChange = onChange
  }

  /**
   * The first attempt. One that fails is repeated with growing delays.
   * @param isFatal whether an error is thrown instead; default: those that cannot heal
   */
  async start(isFatal = (error: unknown): boolean => !isTemporary(error)): Promise<void> {
    const { failure } = this
    try {
      await this.#open()
      this.failure = undefined
      this.#pause = FIRST_MS
    } catch (error) {
      if (this.#closed) return
      if (isFatal(error)) throw error
      this.failure = messageOf(error)
      if (failure === undefined) this.#log.warning(`${this.failure}; retrying`)
      this.#clock.clearTimer(this.#timer)
      this.#timer = this.#clock.setTimer(this.#again, this.#pause)
      this.#pause = Math.min(2 * this.#pause, LONGEST_MS)
    }
    if (!this.#closed && failure !== this.failure) this.#onChange()
  }

  readonly #again = (): void => void this.start(() => false)

  close(): void {
    this.#closed = true
    this.#clock.clearTimer(this.#timer)
  }
}
