/**
 * /metrics: the counters as OpenMetrics 1.0 text. Names, units and meanings are documented in docs/api.md and remain
 * stable. There are no labels per session or peer: the number of time series is constant.
 */
import { expiryOf } from '../config/keys.ts'
import type { HostCounterName, HostCounters } from '../driver/diagnostics.ts'
import type { CounterName } from '../engine/core.ts'
import type { KeyStatus, ServerStatus } from './source.ts'
import type { Snapshot } from './stats.ts'

/** Media type of OpenMetrics 1.0. */
export const METRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8'

const PREFIX = 'kcptun_'
const MS_PER_S = 1000

interface Family {
  /** Without prefix. A unit at the end of a name is also declared. */
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly unit?: 'bytes' | 'seconds'
  readonly help: string
  /** The samples: a counter and the value of the label. */
  readonly samples: readonly (readonly [source: CounterName | HostCounterName, label?: string])[]
  readonly label?: string
}

const counter = (source: CounterName | HostCounterName, name: string, help: string): Family => ({
  name,
  type: 'counter',
  ...(name.endsWith('_bytes') ? { unit: 'bytes' as const } : {}),
  help,
  samples: [[source]],
})

const gauge = (
  source: CounterName | HostCounterName,
  name: string,
  help: string,
  unit?: 'bytes' | 'seconds',
): Family => ({
  name,
  type: 'gauge',
  ...(unit === undefined ? {} : { unit }),
  help,
  samples: [[source]],
})

