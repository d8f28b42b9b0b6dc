/**
 * Statistics for the monitoring server: snapshots of the engine counters, sessions in steps, and the texts of /stats,
 * /healthy and /ready (protocol.md 11.1, 11.2).
 *
 * `readCounters` and `readSessions` read the engine; all other functions are pure. /metrics is in
 * metrics.ts, /stats.json in stats-json.ts, the routes in app.ts.
 */

import {
  COUNTERS,
  type Core,
  type CounterName,
  GAUGES,
  Info,
  NEVER_RECEIVED,
  SessionState,
  TICKS_PER_MS,
} from '../engine/core.ts'
import { formatBytes, formatConv, formatDuration, formatServerTime } from '../format.ts'
import { ADDRESS_KEY_OFFSET, formatAddress, readRecord, type SocketAddress } from '../net/address.ts'
import { type ContextSteps, renderContexts } from '../transport/obfs/context-stats.ts'
import type { KeyStatus } from './source.ts'

/** State characters by state number (protocol.md 6.4). */
const STATE_CHARS = ['?', '>', '-', '.', 'x'] as const
/** Tick value for "no such time". */
const NO_TICKS = 0xffffffff
/** Base loss value of 100 % (docs/abi.md, Info block). */
const BASE_LOSS_ONE = 10_000
/** Slots of the session table read in one step; the event loop runs between steps. */
const SLOTS_PER_STEP = 256

/** Which sessions are listed: those with a state up to this number (protocol.md 11.2). */
export const SessionFilter = { none: 0, connected: 2, active: 3, all: 4 } as const

/** One session at one moment. */
export interface SessionStats {
  /** The tunnel that it belongs to, if there are several. */
  readonly tunnel?: string
  readonly conv: number
  /** 1..4, see SessionState */
  readonly state: number
  readonly peer: SocketAddress
  /** Whose key it was opened with, if there are several. */
  readonly user?: string | undefined
  /** The other end of its TCP connection: the application, or at a server the target; undefined if there is none. */
  readonly tcp?: string | undefined
  /** Seconds since it was opened. */
  readonly age: number
  /** Seconds since the last activity. */
  readonly idle: number
  /** Smoothed round trip time in fractional ms, -1 in TIME_WAIT. */
  readonly rtt: number
  /** Variation of the round trip time in fractional ms, -1 in TIME_WAIT. */
  readonly rttvar: number
  /** fractional ms, -1 in TIME_WAIT */
  readonly rto: number
  /** segments */
  readonly waitsnd: number
  /** segments */
  readonly sndwnd: number
  /** Window of the peer, segments. */
  readonly rmtWnd: number
  /** segments */
  readonly cwnd: number
  /** Retransmitted segments. */
  readonly retransmissions: number
  /** Pacing rate in segments per second, 0 = not paced. */
  readonly pace: number
  /** Loss rate of the path that is independent of load, 0..1, as estimated by congestion control. */
  readonly baseLoss: number
  /** Bytes read from TCP. */
  readonly tcpRead: number
  /** Bytes written to TCP. */
  readonly tcpWritten: number
}

/** All counters of docs/abi.md by name. `last_received_age` before the first datagram is Infinity. */
export type Counters = Readonly<Record<CounterName, number>>

/** The counters at one moment. */
export interface Snapshot {
  /** Monotonic ms. */
  readonly at: number
  /** ms */
  readonly uptime: number
  /** CPU time of the process in ms; undefined if unknown (at startup). */
  readonly cpu: number | undefined
  /** Resident memory of the process in bytes; undefined if unknown. */
  readonly rss?: number | undefined
  readonly date: Date
  readonly counters: Counters
  /** With `workers`: number of running workers and of restarts. */
  readonly workers?: { readonly serving: number; readonly restarts: number }
}

/** The sessions of an engine in steps, so that a long list does not block the event loop. */
export type SessionSteps = Iterable<readonly SessionStats[]>

/** All counters at 0. */
export const NO_COUNTERS: Counters = countersOf(() => 0)

function countersOf(value: (name: CounterName) => number): Counters {
  return Object.fromEntries(COUNTERS.map((name) => [name, value(name)])) as Record<CounterName, number>
}

const MAXIMA: ReadonlySet<string> = new Set<CounterName>(['peer_silent_pings', 'path_bytes'])

