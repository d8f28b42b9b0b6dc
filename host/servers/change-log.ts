/** What the log says of several servers: that one is up or down, and which one new connections go to. */

import type { Config } from '../config/config.ts'
import { configWarnings } from '../config/rules.ts'
import { roundDuration } from '../format.ts'
import type { Log } from '../log/log.ts'
import type { Clock, Runtime } from '../runtime.ts'
import { ipv6Warnings } from '../transport/resolver.ts'
import { WELL_MS } from './health.ts'
import type { Member } from './member.ts'

export class ChangeLog {
  readonly #log: Log
  readonly #clock: Clock
  #used = ''

  constructor(log: Log, clock: Clock) {
    this.#log = log
    this.#clock = clock
  }

  /** The server that is used without a reason. */
  begin(used: string): void {
    this.#used = used
  }

  /**
   * A server is up or down.
   * @param ms how long the previous state lasted; undefined if it was not known
   * @param isAnyUp whether any server answers
   */
  state({ name, health }: Pick<Member, 'name' | 'health'>, ms: number | undefined, isAnyUp: boolean): void {
    const after = ms === undefined ? '' : `, after ${roundDuration(ms)}`
    if (health.state === 'down') {
      const others = isAnyUp ? '' : '; no other server answers'
      this.#log.warning(`server ${name} is down${after === '' ? '' : `${after} up`}${others}`)
      return
    }
    const rtt = health.rtt === undefined ? '' : `: it answers in ${roundDuration(health.rtt)}`
    const isWell = health.isWell(this.#clock.monotonic())
    const pause = isWell ? '' : `; unless no other does, it gets new connections after ${WELL_MS / 1000} s of this`
    this.#log.notice(`server ${name} is up${after === '' ? '' : `${after} down`}${rtt}${pause}`)
  }

  /** New connections go to this server. */
  used(name: string, strategy: string): void {
    if (name === this.#used) return
    this.#used = name
    this.#log.notice(`new connections go to server ${name} (${strategy})`)
  }

  /** A configuration was reloaded: warnings that are new, and keys whose changes were ignored. */
  async reloaded(
    runtime: Runtime,
    { before, config, kept }: { readonly before: Config; readonly config: Config; readonly kept: readonly string[] },
  ): Promise<void> {
    for (const key of kept) this.#log.warning(`config key ${key}: the change needs a restart and is ignored`)
    const known = await startWarnings(runtime, before)
    for (const text of await startWarnings(runtime, config)) if (!known.includes(text)) this.#log.warning(text)
  }
}

/** The warnings of a start. */
export const startWarnings = async (runtime: Runtime, config: Config): Promise<readonly string[]> => [
  ...configWarnings(config),
  ...(await ipv6Warnings(runtime, config)),
]
