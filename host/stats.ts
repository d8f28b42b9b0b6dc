/**
 * The text of /stats and /healthy (protocol.md 11.1, 11.2), made from plain snapshots.
 *
 * `takeSnapshot` reads the engine; everything else is pure. HTTP is http.ts.
 */
import { formatAddress, readRecord } from './address.ts'
import { type Core, type CounterName, Info, NEVER_RECEIVED, SessionState, TICKS_PER_MS } from './core.ts'
import { formatBytes, formatConv, formatDuration, formatServerTime } from './format.ts'
import type { SocketAddress } from './runtime.ts'

/** State characters by state number (protocol.md 6.4). */
const STATE_CHARS = ['?', '>', '-', '.', 'x'] as const
/** Ticks that stand for "no such time". */
const NO_TICKS = 0xffffffff

/** Which sessions get a line: those with a state up to this number (protocol.md 11.2). */
export const SessionFilter = { none: 0, connected: 2, active: 3, all: 4 } as const

/** What one session line says. */
export interface SessionStats {
  readonly conv: number
  /** 1..4, see SessionState */
  readonly state: number
  readonly peer: SocketAddress
  /** Seconds since the last activity. */
  readonly idle: number
  /** ms, -1 in TIME_WAIT */
  readonly rtt: number
  /** ms, -1 in TIME_WAIT */
  readonly rto: number
  /** segments */
  readonly waitsnd: number
  /** Bytes read from TCP. */
  readonly tcpRead: number
  /** Bytes written to TCP. */
  readonly tcpWritten: number
}

/** Totals in bytes, in the order of the counters 0-5 (docs/abi.md). */
export interface Totals {
  readonly tcpRead: number
  readonly tcpWritten: number
  readonly kcpReceived: number
  readonly kcpSent: number
  readonly pktReceived: number
  readonly pktSent: number
}

/** Everything that /stats shows of one moment. */
export interface Snapshot {
  /** Monotonic ms. */
  readonly at: number
  readonly uptime: number
  /** CPU time of the process so far in ms; undefined when the runtime does not tell. */
  readonly cpu: number | undefined
  readonly date: Date
  readonly totals: Totals
  readonly sessions: readonly SessionStats[]
}

/** Reads all sessions of an engine. `now` in ticks. */
export function readSessions(core: Core, now: number): SessionStats[] {
  const sessions: SessionStats[] = []
  const slots = core.calls.session_slots()
  for (let slot = 0; slot < slots; slot++) {
    if (core.calls.session_info(slot, now) <= 0) continue
    const info = core.info()
    const peer = readRecord(core.u8, info.byteOffset + Info.address)
    if (peer === undefined) continue
    const state = info.getUint32(Info.state, true)
    const waiting = state === SessionState.TIME_WAIT
    const srtt = info.getUint32(Info.srtt, true)
    const rto = info.getUint32(Info.rto, true)
    sessions.push({
      conv: info.getUint32(Info.conv, true),
      state,
      peer,
      idle: info.getUint32(Info.idle, true),
      rtt: waiting || srtt === NO_TICKS ? -1 : Math.round(srtt / TICKS_PER_MS),
      rto: waiting || rto === NO_TICKS ? -1 : Math.round(rto / TICKS_PER_MS),
      waitsnd: waiting ? 0 : info.getUint32(Info.waitsnd, true),
      tcpRead: Number(info.getBigUint64(Info.tcpRead, true)),
      tcpWritten: Number(info.getBigUint64(Info.tcpWritten, true)),
    })
  }
  return sessions
}

/** Reads the totals of an engine. */
export function readTotals(core: Core): Totals {
  const bytes = (name: CounterName): number => Number(core.counter(name))
  return {
    tcpRead: bytes('tcp_read_bytes'),
    tcpWritten: bytes('tcp_written_bytes'),
    kcpReceived: bytes('kcp_received_bytes'),
    kcpSent: bytes('kcp_sent_bytes'),
    pktReceived: bytes('pkt_received_bytes'),
    pktSent: bytes('pkt_sent_bytes'),
  }
}

function sessionLine(session: SessionStats): string {
  const { rtt, rto, waitsnd } = session
  return (
    `[${formatConv(session.conv)}] ${STATE_CHARS[session.state] ?? '?'} peer=${formatAddress(session.peer)} seen=${session.idle}s ` +
    `rtt=${rtt} rto=${rto} waitsnd=${waitsnd} rx/tx=${formatBytes(session.tcpWritten)}/${formatBytes(session.tcpRead)}`
  )
}

