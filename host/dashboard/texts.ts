/** The texts of the page: link state with advice, and the lists of values. */
import type { Pair } from './dom.ts'
import { bytes, bytesIn, count, duration, ms, NONE, percent, rate, reachable } from './format.ts'
import { perSecond } from './history.ts'
import type { Hello, Sample } from './sample.ts'

export type Mood = 'good' | 'warn' | 'bad'

export interface LinkText {
  readonly mood: Mood
  readonly state: string
  readonly detail: string
}

type About = Hello['about']

/** Bits per byte. */
const BITS = 8

function upText({ link, gauges, program }: Sample): string {
  const trip = link.rtt_ms === null ? '' : ` within ${ms(link.rtt_ms)} ms`
  if (program.mode === 'client') return `${link.peer ?? 'The server'} answers${trip}.`
  const live = gauges['sessions_established'] ?? 0
  return `${count(live)} ${live === 1 ? 'session' : 'sessions'}, clients answer${trip}.`
}

/** What ICMP or this machine reported of a peer that does not answer. */
function problemText({ link }: Sample, peer: string): LinkText | undefined {
  switch (link.problem) {
    case 'refused':
      return {
        mood: 'bad',
        state: 'Refused by the server',
        detail: `${peer} answers that no server listens on that UDP port: it is not started, or uses another port. Trying again.`,
      }
    case 'firewall':
      return {
        mood: 'bad',
        state: 'Blocked by a firewall of this machine',
        detail: `Packets to ${peer} may not leave (${link.problem_text ?? NONE}). Trying again.`,
      }
    case 'unreachable':
      return {
        mood: 'bad',
        state: 'The server cannot be reached',
        detail: `No path to ${peer} (${link.problem_text ?? NONE}). Trying again.`,
      }
    default:
      return undefined
  }
}

/** The state of several tunnels together. */
function tunnelsText(tunnels: NonNullable<Sample['tunnels']>): LinkText {
  const bad = tunnels.filter(({ ready }) => !ready)
  const all = `${count(tunnels.length)} ${tunnels.length === 1 ? 'tunnel' : 'tunnels'}`
  if (bad.length === 0) return { mood: 'good', state: 'All tunnels work', detail: `${all} in this process.` }
  const detail = bad.map(({ name, health }) => `${name}: ${health}`).join('; ')
  return { mood: 'bad', state: `${count(bad.length)} of ${all} ${bad.length === 1 ? 'does' : 'do'} not work`, detail }
}

export function linkText(sample: Sample, about: About): LinkText {
  if (sample.program.mode === 'tunnels') return tunnelsText(sample.tunnels ?? [])
  const { link, gauges } = sample
  const peer = link.peer ?? String(about['kcp_connect'] ?? 'the peer')
  const silent = duration(link.silent_ms / 1000)
  const problem = link.state === 'silent' || link.state === 'checking' ? problemText(sample, peer) : undefined
  if (problem !== undefined) return problem
  switch (link.state) {
    case 'up':
      return {
        mood: 'good',
        state: 'Connected',
        detail: upText(sample),
      }
    case 'checking':
      return { mood: 'warn', state: 'Checking the link', detail: `Waiting for an answer from ${peer}.` }
    case 'silent':
      return {
        mood: 'bad',
        state: `No answer for ${silent}`,
        detail:
          link.peer === null
            ? 'Data is unacknowledged and nothing is received: the path to the client is broken, or the client is gone.'
            : `No response from ${peer}: it is down or unreachable, or its key or method differs.`,
      }
    case 'quiet':
      return {
        mood: 'warn',
        state: `Quiet for ${silent}`,
        detail:
          'There are sessions, but nothing is received and no response is due: they are idle, or their client is gone.',
      }
    case 'idle': {
      const waiting = gauges['sessions_time_wait'] ?? 0
      const ended = waiting > 0 ? ` ${count(waiting)} ended recently.` : ''
      return { mood: 'good', state: 'Ready', detail: `Waiting for clients at ${link.local ?? NONE}.${ended}` }
    }
    case 'pending':
      return {
        mood: 'warn',
        state: 'Looking for the server',
        detail: `The rendezvous server at ${link.rendezvous ?? NONE} has not introduced a server yet: check that it is running with the same service_id and key.`,
      }
    case 'serving':
      return { mood: 'good', state: 'Serving', detail: `Introduces servers and clients at UDP ${link.local ?? NONE}.` }
  }
}

