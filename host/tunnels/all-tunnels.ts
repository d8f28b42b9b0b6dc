/** The figures of all tunnels of a process together. */

import { NO_HOST_COUNTERS } from '../driver/diagnostics.ts'
import { type HistoryRow, sumHistories } from '../monitoring/history.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import { type Health, type SessionStats, type Snapshot, sumCounters } from '../monitoring/stats.ts'
import type { Runtime } from '../runtime.ts'
import type { ContextStats, ContextSteps } from '../transport/obfs/context-stats.ts'
import { sumHost } from '../workers/messages.ts'
import type { Tunnel } from './tunnel.ts'

export class AllTunnels implements Monitor {
  readonly started: number
  readonly #runtime: Runtime
  readonly #tunnels: () => readonly Tunnel[]

  /** @param tunnels those at present */
  constructor(runtime: Runtime, tunnels: () => readonly Tunnel[]) {
    this.#runtime = runtime
    this.#tunnels = tunnels
    this.started = runtime.clock.monotonic()
  }

  /** Fetches the figures of workers. */
  async prepare(target: string): Promise<void> {
    await Promise.all(this.#tunnels().map(({ monitor }) => monitor.prepare?.(target)))
  }

  snapshot(): Snapshot {
    const { clock } = this.#runtime
    const parts = this.#tunnels().map(({ monitor }) => monitor.snapshot())
    const own = { cpu: this.#runtime.cpuTime(), rss: this.#runtime.residentBytes?.() }
    // a tunnel with workers counts those and this process
    const cpu = parts.reduce((sum, part) => sum + Math.max(0, (part.cpu ?? 0) - own.cpu), own.cpu)
    const rss = own.rss && parts.reduce((sum, part) => sum + Math.max(0, (part.rss ?? 0) - (own.rss ?? 0)), own.rss)
    const at = clock.monotonic()
    const counters = sumCounters(parts.map((part) => part.counters))
    return { at, uptime: at - this.started, cpu, rss, date: new Date(clock.wall()), counters }
  }

  *sessions(): Generator<readonly SessionStats[], void, undefined> {
    for (const { name, monitor } of this.#tunnels()) {
      for (const step of monitor.sessions()) yield step.map((session) => ({ ...session, tunnel: name }))
    }
  }

  contexts(): ContextSteps | undefined {
    const parts = this.#tunnels().flatMap(({ name, monitor }) => {
      const steps = monitor.contexts?.()
      return steps === undefined ? [] : [{ name, steps }]
    })
    return parts.length === 0 ? undefined : named(parts)
  }

  health(): Health {
    const tunnels = this.#tunnels().map((tunnel) => [tunnel.name, tunnel.health()] as const)
    return { client: false, pending: false, lastReceived: undefined, silence: 0, tunnels }
  }

  hostCounters(): typeof NO_HOST_COUNTERS {
    return sumHost(
      this.#tunnels().map(({ monitor }) => monitor.hostCounters()),
      NO_HOST_COUNTERS,
    )
  }

  path(): LinkStatus {
    return { local: undefined, peer: undefined, rendezvous: undefined, peerFound: false, pongRtt: undefined }
  }

  history(): HistoryRow[] {
    return sumHistories(this.#tunnels().map(({ monitor }) => monitor.history()))
  }

  ping(): void {
    for (const { monitor } of this.#tunnels()) monitor.ping()
  }
}

/** The contexts of several tunnels, each with its name. */
function* named(
  parts: readonly { readonly name: string; readonly steps: ContextSteps }[],
): Generator<readonly ContextStats[], void, undefined> {
  for (const { name, steps } of parts) for (const step of steps) yield step.map((each) => ({ ...each, tunnel: name }))
}