function summaryLine(sessions: readonly SessionStats[]): string {
  const count = (state: number): number => sessions.filter((session) => session.state === state).length
  const waitsnd = sessions.reduce((sum, session) => sum + session.waitsnd, 0)
  return (
    `  = ${sessions.length} sessions: ${count(SessionState.CONNECT)} halfopen, ` +
    `${count(SessionState.ESTABLISHED)} connected, ${count(SessionState.LINGER)} linger, ` +
    `${count(SessionState.TIME_WAIT)} time_wait; waitsnd=${waitsnd}`
  )
}

function percent(part: number, whole: number): string {
  return `${(whole > 0 ? (part / whole) * 100 : 0).toFixed(1)}%`
}

/** What a request asks for. */
export interface StatsQuery {
  readonly banner: boolean
  /** One of SessionFilter. */
  readonly sessions: number
}

/**
 * The body of an answer (protocol.md 11.2).
 * @param since for POST: the moment the rates count from; undefined for GET
 * @param banner name and version of the program with its URL, two lines
 */
export function renderStats(snapshot: Snapshot, query: StatsQuery, banner: string, since?: Snapshot): string {
  const { totals, sessions } = snapshot
  const lines: string[] = []
  if (query.banner) lines.push(banner, '')
  lines.push(`server time: ${formatServerTime(snapshot.date)}`, '')
  for (const session of sessions) if (session.state <= query.sessions) lines.push(sessionLine(session))
  lines.push(summaryLine(sessions), '')
  const uptime = `uptime: ${formatDuration(snapshot.uptime)}`
  const totalLine =
    `[total] tcp: ${formatBytes(totals.tcpRead)}, ${formatBytes(totals.tcpWritten)}; ` +
    `kcp: ${formatBytes(totals.kcpReceived)}, ${formatBytes(totals.kcpSent)}; ` +
    `pkt: ${formatBytes(totals.pktReceived)}, ${formatBytes(totals.pktSent)}`
  if (since === undefined) {
    lines.push(totalLine, `  = ${uptime}`)
  } else {
    const elapsed = snapshot.at - since.at
    const past = since.totals
    const rate = (value: number, before: number): string =>
      elapsed > 0 ? `${formatBytes(((value - before) * 1000) / elapsed)}/s` : '(unknown)'
    if (elapsed > 0) {
      lines.push(
        `[rx,tx] tcp: ${rate(totals.tcpRead, past.tcpRead)}, ${rate(totals.tcpWritten, past.tcpWritten)}; ` +
          `kcp: ${rate(totals.kcpReceived, past.kcpReceived)}, ${rate(totals.kcpSent, past.kcpSent)}; ` +
          `efficiency: ${percent(totals.tcpWritten - past.tcpWritten, totals.kcpReceived - past.kcpReceived)}, ` +
          `${percent(totals.tcpRead - past.tcpRead, totals.kcpSent - past.kcpSent)}`,
      )
    }
    const load =
      elapsed > 0 && snapshot.cpu !== undefined && since.cpu !== undefined
        ? `${(((snapshot.cpu - since.cpu) / elapsed) * 100).toFixed(3)}%`
        : '(unknown)'
    lines.push(
      totalLine,
      `  = load: ${load} (last ${formatDuration(elapsed)}); ` +
        `pkt: ${rate(totals.pktReceived, past.pktReceived)}, ${rate(totals.pktSent, past.pktSent)}; ${uptime}`,
    )
  }
  return `${lines.join('\n')}\n`
}

/** What /healthy looks at. */
export interface Health {
  readonly client: boolean
  /** A rendezvous client that has no peer yet. */
  readonly pending: boolean
  /** ms since a datagram arrived; undefined = never. */
  readonly lastReceived: number | undefined
  /** T of protocol.md 7.4 in seconds. */
  readonly silence: number
}

/** T of protocol.md 7.4, in seconds. */
export function silenceLimit(keepalive: number): number {
  return Math.min(Math.max(3 * keepalive + 4, 10), 1800)
}

/** Whether the tunnel works, and the line that says so (protocol.md 11.1), without its line end. */
export function renderHealth(health: Health): { readonly healthy: boolean; readonly text: string } {
  if (!health.client) return { healthy: true, text: 'healthy' }
  if (health.pending) return { healthy: false, text: 'rendezvous pending' }
  if (health.lastReceived === undefined) return { healthy: false, text: 'peer unreachable' }
  const seconds = Math.round(health.lastReceived / 1000)
  if (health.lastReceived > health.silence * 1000) return { healthy: false, text: `peer not responding (${seconds}s)` }
  return { healthy: true, text: `healthy (peer seen ${seconds}s ago)` }
}

/** ms since the engine got a datagram; undefined = never. `now` in ticks. */
export function readLastReceived(core: Core, now: number): number | undefined {
  // the gauge is refreshed by next_timeout (docs/abi.md, Counters)
  core.calls.next_timeout(now)
  const age = core.counter('last_received_age')
  return age === NEVER_RECEIVED ? undefined : Number(age)
}