const sentence = (text: string): string => (text === '' ? '' : `${text.charAt(0).toUpperCase()}${text.slice(1)}.`)

/** Text of an empty session table. */
export function emptyText(mode: string, about: About): string {
  const listen = reachable(String(about['listen'] ?? ''))
  if (mode === 'tunnels') return 'No sessions yet: they are shown here with the name of their tunnel.'
  if (mode === 'client')
    return `No sessions yet. Connect an application to ${listen}: each connection is shown here as a session.`
  return `No sessions yet. A session opens when an application connects to a client of this server; its target is ${String(about['connect'] ?? 'the target')}.`
}

/** The addresses shown next to the state. */
export function endPairs({ link, program }: Sample, about: About): [string, string][] {
  const pairs: [string, string][] = []
  if (about['listen'] !== undefined) pairs.push(['Applications', String(about['listen'])])
  if (link.local !== null) pairs.push([about['obfs'] === undefined ? 'UDP' : 'Obfuscated', link.local])
  if (program.mode === 'client') pairs.push(['Server', link.peer ?? NONE])
  if (about['connect'] !== undefined) pairs.push(['Target', String(about['connect'])])
  return pairs
}

/** The values of the strip. */
export function stripPairs(sample: Sample, before: Sample | undefined, about: About): Pair[] {
  const { path, gauges } = sample
  const segmentBytes = Number(about['segment_bytes'] ?? 0)
  const span = sample.uptime_ms - (before?.uptime_ms ?? 0)
  const cpu = before === undefined || span <= 0 ? 0 : ((sample.cpu_ms ?? 0) - (before.cpu_ms ?? 0)) / span
  const pace = path === null ? 0 : path.pace_segments_per_second * segmentBytes * BITS
  return [
    ['Queue', count(gauges['waitsnd'] ?? 0), 'segments'],
    ['Window', ...(path === null ? ([NONE, ''] as const) : ([count(path.cwnd_segments), 'segments'] as const))],
    ['Pacing', ...(pace === 0 ? ([NONE, ''] as const) : rate(pace))],
    ['Datagrams in', count(Math.round(perSecond(sample, before, 'pkt_received'))), '/s'],
    ['Datagrams out', count(Math.round(perSecond(sample, before, 'pkt_sent'))), '/s'],
    ['CPU', (cpu * 100).toFixed(1), '%'],
    ['Engine memory', ...bytesIn(gauges['memory_used'] ?? 0)],
    ['Process memory', ...(sample.rss_bytes == null ? ([NONE, ''] as const) : bytesIn(sample.rss_bytes))],
  ]
}

/** Counters of dropped datagrams, with the reason. */
const DROPS: readonly (readonly [name: string, text: string])[] = [
  ['drop_auth', 'failed authentication (wrong key or method?)'],
  ['drop_short', 'too short'],
  ['drop_replay', 'replayed'],
  ['drop_reflected', 'reflected'],
  ['drop_malformed', 'malformed'],
  ['drop_oversize', 'too long'],
]
const UDP_ERRORS: readonly (readonly [name: string, text: string])[] = [
  ['udp_full', 'pauses because of a full socket buffer (raise net.core.wmem_max)'],
  ['udp_too_long', 'datagrams too long for the network (lower kcp.mtu)'],
  ['udp_unreachable', 'unreachable'],
  ['udp_other_errors', 'others'],
]

const FLOW_DROPS: readonly (readonly [name: string, text: string])[] = [
  ['flows_refused', 'of sources without a flow'],
  ['flow_drops_queue', 'waited too long'],
  ['flow_drops_send', 'not taken at their end'],
  ['flow_drops_cut', 'cut off'],
]

/** UDP forwarding: flows, and datagrams of applications or targets. */
function flowsText(host: Sample['counters']): string {
  const of = (name: string): string => count(host[name] ?? 0)
  const datagrams = `${of('flow_datagrams_in')} datagrams in, ${of('flow_datagrams_out')} out`
  return `${of('flows')} open of ${of('flows_opened')}; ${datagrams}; dropped: ${listed(FLOW_DROPS, host)}`
}