/** All counters of docs/abi.md and of the host, in output order. */
const FAMILIES: readonly Family[] = [
  counter('tcp_read_bytes', 'tcp_read_bytes', 'Bytes read from local TCP connections.'),
  counter('tcp_written_bytes', 'tcp_written_bytes', 'Bytes written to local TCP connections.'),
  counter('kcp_received_bytes', 'kcp_received_bytes', 'Session plaintext received, including padding.'),
  counter('kcp_sent_bytes', 'kcp_sent_bytes', 'Session plaintext sent, excluding padding.'),
  counter('pkt_received_bytes', 'udp_received_bytes', 'Bytes of datagrams received.'),
  counter('pkt_sent_bytes', 'udp_sent_bytes', 'Bytes of datagrams sent.'),
  counter('pkt_received', 'udp_received_datagrams', 'Datagrams received.'),
  counter('pkt_sent', 'udp_sent_datagrams', 'Datagrams sent.'),
  counter('segments_received', 'kcp_received_segments', 'Data segments received.'),
  counter('segments_sent', 'kcp_sent_segments', 'Data segments sent.'),
  counter(
    'segments_retransmitted',
    'kcp_retransmitted_segments',
    'Data segments sent again because they counted as lost.',
  ),
  counter('segments_redundant', 'kcp_redundant_segments', 'Data segments sent twice before they counted as lost.'),
  counter(
    'segments_oversized',
    'kcp_oversized_segments',
    'Data segments sent again in datagrams that may be fragmented, because the path does not take their size any more.',
  ),
  counter('fast_retransmits', 'kcp_fast_retransmitted_segments', 'Data segments retransmitted before their timeout.'),
  counter('segments_duplicate', 'kcp_duplicate_segments', 'Data segments received more than once.'),
  counter('acks_sent', 'kcp_sent_acks', 'Acknowledgements sent.'),
  counter('acks_received', 'kcp_received_acks', 'Acknowledgements received.'),
  counter('rtos', 'kcp_retransmission_timeouts', 'Timeouts of the retransmission timer.'),
  {
    name: 'dropped_datagrams',
    type: 'counter',
    help: 'Datagrams dropped, by reason.',
    label: 'reason',
    samples: [
      ['drop_auth', 'auth'],
      ['drop_replay', 'replay'],
      ['drop_reflected', 'reflected'],
      ['drop_oversize', 'oversize'],
      ['drop_short', 'short'],
      ['drop_malformed', 'malformed'],
    ],
  },
  {
    name: 'dropped_segments',
    type: 'counter',
    help: 'Data segments dropped, by reason.',
    label: 'reason',
    samples: [
      ['drop_memory', 'memory'],
      ['drop_window', 'window'],
    ],
  },
  counter('sessions_opened', 'sessions_opened', 'Sessions opened.'),
  counter('sessions_refused', 'sessions_refused', 'Sessions refused because of the session or memory limit.'),
  counter(
    'sessions_unconfirmed',
    'sessions_unconfirmed',
    'Sessions that required confirmation before the target was dialled.',
  ),
  counter('sessions_evicted', 'sessions_evicted', 'Sessions that yielded to new ones before the target was dialled.'),
  counter('sessions_aborted', 'sessions_aborted', 'Sessions that ended while their TCP connection was open.'),
  counter('resets_sent', 'resets_sent', 'RESET messages sent.'),
  counter('resets_received', 'resets_received', 'RESET messages received.'),
  counter('pings_sent', 'pings_sent', 'Pings sent.'),
  counter('pongs_received', 'pongs_received', 'Pongs received.'),
  counter('pongs_unasked', 'pongs_unasked', 'Pongs received without a matching ping.'),
  counter('size_tests_sent', 'size_tests_sent', 'Pings sent that test which datagrams the path takes.'),
  counter('size_tests_answered', 'size_tests_answered', 'Answers to these.'),
  counter('keepalives_sent', 'keepalives_sent', 'Session keepalives sent.'),
  counter('discarded_bytes', 'discarded_bytes', 'Bytes received for closed TCP connections.'),
  {
    name: 'sessions',
    type: 'gauge',
    help: 'Sessions by state.',
    label: 'state',
    samples: [
      ['sessions_connect', 'connect'],
      ['sessions_established', 'established'],
      ['sessions_linger', 'linger'],
      ['sessions_time_wait', 'time_wait'],
    ],
  },
  gauge('waitsnd', 'waiting_segments', 'Data segments waiting to be sent or acknowledged.'),
  gauge('memory_used', 'memory_used_bytes', 'Memory in use, limited by the key memory.', 'bytes'),
  gauge('last_received_age', 'last_received_age_seconds', 'Time since the last datagram was received.', 'seconds'),
  gauge('peer_silent_pings', 'unanswered_pings', 'Unanswered pings since the last pong.'),
  gauge(
    'path_bytes',
    'path_datagram_bytes',
    'Largest datagram that the path takes, if it was searched, else 0.',
    'bytes',
  ),
  gauge('entropy_left', 'entropy_left_bytes', 'Random bytes available.', 'bytes'),
  counter('obfs_dropped_bytes', 'obfs_dropped_bytes', 'Captured bytes without a matching context.'),
  counter('obfs_dropped', 'obfs_dropped_packets', 'Captured packets without a matching context.'),
  gauge('obfs_contexts', 'obfs_contexts', 'Contexts of the obfuscator.'),
  gauge('obfs_unauthenticated', 'obfs_unauthenticated_contexts', 'Contexts without authenticated payload.'),
  counter('obfs_refused', 'obfs_refused_contexts', 'Contexts refused because of limits.'),
  counter('obfs_resets', 'obfs_resets', 'RST packets of peers, which are ignored.'),
  counter('obfs_control_sent', 'obfs_control_packets_sent', 'Packets without payload sent by the obfuscator.'),
  {
    name: 'rate_limited_seconds',
    type: 'counter',
    unit: 'seconds',
    help: 'Time during which the keys below rate held data back, by direction.',
    label: 'direction',
    samples: [
      ['rate_up_held_ms', 'up'],
      ['rate_down_held_ms', 'down'],
    ],
  },
  {
    name: 'rate_limited_streams',
    type: 'gauge',
    help: 'Streams that took turns last under rate.up or rate.down, by direction.',
    label: 'direction',
    samples: [
      ['rate_up_streams', 'up'],
      ['rate_down_streams', 'down'],
    ],
  },
  counter('tcp_accepted', 'tcp_accepted', 'TCP connections accepted and assigned a session.'),
  counter('tcp_refused', 'tcp_refused', 'TCP connections refused.'),
  counter('tcp_accept_errors', 'tcp_accept_errors', 'Errors while accepting TCP connections.'),
  counter('tcp_dials', 'tcp_dials', 'Connection attempts to the target.'),
  counter('tcp_dial_failures', 'tcp_dial_failures', 'Failed connection attempts to the target.'),
  {
    name: 'proxy_refused',
    type: 'counter',
    help: 'Requests to the proxy of a server that were refused, by reason.',
    label: 'reason',
    samples: [
      ['proxy_denied', 'denied'],
      ['proxy_auth_failures', 'auth'],
      ['proxy_bad_requests', 'bad_request'],
    ],
  },
  counter('proxy_header_errors', 'proxy_header_errors', 'Connections reset for want of a valid PROXY header.'),
  counter('key_searches_dropped', 'key_searches_dropped', 'Datagrams whose key was not searched, to save time.'),
  counter('engine_traps', 'engine_traps', 'Engine traps; each resets all streams.'),
  {
    name: 'udp_errors',
    type: 'counter',
    help: 'Errors of the UDP socket, by reason.',
    label: 'reason',
    samples: [
      ['udp_full', 'full'],
      ['udp_too_long', 'too_long'],
      ['udp_unreachable', 'unreachable'],
      ['udp_other_errors', 'other'],
    ],
  },
  gauge('flows', 'flows', 'Open UDP flows.'),
  counter('flows_opened', 'flows_opened', 'UDP flows opened.'),
  counter('flows_refused', 'flows_refused', 'UDP flows refused.'),
  counter('flow_datagrams_in', 'flow_datagrams_in', 'Datagrams of applications or targets.'),
  counter('flow_datagrams_out', 'flow_datagrams_out', 'Datagrams to applications or targets.'),
  {
    name: 'flow_dropped_datagrams',
    type: 'counter',
    help: 'Datagrams of applications or targets that were dropped, by reason.',
    label: 'reason',
    samples: [
      ['flow_drops_queue', 'queue'],
      ['flow_drops_send', 'send'],
      ['flow_drops_cut', 'cut'],
    ],
  },
]

