/**
 * Reads documents of /stats.json and samples of /events (docs/api.md), which hold the same and more, and computes the rates between two of them. Missing names count as 0:
 * the document may come from another version.
 */

import { duration } from '../../dashboard/format.ts'

/** Supported version of /stats.json. */
const STATS_VERSION = 1

export interface Session {
  /** Empty unless there are several. */
  readonly tunnel: string
  readonly conv: string
  readonly state: string
  readonly peer: string
  /** Whose key it has; empty unless the server has several. */
  readonly user: string
  /** The other end of its TCP connection: application or target; empty: there is none. */
  readonly tcpPeer: string
  readonly ageSeconds: number
  readonly idleSeconds: number
  /** undefined in time_wait */
  readonly rttMs: number | undefined
  readonly waiting: number
  readonly lost: number
  /** Bytes received from and sent to the peer. */
  readonly received: number
  readonly sent: number
}

/** One of several tunnels. */
export interface TunnelFigures {
  readonly name: string
  readonly mode: string
  readonly ready: boolean
  readonly health: string
  readonly sessions: number
  /** Bytes received from and sent to the peer. */
  readonly received: number
  readonly sent: number
}

/** One of several servers of a client. */
export interface ServerFigures {
  /** Empty unless there are several. */
  readonly tunnel: string
  readonly name: string
  readonly state: string
  readonly sinceSeconds: number
  readonly rttMs: number | undefined
  readonly sessions: number
  /** Whether a new session may go there now. */
  readonly isUsed: boolean
}

/** Who has one of several keys. */
export interface UserFigures {
  readonly name: string
  readonly sessions: number
  /** Their limit; undefined: none. */
  readonly most: number | undefined
  readonly seenSeconds: number | undefined
  readonly until: string
  /** Bytes received from and sent to the peer. */
  readonly received: number
  readonly sent: number
}

/** One document of /stats.json. */
export interface Sample {
  /** Empty unless a server has several keys. */
  readonly users: readonly UserFigures[]
  /** Empty unless there are several. */
  readonly tunnels: readonly TunnelFigures[]
  /** Those of clients with several. */
  readonly servers: readonly ServerFigures[]
  readonly program: string
  readonly mode: string
  readonly runtime: string
  readonly uptimeMs: number
  readonly cpuMs: number
  /** Memory of the process, 0: not known. */
  readonly rssBytes: number
  readonly ready: boolean
  readonly health: string
  /** What is wrong with the link at present, as far as the program says so. */
  readonly problem: string | undefined
  readonly counters: Readonly<Record<string, number>>
  readonly gauges: Readonly<Record<string, number>>
  readonly sessions: readonly Session[]
}

/** Rates of one interval, bytes per second. */
export interface Rates {
  readonly received: number
  readonly sent: number
  readonly wireReceived: number
  readonly wireSent: number
  /** Segments sent twice by choice, among those sent once, 0..1. */
  readonly redundant: number
  /** Share of segments that were sent again because they counted as lost, without redundant ones, 0..1. */
  readonly loss: number
  /** CPU usage, share of one core. */
  readonly cpu: number
  /** By conv and peer. */
  readonly sessions: ReadonlyMap<string, { readonly received: number; readonly sent: number }>
  /** By name. */
  readonly tunnels: ReadonlyMap<string, { readonly received: number; readonly sent: number }>
  readonly users: ReadonlyMap<string, { readonly received: number; readonly sent: number }>
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null
const fieldsOf = (value: unknown): Fields => (isFields(value) ? value : {})
const numberOf = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0)
/** Text from the server, with control characters replaced. */
const textOf = (value: unknown): string =>
  typeof value === 'string' ? value.replaceAll(/[^\x20-\x7e\u00a0-\uffff]/g, '?') : ''
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
const numbersOf = (value: unknown): Record<string, number> =>
  Object.fromEntries(Object.entries(fieldsOf(value)).map(([name, number]) => [name, numberOf(number)]))

/**
 * Reads a document of /stats.json.
 * @throws Error if it is not one, or has an unsupported version
 */