/** Sums counters, except for the minimum of `last_received_age` and the maximum of MAXIMA. */
export function sumCounters(parts: readonly Counters[]): Counters {
  const sums: Record<CounterName, number> = { ...NO_COUNTERS, last_received_age: Number.POSITIVE_INFINITY }
  for (const counters of parts) {
    for (const name of Object.keys(sums) as CounterName[]) {
      const value: number | null = counters[name]
      if (name === 'last_received_age') sums[name] = Math.min(sums[name], value ?? Number.POSITIVE_INFINITY)
      else if (MAXIMA.has(name)) sums[name] = Math.max(sums[name], value)
      else sums[name] += value
    }
  }
  return sums
}

/** The totals of a worker or engine that ended, to keep sums monotonic. */
export function totalsOf(counters: Counters): Counters {
  const entries = Object.entries(counters).map(([name, value]) => {
    if (name === 'last_received_age') return [name, Number.POSITIVE_INFINITY]
    return [name, GAUGES.has(name) ? 0 : value]
  })
  return Object.fromEntries(entries) as Record<CounterName, number>
}

/** Reads all counters. @param now ticks, to refresh gauges that are ages (docs/abi.md, Counters) */
export function readCounters(core: Core, now: number): Counters {
  core.calls.refresh_gauges(now)
  return lastCounters(core)
}

/** Reads the counters from memory without calling the engine, which may have trapped. */
export function lastCounters(core: Core): Counters {
  return countersOf((name) => {
    const value = core.counter(name)
    return name === 'last_received_age' && value === NEVER_RECEIVED ? Number.POSITIVE_INFINITY : Number(value)
  })
}

/**
 * Reads all sessions, `SLOTS_PER_STEP` slots of the table per step.
 * @param now returns ticks
 * @param tcpOf returns the other end of the TCP connection of a stream
 * @param userOf returns the name of the key with a number, if there are several
 */
export function* readSessions(
  core: Core,
  now: () => number,
  tcpOf: (handle: number) => string | undefined = () => undefined,
  userOf: (key: number) => string | undefined = () => undefined,
): Generator<readonly SessionStats[], void, undefined> {
  // the table may grow between steps
  for (let slot = 0; slot < core.calls.session_slots(); ) {
    const found: SessionStats[] = []
    const end = Math.min(slot + SLOTS_PER_STEP, core.calls.session_slots())
    for (; slot < end; slot++) {
      const session = readSession(core, slot, now(), tcpOf, userOf)
      if (session !== undefined) found.push(session)
    }
    yield found
  }
}

function readSession(
  core: Core,
  slot: number,
  now: number,
  tcpOf: (handle: number) => string | undefined,
  userOf: (key: number) => string | undefined,
): SessionStats | undefined {
  const handle = core.calls.session_info(slot, now)
  if (handle <= 0) return undefined
  const info = core.info()
  const peer = readRecord(core.u8, info.byteOffset + Info.address)
  if (peer === undefined) return undefined
  const u32 = (offset: number): number => info.getUint32(offset, true)
  const state = u32(Info.state)
  const waiting = state === SessionState.TIME_WAIT
  const ms = (offset: number): number => {
    const ticks = u32(offset)
    return waiting || ticks === NO_TICKS ? -1 : ticks / TICKS_PER_MS
  }
  return {
    conv: u32(Info.conv),
    state,
    peer,
    user: userOf(info.getUint8(Info.address + ADDRESS_KEY_OFFSET)),
    tcp: waiting ? undefined : tcpOf(handle),
    age: u32(Info.age),
    idle: u32(Info.idle),
    rtt: ms(Info.srtt),
    rttvar: ms(Info.rttvar),
    rto: ms(Info.rto),
    waitsnd: waiting ? 0 : u32(Info.waitsnd),
    sndwnd: u32(Info.sndwnd),
    rmtWnd: u32(Info.rmtWnd),
    cwnd: u32(Info.cwnd),
    retransmissions: u32(Info.retransmissions),
    pace: u32(Info.pace),
    baseLoss: (u32(Info.congestion) & 0xffff) / BASE_LOSS_ONE,
    tcpRead: Number(info.getBigUint64(Info.tcpRead, true)),
    tcpWritten: Number(info.getBigUint64(Info.tcpWritten, true)),
  }
}