function listed(names: readonly (readonly [string, string])[], values: Sample['counters']): string {
  const parts = names
    .filter(([name]) => (values[name] ?? 0) > 0)
    .map(([name, text]) => `${count(values[name] ?? 0)} ${text}`)
  return parts.length === 0 ? 'none' : parts.join(', ')
}

function rendezvousText({ link, program }: Sample): string {
  if (program.mode === 'server') return `announced at ${link.rendezvous}`
  return link.peer_found ? `found the server by ${link.rendezvous}` : `asking ${link.rendezvous}`
}

/** The size that the path was found to take counts without the headers of IP and UDP. */
function datagramText({ gauges }: Sample, about: About): string {
  const found = gauges['path_bytes'] ?? 0
  return found > 0
    ? `up to ${count(found)} bytes of UDP payload, found`
    : `packets of up to ${String(about['mtu'] ?? NONE)} bytes`
}

/** The list of details. */
export function detailPairs(sample: Sample, about: About, wireBits: number): [string, string][] {
  const { counters, host, path, link } = sample
  const total = (name: string): number => counters[name] ?? 0
  const { program } = sample
  const pairs: [string, string][] = [
    [
      'Program',
      `${program.name} ${program.version}, ${program.runtime} ${program.runtime_version}, up ${duration(sample.uptime_ms / 1000)}`,
    ],
    ['Health', sentence(sample.health)],
  ]
  const isSum = program.mode === 'tunnels'
  if (!isSum) pairs.push(['Method', String(about['method'] ?? 'none: not encrypted')])
  if (link.rendezvous !== null) pairs.push(['Rendezvous', rendezvousText(sample)])
  if (about['obfs'] !== undefined) {
    const drops = `${count(total('obfs_dropped'))} unrelated packets ignored, ${count(total('obfs_refused'))} contexts refused`
    pairs.push(['Obfuscator', `${String(about['obfs'])}: ${drops}`])
  }
  if (!isSum) pairs.push(['Datagrams', datagramText(sample, about)])
  pairs.push([
    'Duplicates',
    `${count(total('segments_redundant'))} segments sent twice on purpose, ${count(total('segments_duplicate'))} received twice`,
  ])
  pairs.push(['On the wire', `${bytes(total('pkt_received_bytes'))} received, ${bytes(total('pkt_sent_bytes'))} sent`])
  const held = [total('rate_up_held_ms'), total('rate_down_held_ms')].map((time) => duration(time / 1000))
  if (about['rate'] !== undefined) {
    pairs.push(['Rate limit', `${String(about['rate'])}; held back sending for ${held[0]}, receiving for ${held[1]}`])
  }
  if (path !== null) {
    const segment = Number(about['segment_bytes'] ?? 1)
    const holds = Math.ceil((wireBits / BITS / segment) * ((link.rtt_ms ?? 0) / 1000))
    pairs.push([
      'Path',
      `about ${count(holds)} segments in flight at this rate (rate × round trip), loss ${percent(path.base_loss)} %`,
    ])
    pairs.push([
      'Windows',
      `${count(path.cwnd_segments)} of our ${count(path.sndwnd_segments)} segments, peer window ${count(path.rmtwnd_segments)}`,
    ])
    pairs.push(['Retransmission', `timeout ${ms(path.rto_ms)} ms, ${count(total('rtos'))} timeouts so far`])
  }
  pairs.push(
    ['Rejected', listed(DROPS, counters)],
    ['UDP errors', listed(UDP_ERRORS, host)],
    [
      'TCP',
      program.mode === 'client'
        ? `${count(host['tcp_accepted'] ?? 0)} accepted, ${count(host['tcp_refused'] ?? 0)} refused`
        : `${count(host['tcp_dials'] ?? 0)} dialled, ${count(host['tcp_dial_failures'] ?? 0)} failed`,
    ],
  )
  if ((host['flows_opened'] ?? 0) + (host['flows_refused'] ?? 0) > 0) pairs.push(['UDP flows', flowsText(host)])
  return pairs
}