export function readSample(document: unknown): Sample {
  const { version, program, uptime_ms, cpu_ms, rss_bytes, link, ready, health, counters, gauges, ...lists } =
    fieldsOf(document)
  const { sessions, tunnels, keys, servers } = lists
  if (version === undefined) throw new Error('the response is not a statistics document')
  if (version !== STATS_VERSION)
    throw new Error(`statistics have version ${String(version)}, expected ${STATS_VERSION}`)
  const about = fieldsOf(program)
  // those of /events of one tunnel are no part of it
  const parts = about['mode'] === 'tunnels' ? listOf(tunnels) : []
  return {
    program: `${textOf(about['name'])} ${textOf(about['version'])}`,
    mode: textOf(about['mode']),
    runtime: `${textOf(about['runtime'])} ${textOf(about['runtime_version'])}`,
    uptimeMs: numberOf(uptime_ms),
    cpuMs: numberOf(cpu_ms),
    rssBytes: numberOf(rss_bytes),
    ready: ready === true,
    health: textOf(health),
    problem: problemOf(fieldsOf(link)),
    tunnels: parts.map(readTunnel),
    servers: [...serversOf(servers, ''), ...parts.flatMap(serversOfTunnel)],
    users: listOf(keys).map(readUser),
    counters: numbersOf(counters),
    gauges: numbersOf(gauges),
    // closed ones are of no interest here
    sessions: listOf(sessions)
      .map(readSession)
      .filter(({ state }) => state !== 'time_wait'),
  }
}

const PROBLEMS: Readonly<Record<string, string>> = {
  refused: 'refused: no server listens there',
  firewall: 'blocked by a firewall of this machine',
  unreachable: 'the peer cannot be reached',
}

function problemOf(link: Fields): string | undefined {
  const { state, problem, silent_ms } = link
  if (state !== 'silent' && state !== 'checking') return undefined
  const known = PROBLEMS[textOf(problem)]
  if (known !== undefined) return known
  return state === 'silent' ? `no answer for ${duration(numberOf(silent_ms) / 1000)}` : undefined
}

/**
 * Rates of the last seconds, bytes per second, from the first event of a stream. A second without a row had no traffic.
 * @param now s since 1970
 * @param most number of seconds
 */
export function readHistory(hello: unknown, now: number, most: number): { received: number[]; sent: number[] } {
  const { since, columns, rows } = fieldsOf(fieldsOf(hello)['history'])
  const names = listOf(columns).map(textOf)
  const from = Math.max(numberOf(since), Math.floor(now) - most)
  const length = Array.isArray(rows) ? Math.max(0, Math.min(Math.floor(now) - from, most)) : 0
  const received: number[] = Array.from({ length }, () => 0)
  const sent = [...received]
  for (const row of listOf(rows)) {
    const values = listOf(row)
    const value = (name: string): number => numberOf(values[names.indexOf(name)])
    const at = value('time') - from
    if (at < 0 || at >= length) continue
    received[at] = value('tcp_written_bytes')
    sent[at] = value('tcp_read_bytes')
  }
  return { received, sent }
}

function readTunnel(entry: unknown): TunnelFigures {
  const fields = fieldsOf(entry)
  const figures = { ...fieldsOf(fields['counters']), ...fieldsOf(fields['gauges']), ...fields }
  const number = (name: string): number => numberOf((figures as Fields)[name])
  return {
    name: textOf(fields['name']),
    mode: textOf(fields['mode']),
    ready: fields['ready'] === true,
    health: textOf(fields['health']),
    sessions: number('sessions_established'),
    received: number('tcp_written_bytes'),
    sent: number('tcp_read_bytes'),
  }
}

const serversOf = (list: unknown, tunnel: string): ServerFigures[] =>
  listOf(list).map((entry) => {
    const { server, state, since_seconds, rtt_ms, sessions, used } = fieldsOf(entry)
    return {
      tunnel,
      name: textOf(server),
      state: textOf(state),
      sinceSeconds: numberOf(since_seconds),
      rttMs: typeof rtt_ms === 'number' ? rtt_ms : undefined,
      sessions: numberOf(sessions),
      isUsed: used === true,
    }
  })