function sessionLine(session: SessionStats): string {
  const { rtt, rto, waitsnd } = session
  const user = session.user === undefined ? '' : `user=${session.user} `
  return (
    `[${formatConv(session.conv)}] ${STATE_CHARS[session.state] ?? '?'} peer=${formatAddress(session.peer)} ${user}seen=${session.idle}s ` +
    `rtt=${Math.round(rtt)} rto=${Math.round(rto)} waitsnd=${waitsnd} ` +
    `rx/tx=${formatBytes(session.tcpWritten)}/${formatBytes(session.tcpRead)}\n`
  )
}

function summaryLine(counters: Counters): string {
  const { sessions_connect, sessions_established, sessions_linger, sessions_time_wait, waitsnd } = counters
  const total = sessions_connect + sessions_established + sessions_linger + sessions_time_wait
  return (
    `  = ${total} sessions: ${sessions_connect} halfopen, ${sessions_established} connected, ` +
    `${sessions_linger} linger, ${sessions_time_wait} time_wait; waitsnd=${waitsnd}`
  )
}

function percent(part: number, whole: number): string {
  return `${(whole > 0 ? (part / whole) * 100 : 0).toFixed(1)}%`
}

function keyLine(key: KeyStatus): string {
  const { name, sessions, max_sessions, sessions_opened, sessions_refused, last_seen_seconds: seen } = key
  const most = max_sessions === null ? '' : ` of ${max_sessions}`
  const refused = sessions_refused === 0 ? '' : `, ${sessions_refused} refused`
  const end = key.not_after === null ? '' : `; until ${key.not_after}`
  return (
    `[user ${name}] ${sessions}${most} sessions, ${sessions_opened} opened${refused}; ` +
    `tcp: ${formatBytes(key.tcp_read_bytes)}, ${formatBytes(key.tcp_written_bytes)}; ` +
    `pkt: ${key.datagrams_received}, ${key.datagrams_sent}; ` +
    `seen=${seen === null ? 'never' : `${Math.floor(seen)}s`}${end}\n`
  )
}

/** Parameters of a request for statistics. */
export interface StatsQuery {
  readonly banner: boolean
  /** One of SessionFilter. */
  readonly sessions: number
}

/**
 * Generates the body of /stats in parts (protocol.md 11.2).
 * @param banner two lines with name, version and URL of the program; undefined: neither these nor the time
 * @param since for POST: start of the interval of the rates; undefined for GET
 * @param contexts the contexts of the obfuscator, if any
 * @param keys those of a server with several
 */
export function* renderStats(
  snapshot: Snapshot,
  sessions: SessionSteps,
  query: StatsQuery,
  banner: string | undefined,
  since?: Snapshot,
  contexts?: ContextSteps,
  keys: readonly KeyStatus[] = [],
): Generator<string, void, undefined> {
  if (banner !== undefined) yield renderHead(snapshot, query, banner)
  if (query.sessions !== SessionFilter.none) {
    for (const step of sessions) {
      let lines = ''
      for (const session of step) if (session.state <= query.sessions) lines += sessionLine(session)
      yield lines
    }
  }
  yield `${summaryLine(snapshot.counters)}\n\n${totals(snapshot, since)}`
  if (keys.length > 0) yield `\n${keys.map(keyLine).join('')}`
  if (contexts === undefined) return
  const { obfs_dropped: packets, obfs_dropped_bytes: bytes } = snapshot.counters
  const rate = since && {
    seconds: (snapshot.at - since.at) / 1000,
    packets: packets - since.counters.obfs_dropped,
    bytes: bytes - since.counters.obfs_dropped_bytes,
  }
  yield* renderContexts(contexts, rate === undefined ? { bytes } : { bytes, rate })
}

/** The first lines of /stats. */
export const renderHead = ({ date }: Snapshot, query: StatsQuery, banner: string): string =>
  `${query.banner ? `${banner}\n\n` : ''}server time: ${formatServerTime(date)}\n\n`

