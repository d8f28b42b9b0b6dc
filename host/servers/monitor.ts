/** Statistics of several servers as those of one client: sums, the path of the server in use, and the state of each. */

import { type HostCounters, NO_HOST_COUNTERS } from '../driver/diagnostics.ts'
import type { EndpointMonitor } from '../endpoint/monitor.ts'
import { type HistoryRow, sumHistories } from '../monitoring/history.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import type { ServerStatus } from '../monitoring/source.ts'
import {
  type Counters,
  type Health,
  NO_COUNTERS,
  type SessionStats,
  type Snapshot,
  sumCounters,
  totalsOf,
  waitingKey,
} from '../monitoring/stats.ts'
import type { Runtime } from '../runtime.ts'
import type { ContextSteps } from '../transport/obfs/context-stats.ts'
import type { Member } from './member.ts'

/** The objects that the statistics are read from. */
export interface ShownServers {
  /** All of them, at least one. */
  readonly members: readonly Member[]
  /** Whose path is shown. */
  readonly current: Member
  readonly waiting: string | undefined
  /** Counters of the port. */
  readonly ownCounters: HostCounters
  isUsed(member: Member): boolean
}

/** Adds host counters by name. */
function sumHost(parts: readonly HostCounters[]): HostCounters {
  const sums = { ...NO_HOST_COUNTERS }
  for (const part of parts) for (const name of Object.keys(sums) as (keyof HostCounters)[]) sums[name] += part[name]
  return sums
}

export class ServersMonitor implements Monitor {
  readonly started: number
  readonly #runtime: Runtime
  readonly #shown: ShownServers
  /** Totals of the members that have ended. */
  #past: Counters = totalsOf(NO_COUNTERS)
  #pastHost: HostCounters = NO_HOST_COUNTERS
  #records = false

  constructor(runtime: Runtime, shown: ShownServers) {
    this.#runtime = runtime
    this.#shown = shown
    this.started = runtime.clock.monotonic()
  }

  get #parts(): readonly EndpointMonitor[] {
    return this.#shown.members.map(({ endpoint }) => endpoint.monitor)
  }

  /** Records a history from now on, also of servers that are added. */
  async record(): Promise<void> {
    this.#records = true
    for (const part of this.#parts) await part.record()
  }

  /** A server was added. */
  async added(member: Member): Promise<void> {
    if (this.#records) await member.endpoint.monitor.record()
  }

  /** A server is about to be closed. */
  ending({ endpoint }: Member): void {
    this.#past = sumCounters([this.#past, totalsOf(endpoint.monitor.snapshot().counters)])
    this.#pastHost = sumHost([this.#pastHost, endpoint.monitor.hostCounters()])
  }

  snapshot(): Snapshot {
    const at = this.#runtime.clock.monotonic()
    const all = this.#parts.map((part) => part.snapshot().counters)
    const counters = {
      ...sumCounters([this.#past, ...all]),
      // the tunnel works while one of them answers
      peer_silent_pings: Math.min(...all.map(({ peer_silent_pings }) => peer_silent_pings)),
    }
    const [first] = this.#parts
    return {
      at,
      uptime: at - this.started,
      cpu: this.#runtime.cpuTime(),
      rss: this.#runtime.residentBytes?.(),
      date: first?.snapshot().date ?? new Date(this.#runtime.clock.wall()),
      counters,
    }
  }

  *sessions(): Generator<readonly SessionStats[], void> {
    for (const part of this.#parts) yield* part.sessions()
  }

  contexts(): ContextSteps | undefined {
    const all = this.#parts.map((part) => part.contexts())
    if (all.every((contexts) => contexts === undefined)) return undefined
    return (function* () {
      for (const contexts of all) if (contexts !== undefined) yield* contexts
    })()
  }

  history(): HistoryRow[] {
    return sumHistories(this.#parts.map((part) => part.history()))
  }

  health(): Health {
    const { current, waiting } = this.#shown
    const ages = this.#parts.map((part) => part.health().lastReceived).filter((age) => age !== undefined)
    return {
      ...current.endpoint.monitor.health(),
      waiting: waitingKey(waiting),
      lastReceived: ages.length === 0 ? undefined : Math.min(...ages),
    }
  }

  hostCounters(): HostCounters {
    return sumHost([this.#pastHost, this.#shown.ownCounters, ...this.#parts.map((part) => part.hostCounters())])
  }

  path(): LinkStatus {
    return this.#shown.current.endpoint.monitor.path()
  }

  servers(): readonly ServerStatus[] {
    return this.#shown.members.map((member) => member.status(this.#shown.isUsed(member)))
  }

  ping(): void {
    for (const part of this.#parts) part.ping()
  }
}
