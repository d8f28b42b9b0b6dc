/**
 * Reads documents of /stats.json (docs/api.md) and computes the rates between two of them. Missing names count as 0:
 * the document may come from another version.
 */

/** Supported version of /stats.json. */
const STATS_VERSION = 1

export interface Session {
  readonly conv: string
  readonly state: string
  readonly peer: string
  readonly ageSeconds: number
  readonly idleSeconds: number
  /** undefined in time_wait */
  readonly rttMs: number | undefined
  readonly waiting: number
  readonly retransmitted: number
  /** Bytes received from and sent to the peer. */
  readonly received: number
  readonly sent: number
}

/** One document of /stats.json. */
export interface Sample {
  readonly program: string
  readonly mode: string
  readonly runtime: string
  readonly uptimeMs: number
  readonly cpuMs: number
  readonly ready: boolean
  readonly health: string
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
  /** Share of retransmissions among the segments sent without redundant ones, 0..1. */
  readonly retransmitted: number
  /** CPU usage, share of one core. */
  readonly cpu: number
  /** By conv and peer. */
  readonly sessions: ReadonlyMap<string, { readonly received: number; readonly sent: number }>
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null
const fieldsOf = (value: unknown): Fields => (isFields(value) ? value : {})
const numberOf = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0)
/** Text from the server, with control characters replaced. */
const textOf = (value: unknown): string =>
  typeof value === 'string' ? value.replaceAll(/[^\x20-\x7e\u00a0-\uffff]/g, '?') : ''
const numbersOf = (value: unknown): Record<string, number> =>
  Object.fromEntries(Object.entries(fieldsOf(value)).map(([name, number]) => [name, numberOf(number)]))

/**
 * Reads a document of /stats.json.
 * @throws Error if it is not one, or has an unsupported version
 */
export function readSample(document: unknown): Sample {
  const { version, program, uptime_ms, cpu_ms, ready, health, counters, gauges, sessions } = fieldsOf(document)
  if (version === undefined) throw new Error('the response is not a statistics document')
  if (version !== STATS_VERSION)
    throw new Error(`statistics have version ${String(version)}, expected ${STATS_VERSION}`)
  const about = fieldsOf(program)
  return {
    program: `${textOf(about['name'])} ${textOf(about['version'])}`,
    mode: textOf(about['mode']),
    runtime: `${textOf(about['runtime'])} ${textOf(about['runtime_version'])}`,
    uptimeMs: numberOf(uptime_ms),
    cpuMs: numberOf(cpu_ms),
    ready: ready === true,
    health: textOf(health),
    counters: numbersOf(counters),
    gauges: numbersOf(gauges),
    sessions: (Array.isArray(sessions) ? sessions : []).map(readSession),
  }
}

function readSession(entry: unknown): Session {
  const fields = fieldsOf(entry)
  const { rtt_ms } = fields
  return {
    conv: textOf(fields['conv']),
    state: textOf(fields['state']),
    peer: textOf(fields['peer']),
    ageSeconds: numberOf(fields['age_seconds']),
    idleSeconds: numberOf(fields['idle_seconds']),
    rttMs: typeof rtt_ms === 'number' ? rtt_ms : undefined,
    waiting: numberOf(fields['waitsnd_segments']),
    retransmitted: numberOf(fields['retransmitted_segments']),
    received: numberOf(fields['tcp_written_bytes']),
    sent: numberOf(fields['tcp_read_bytes']),
  }
}

/** Key of a session: conv alone is not unique on a server. */
export const keyOf = ({ conv, peer }: Session): string => `${conv} ${peer}`

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
  const segments = counter('segments_sent') - counter('segments_redundant')
  return {
    received: counter('tcp_written_bytes'),
    sent: counter('tcp_read_bytes'),
    wireReceived: counter('pkt_received_bytes'),
    wireSent: counter('pkt_sent_bytes'),
    retransmitted: segments > 0 ? counter('segments_retransmitted') / segments : 0,
    redundant: segments > 0 ? counter('segments_redundant') / segments : 0,
    cpu: ms > 0 && from !== undefined ? Math.max(after.cpuMs - from.cpuMs, 0) / ms : 0,
    sessions,
  }
}