/** The lines after the sessions. */
function totals({ at, cpu, counters, uptime: up }: Snapshot, since: Snapshot | undefined): string {
  const uptime = `uptime: ${formatDuration(up)}`
  const bytes = (name: CounterName): string => formatBytes(counters[name])
  const totalLine =
    `[total] tcp: ${bytes('tcp_read_bytes')}, ${bytes('tcp_written_bytes')}; ` +
    `kcp: ${bytes('kcp_received_bytes')}, ${bytes('kcp_sent_bytes')}; ` +
    `pkt: ${bytes('pkt_received_bytes')}, ${bytes('pkt_sent_bytes')}\n`
  const { rate_up_held_ms: up_ms, rate_down_held_ms: down_ms } = counters
  const limited =
    up_ms + down_ms > 0 ? `[rate] limited: up for ${formatDuration(up_ms)}, down for ${formatDuration(down_ms)}\n` : ''
  if (since === undefined) return `${totalLine}${limited}  = ${uptime}\n`
  const elapsed = at - since.at
  const delta = (name: CounterName): number => counters[name] - since.counters[name]
  const rate = (name: CounterName): string =>
    elapsed > 0 ? `${formatBytes((delta(name) * 1000) / elapsed)}/s` : '(unknown)'
  const rates =
    elapsed > 0
      ? `[rx,tx] tcp: ${rate('tcp_read_bytes')}, ${rate('tcp_written_bytes')}; ` +
        `kcp: ${rate('kcp_received_bytes')}, ${rate('kcp_sent_bytes')}; ` +
        `efficiency: ${percent(delta('tcp_written_bytes'), delta('kcp_received_bytes'))}, ` +
        `${percent(delta('tcp_read_bytes'), delta('kcp_sent_bytes'))}\n`
      : ''
  const load =
    elapsed > 0 && cpu !== undefined && since.cpu !== undefined
      ? `${(((cpu - since.cpu) / elapsed) * 100).toFixed(3)}%`
      : '(unknown)'
  return (
    `${rates}${totalLine}${limited}  = load: ${load} (last ${formatDuration(elapsed)}); ` +
    `pkt: ${rate('pkt_received_bytes')}, ${rate('pkt_sent_bytes')}; ${uptime}\n`
  )
}

/** State that /healthy and /ready report. */
export interface Health {
  readonly client: boolean
  /** Key whose name has no address yet or whose socket is not open yet. */
  readonly waiting?: string | undefined
  /** A rendezvous client that has no peer yet. */
  readonly pending: boolean
  /** ms since a datagram arrived; undefined = never. */
  readonly lastReceived: number | undefined
  /** T of protocol.md 7.4 in seconds. */
  readonly silence: number
  /** Several tunnels together: that of each, by name. */
  readonly tunnels?: readonly (readonly [name: string, health: Health])[]
}

/** The key of a text `key: reason`: the reason may name hosts, and /healthy requires no token. */
export const waitingKey = (waiting: string | undefined): string | undefined => waiting?.split(':', 1)[0]

/** T of protocol.md 7.4, in seconds. */
export function silenceLimit(keepalive: number): number {
  return Math.min(Math.max(3 * keepalive + 4, 10), 1800)
}

/** The lines of /healthy and /ready: one for each tunnel. */
export function healthLines(health: Health): string {
  const lines = health.tunnels?.map(([name, each]) => `${name}: ${renderHealth(each).text}\n`)
  return lines?.join('') ?? `${renderHealth(health).text}\n`
}

/** Whether the tunnel works, and the text of /healthy (protocol.md 11.1) without line end. */
export function renderHealth(health: Health): { readonly healthy: boolean; readonly text: string } {
  if (health.tunnels !== undefined) {
    const bad = health.tunnels.filter(([, each]) => !renderHealth(each).healthy)
    const text = bad.map(([name, each]) => `${name}: ${renderHealth(each).text}`).join('; ')
    return { healthy: bad.length === 0, text: text || 'healthy' }
  }
  if (health.waiting !== undefined) return { healthy: false, text: `waiting for ${health.waiting}` }
  if (!health.client) return { healthy: true, text: 'healthy' }
  if (health.pending) return { healthy: false, text: 'rendezvous pending' }
  if (health.lastReceived === undefined) return { healthy: false, text: 'peer unreachable' }
  const seconds = Math.round(health.lastReceived / 1000)
  if (health.lastReceived > health.silence * 1000) return { healthy: false, text: `peer not responding (${seconds}s)` }
  return { healthy: true, text: `healthy (peer seen ${seconds}s ago)` }
}
