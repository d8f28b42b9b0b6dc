/**
 * Logs each trap of an endpoint's engines and decides whether to start a new engine.
 */
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import { PROGRAM, VERSION } from '../version.ts'

/** After this many traps within this time, ms, the endpoint ends: the engine or its input will not recover. */
export const TRAPS_MAX = 3
export const TRAPS_WINDOW_MS = 60_000

export class Traps {
  readonly #runtime: Pick<Runtime, 'name' | 'version' | 'clock'>
  readonly #log: Log
  /** Times of the last traps, monotonic ms. */
  readonly #times: number[] = []

  constructor(runtime: Pick<Runtime, 'name' | 'version' | 'clock'>, log: Log) {
    this.#runtime = runtime
    this.#log = log
  }

  /**
   * Records a trap.
   * @param lost what was lost, for the log
   * @returns undefined, or the error to end with after too many traps
   */
  add(error: Error, lost: string): Error | undefined {
    const { name, version } = this.#runtime
    this.#log.error(`the engine trapped: ${error.message}; ${lost} (${PROGRAM} ${VERSION}, ${name} ${version})`)
    for (const line of (error.stack ?? '').split('\n').slice(1)) this.#log.error(line.trim())
    const at = this.#runtime.clock.monotonic()
    this.#times.push(at)
    if (this.#times.length < TRAPS_MAX) return undefined
    const first = this.#times.shift() ?? at
    if (at - first >= TRAPS_WINDOW_MS) return undefined
    const text = `the engine trapped ${TRAPS_MAX} times within ${TRAPS_WINDOW_MS / 1000} s, giving up`
    this.#log.fatal(text)
    return new Error(text, { cause: error })
  }
}