/** Program information in /metrics. */
export interface BuildInfo {
  readonly version: string
  readonly runtime: string
  readonly runtimeVersion: string
}

function describe(name: string, type: string, unit: string | undefined, help: string): string {
  const unitLine = unit === undefined ? '' : `# UNIT ${PREFIX}${name} ${unit}\n`
  return `# TYPE ${PREFIX}${name} ${type}\n${unitLine}# HELP ${PREFIX}${name} ${help}\n`
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

/** The figures of one tunnel. */
export interface MetricsPart {
  /** Its name, if it is one of several: a label of all its series. */
  readonly tunnel?: string
  readonly snapshot: Snapshot
  readonly host: HostCounters
  /** Whether /ready returns 200. */
  readonly ready: boolean
  /** The servers of a client with several. */
  readonly servers?: readonly ServerStatus[] | undefined
  /** The keys of a server with several. */
  readonly keys?: readonly KeyStatus[] | undefined
}

/** The labels of a series. */
function labelsOf({ tunnel }: MetricsPart, name = '', value = ''): string {
  const labels = [
    ...(tunnel === undefined ? [] : [`tunnel="${tunnel}"`]),
    ...(name === '' ? [] : [`${name}="${value}"`]),
  ]
  return labels.length === 0 ? '' : `{${labels.join(',')}}`
}

function valuesOf({ snapshot, host }: MetricsPart): Readonly<Record<CounterName | HostCounterName, number>> {
  const { counters } = snapshot
  const { last_received_age, rate_up_held_ms, rate_down_held_ms } = counters
  return {
    ...counters,
    ...host,
    last_received_age: last_received_age / MS_PER_S,
    rate_up_held_ms: rate_up_held_ms / MS_PER_S,
    rate_down_held_ms: rate_down_held_ms / MS_PER_S,
  }
}

/** Writes a family with a series for each item of a list. */
function series<Item>(
  parts: readonly MetricsPart[],
  itemsOf: (part: MetricsPart) => readonly Item[],
  labelOf: (item: Item) => readonly [name: string, value: string],
): (name: string, type: Family['type'], help: string, value: (item: Item) => number | null) => string {
  return (name, type, help, value) => {
    const unit = /_(bytes|seconds)$/.exec(name)?.[1]
    const lines = parts.flatMap((part) =>
      itemsOf(part).map((item) => {
        const at = value(item)
        const [label, text] = labelOf(item)
        const suffix = type === 'counter' ? '_total' : ''
        return at === null ? '' : `${PREFIX}${name}${suffix}${labelsOf(part, label, escapeLabel(text))} ${at}\n`
      }),
    )
    return describe(name, type, unit, help) + lines.join('')
  }
}

/** A series for each server. */
function serverFamilies(parts: readonly MetricsPart[]): string {
  const each = series(
    parts,
    ({ servers = [] }) => servers,
    ({ server }) => ['server', server],
  )
  return (
    each('server_up', 'gauge', 'Whether a server answers.', ({ state }) => (state === 'up' ? 1 : 0)) +
    each('server_used', 'gauge', 'Whether new sessions go to a server.', ({ used }) => (used ? 1 : 0)) +
    each('server_rtt_seconds', 'gauge', 'Round trip time of pings to a server.', ({ rtt_ms }) =>
      rtt_ms === null ? null : rtt_ms / MS_PER_S,
    ) +
    each('server_sessions', 'gauge', 'Open sessions at a server.', ({ sessions }) => sessions)
  )
}

/** A series for each key: at most 64, as many as a file may have. */
function keyFamilies(parts: readonly MetricsPart[]): string {
  const each = series(
    parts,
    ({ keys = [] }) => keys,
    ({ name }) => ['key', name],
  )
  return (
    each('key_sessions', 'gauge', 'Open sessions of a key.', ({ sessions }) => sessions) +
    each('key_sessions_opened', 'counter', 'Sessions opened with a key.', (key) => key.sessions_opened) +
    each('key_sessions_refused', 'counter', 'Sessions refused by the limit of a key.', (key) => key.sessions_refused) +
    each('key_tcp_read_bytes', 'counter', 'Bytes read from TCP for a key.', (key) => key.tcp_read_bytes) +
    each('key_tcp_written_bytes', 'counter', 'Bytes written to TCP for a key.', (key) => key.tcp_written_bytes) +
    each('key_received_datagrams', 'counter', 'Authentic datagrams under a key.', (key) => key.datagrams_received) +
    each('key_sent_datagrams', 'counter', 'Datagrams sent under a key.', (key) => key.datagrams_sent) +
    each('key_seen_age_seconds', 'gauge', 'Time since a datagram under a key.', (key) => key.last_seen_seconds) +
    each('key_expiry_timestamp_seconds', 'gauge', 'When a key expires, s since 1970.', ({ not_after }) => {
      const expiry = not_after === null ? undefined : expiryOf(not_after)
      return expiry === undefined ? null : expiry / MS_PER_S
    })
  )
}

/**
 * Renders the exposition.
 * @param process the figures of the process
 * @param parts the tunnels: one, or several with names
 */
export function renderMetrics(process: Snapshot, build: BuildInfo, parts: readonly MetricsPart[]): string {
  const each = (name: string, value: (part: MetricsPart) => number | undefined): string =>
    parts
      .map((part) => {
        const at = value(part)
        return at === undefined ? '' : `${PREFIX}${name}${labelsOf(part)} ${at}\n`
      })
      .join('')
  let text =
    describe('build', 'info', undefined, 'Program version and runtime.') +
    `${PREFIX}build_info{version="${escapeLabel(build.version)}",runtime="${escapeLabel(build.runtime)}",` +
    `runtime_version="${escapeLabel(build.runtimeVersion)}"} 1\n` +
    describe('ready', 'gauge', undefined, 'Whether the tunnel works: 1 if /ready returns 200.') +
    each('ready', ({ ready }) => (ready ? 1 : 0)) +
    describe('uptime_seconds', 'gauge', 'seconds', 'Time since startup.') +
    `${PREFIX}uptime_seconds ${process.uptime / MS_PER_S}\n`
  if (process.cpu !== undefined) {
    text +=
      describe('cpu_seconds', 'counter', 'seconds', 'CPU time used by the process.') +
      `${PREFIX}cpu_seconds_total ${process.cpu / MS_PER_S}\n`
  }
  if (process.rss !== undefined) {
    text +=
      describe('resident_memory_bytes', 'gauge', 'bytes', 'Resident memory of the process.') +
      `${PREFIX}resident_memory_bytes ${process.rss}\n`
  }
  if (parts.some(({ snapshot }) => snapshot.workers !== undefined)) {
    text +=
      describe('workers', 'gauge', undefined, 'Running worker processes.') +
      each('workers', ({ snapshot }) => snapshot.workers?.serving) +
      describe('worker_restarts', 'counter', undefined, 'Restarted worker processes.') +
      each('worker_restarts_total', ({ snapshot }) => snapshot.workers?.restarts)
  }
  if (parts.some(({ servers = [] }) => servers.length > 0)) text += serverFamilies(parts)
  if (parts.some(({ keys = [] }) => keys.length > 0)) text += keyFamilies(parts)
  const values = parts.map((part) => [part, valuesOf(part)] as const)
  for (const { name, type, unit, help, samples, label } of FAMILIES) {
    text += describe(name, type, unit, help)
    for (const [part, numbers] of values) {
      for (const [source, labelValue] of samples) {
        const value = numbers[source]
        if (!Number.isFinite(value)) continue
        text += `${PREFIX}${name}${type === 'counter' ? '_total' : ''}${labelsOf(part, label, labelValue)} ${value}\n`
      }
    }
  }
  return `${text}# EOF\n`
}