function serversOfTunnel(entry: unknown): ServerFigures[] {
  const { name, servers } = fieldsOf(entry)
  return serversOf(servers, textOf(name))
}

function readUser(entry: unknown): UserFigures {
  const { name, sessions, max_sessions, last_seen_seconds, not_after, tcp_written_bytes, tcp_read_bytes } =
    fieldsOf(entry)
  const optional = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined)
  return {
    name: textOf(name),
    sessions: numberOf(sessions),
    most: optional(max_sessions),
    seenSeconds: optional(last_seen_seconds),
    until: textOf(not_after),
    received: numberOf(tcp_written_bytes),
    sent: numberOf(tcp_read_bytes),
  }
}

function readSession(entry: unknown): Session {
  const fields = fieldsOf(entry)
  const { rtt_ms } = fields
  return {
    tunnel: textOf(fields['tunnel']),
    conv: textOf(fields['conv']),
    state: textOf(fields['state']),
    peer: textOf(fields['peer']),
    user: textOf(fields['user']),
    tcpPeer: textOf(fields['tcp_peer']),
    ageSeconds: numberOf(fields['age_seconds']),
    idleSeconds: numberOf(fields['idle_seconds']),
    rttMs: typeof rtt_ms === 'number' ? rtt_ms : undefined,
    waiting: numberOf(fields['waitsnd_segments']),
    lost: numberOf(fields['retransmitted_segments']),
    received: numberOf(fields['tcp_written_bytes']),
    sent: numberOf(fields['tcp_read_bytes']),
  }
}

/** Key of a session: conv alone is not unique on a server. */
export const keyOf = ({ tunnel, conv, peer }: Session): string => `${tunnel} ${conv} ${peer}`

/** Rates between two documents. They are 0 if the program was restarted in between. */
export function ratesOf(before: Sample | undefined, after: Sample): Rates {
  const restarted = before !== undefined && after.uptimeMs < before.uptimeMs
  const from = restarted ? undefined : before
  const ms = after.uptimeMs - (from?.uptimeMs ?? after.uptimeMs)
  const perSecond = (now: number, then: number): number => (ms > 0 ? (Math.max(now - then, 0) * 1000) / ms : 0)
  const counter = (name: string): number =>
    perSecond(after.counters[name] ?? 0, from?.counters[name] ?? after.counters[name] ?? 0)
  const old = new Map((from?.sessions ?? []).map((session) => [keyOf(session), session]))
  const sessions = new Map(
    after.sessions.map((session) => {
      const then = old.get(keyOf(session))
      const received = perSecond(session.received, then?.received ?? 0)
      return [keyOf(session), { received, sent: perSecond(session.sent, then?.sent ?? 0) }] as const
    }),
  )
  const byName = <Each extends { name: string; received: number; sent: number }>(
    now: readonly Each[],
    before: readonly Each[] = [],
  ): Rates['tunnels'] => {
    const known = new Map(before.map((each) => [each.name, each]))
    return new Map(
      now.map((each) => {
        const then = known.get(each.name) ?? each
        const received = perSecond(each.received, then.received)
        return [each.name, { received, sent: perSecond(each.sent, then.sent) }] as const
      }),
    )
  }
  const segments = counter('segments_sent') - counter('segments_redundant')
  return {
    received: counter('tcp_written_bytes'),
    sent: counter('tcp_read_bytes'),
    wireReceived: counter('pkt_received_bytes'),
    wireSent: counter('pkt_sent_bytes'),
    loss: segments > 0 ? counter('segments_retransmitted') / segments : 0,
    redundant: segments > 0 ? counter('segments_redundant') / segments : 0,
    cpu: ms > 0 && from !== undefined ? Math.max(after.cpuMs - from.cpuMs, 0) / ms : 0,
    sessions,
    tunnels: byName(after.tunnels, from?.tunnels),
    users: byName(after.users, from?.users),
  }
}
