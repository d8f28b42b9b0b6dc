/** Renders /stats.json; the schema is documented in docs/api.md. */

import { GAUGES } from '../engine/core.ts'
import { formatConv, SESSION_STATES } from '../format.ts'
import { formatAddress } from '../net/address.ts'
import { contextJson } from '../transport/obfs/context-stats.ts'
import type { HttpSource, TunnelSource } from './source.ts'
import { renderHealth, SessionFilter, type SessionStats, type Snapshot, type StatsQuery } from './stats.ts'

/** Version of the schema, incremented when a name is removed or changes its meaning, not when one is added. */
const STATS_JSON_VERSION = 1

/** One session. */
export function sessionJson(session: SessionStats): object {
  const ms = (value: number): number | null => (value < 0 ? null : value)
  return {
    tunnel: session.tunnel,
    conv: formatConv(session.conv),
    state: SESSION_STATES[session.state] ?? SESSION_STATES[0],
    peer: formatAddress(session.peer),
    // absent with a single key
    user: session.user,
    tcp_peer: session.tcp ?? null,
    age_seconds: session.age,
    idle_seconds: session.idle,
    rtt_ms: ms(session.rtt),
    rttvar_ms: ms(session.rttvar),
    rto_ms: ms(session.rto),
    waitsnd_segments: session.waitsnd,
    sndwnd_segments: session.sndwnd,
    rmtwnd_segments: session.rmtWnd,
    cwnd_segments: session.cwnd,
    retransmitted_segments: session.retransmissions,
    pace_segments_per_second: session.pace,
    base_loss: session.baseLoss,
    tcp_read_bytes: session.tcpRead,
    tcp_written_bytes: session.tcpWritten,
  }
}

/** The body of /stats.json without its sessions. */
export function summaryOf(
  source: Pick<HttpSource, 'program' | 'health' | 'hostCounters' | 'servers' | 'keys'>,
  { uptime, cpu, rss, date, counters, workers }: Snapshot,
): object {
  const { name, version, runtime, runtimeVersion, mode } = source.program
  const health = source.health()
  const { healthy, text } = renderHealth(health)
  const gauges = Object.entries(counters).filter(([key]) => GAUGES.has(key))
  const totals = Object.entries(counters).filter(([key]) => !GAUGES.has(key))
  return {
    version: STATS_JSON_VERSION,
    program: { name, version, runtime, runtime_version: runtimeVersion, mode },
    time: date.toISOString(),
    uptime_ms: uptime,
    cpu_ms: cpu ?? null,
    rss_bytes: rss ?? null,
    ready: healthy,
    health: text,
    // absent with a single process
    workers,
    // absent with a single server
    servers: source.servers?.(),
    // absent with a single key
    keys: source.keys?.(),
    counters: Object.fromEntries(totals),
    // Infinity (never) becomes null in JSON
    gauges: Object.fromEntries(gauges),
    host: source.hostCounters(),
  }
}

/** What is shown of each of several tunnels at one glance. */
export const overviewOf = (tunnels: readonly TunnelSource[]): object[] =>
  tunnels.map(({ name, program, health, snapshot }) => {
    const { healthy, text } = renderHealth(health())
    const { tcp_read_bytes, tcp_written_bytes, sessions_established } = snapshot().counters
    const figures = { tcp_read_bytes, tcp_written_bytes, sessions_established }
    return { name, mode: program.mode, ready: healthy, health: text, ...figures }
  })

/** Figures of the process, which /stats.json does not repeat for each of several tunnels. */
const OF_PROCESS: ReadonlySet<string> = new Set(['version', 'program', 'time', 'cpu_ms', 'rss_bytes'])

/** What /stats.json has of one of several tunnels. */
function partOf(source: TunnelSource): object {
  const own = Object.entries(summaryOf(source, source.snapshot())).filter(([key]) => !OF_PROCESS.has(key))
  return { name: source.name, mode: source.program.mode, ...Object.fromEntries(own) }
}

/** Generates the body of /stats.json in parts. */
export function* renderJson(source: HttpSource, query: StatsQuery): Generator<string, void, undefined> {
  const head = JSON.stringify({ ...summaryOf(source, source.snapshot()), tunnels: source.tunnels?.().map(partOf) })
  yield `${head.slice(0, -1)},"sessions":[`
  let first = true
  if (query.sessions !== SessionFilter.none) {
    for (const step of source.sessions()) {
      let lines = ''
      for (const session of step) {
        if (session.state > query.sessions) continue
        lines += `${first ? '\n' : ',\n'}${JSON.stringify(sessionJson(session))}`
        first = false
      }
      yield lines
    }
  }
  const contexts = source.contexts?.()
  if (contexts === undefined) {
    yield ']}\n'
    return
  }
  yield '],"contexts":['
  let next = '\n'
  for (const step of contexts) {
    let lines = ''
    for (const context of step) {
      lines += next + JSON.stringify(contextJson(context))
      next = ',\n'
    }
    yield lines
  }
  yield ']}\n'
}
