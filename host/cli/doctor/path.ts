/**
 * Measures the path to a peer that answers: round trip time, loss, maximum datagram size in each direction, whether the
 * peer is a server and whether its target accepts connections.
 */
import type { Config } from '../../config/config.ts'
import { MTU_DEFAULT } from '../../config/mtu.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import { type Passage, type Path, passageBack, passageThere, type Return, Sessions } from './path-mtu.ts'
import { type TrainStats, train } from './pings.ts'
import { type Case, type Reached, round } from './reachability.ts'

/** Round trip loss rates that cause a note and a warning. */
const LOSS_NOTE = 0.01
const LOSS_WARNING = 0.05
/** Round trip time that causes a warning, ms. */
const RTT_WARNING_MS = 1000
/** Delay of our own timers above which the measurement is inaccurate, ms. */
const TIMER_LATE_MS = 10
/** IP and UDP headers, bytes. */
const HEADERS_BYTES = { 4: 28, 6: 48 } as const
/** Largest and smallest kcp.mtu, bytes. */
const MTU_MAX = 1500
const MTU_MIN = 300
/** Time within which a server reports a failed dial, ms, plus two round trips. */
const TARGET_WAIT_MS = 1500

/** Runs all measurements and reports the results. */
export async function measure(examined: Case, reached: Reached): Promise<void> {
  const { report, progress, seconds } = examined
  const { probe, pinger, peer } = reached
  const stats = await train(probe, pinger, peer, seconds, (sent, answered, total) => {
    progress(`${sent} of ${total} pings, ${answered} answered`)
  })
  reportTrain(examined, stats)
  if (stats.answered === 0) return
  const path: Path = { peer, rttMs: stats.p95Ms, loss: worstLoss(stats) }
  const sessions = new Sessions(probe, path)
  const headers = HEADERS_BYTES[peer.address.startsWith('::ffff:') ? 4 : peer.family]
  const full = mtuOf(examined.config) - headers
  const most = Math.max(MTU_MAX - headers, full)
  progress('measuring the largest outbound datagram')
  const there = await passageThere(probe, pinger, path, full, most)
  progress('measuring the largest inbound datagram')
  const back = await passageBack(sessions, probe.overhead, most)
  reportThere(examined, there, full, headers, back)
  reportBack(examined, back, there, full, headers)
  if (back.refused) {
    report.add('server', 'failure', `${formatAddress(peer)} is not a server: it rejects sessions`, {
      remedies: ['the peer must have connect in its configuration: it may be a client or a rendezvous server'],
    })
    return
  }
  progress('testing the connection from the server to its target')
  await reportTarget(examined, sessions, path, peer)
}

/** Upper bound of the loss rate: two standard deviations plus one ping above the measured one. */
function worstLoss({ sent, loss }: TrainStats): number {
  return Math.min(loss + 2 * Math.sqrt((loss * (1 - loss)) / sent) + 1 / sent, 1)
}

function reportTrain({ report, seconds }: Case, stats: TrainStats): void {
  const { sent, answered, loss } = stats
  const values = {
    pings: sent,
    answered,
    loss: Number(loss.toFixed(4)),
    rtt_min_ms: finite(stats.minMs),
    rtt_median_ms: finite(stats.medianMs),
    rtt_p95_ms: finite(stats.p95Ms),
    rtt_max_ms: finite(stats.maxMs),
    jitter_ms: round(stats.jitterMs),
    reordered: stats.reordered,
    duplicated: stats.duplicated,
    timer_late_ms: round(stats.timerLateMs),
  }
  if (answered === 0) {
    report.add('path', 'failure', `no answer to ${sent} pings, after an initial answer`, {
      values,
      remedies: ['the path was interrupted or is rate-limited: test again'],
    })
    return
  }
  const lost = `${sent - answered} of ${sent} round trips lost (${(loss * 100).toFixed(1)} %)`
  const rtt = `RTT ${values.rtt_min_ms} / ${values.rtt_median_ms} / ${values.rtt_p95_ms} ms (min, median, p95)`
  const busy =
    stats.timerLateMs > TIMER_LATE_MS ? `; up to ${values.timer_late_ms} ms may be due to load on this machine` : ''
  const text = `${rtt}, jitter ${values.jitter_ms} ms, ${lost} in ${seconds} s${busy}`
  const remedies: string[] = []
  if (loss > LOSS_WARNING) {
    remedies.push(
      'the loss reduces throughput: locate it (mtr, another network, cable instead of Wi-Fi)',
      'if it only occurs under load: a queue or policer on the path drops packets; kcp settings do not help',
    )
  }
  if (stats.medianMs > RTT_WARNING_MS)
    remedies.push('a queue on the path is full, or the path is very long: test again without other traffic')
  const status = remedies.length > 0 ? 'warning' : loss > LOSS_NOTE ? 'note' : 'ok'
  report.add('path', status, text, { values, remedies })
}

const finite = (value: number): number | null => (Number.isFinite(value) ? round(value) : null)

const mtuOf = ({ kcp }: Config): number => kcp.mtu ?? MTU_DEFAULT

/** The largest kcp.mtu known to pass in both directions. */
function fitting(there: Passage, back: Return, headers: number): number {
  const passed = Math.min(there.passed, back.passage === undefined || back.full ? there.passed : back.passage.passed)
  return Math.max(passed + headers, MTU_MIN)
}

function reportThere({ report, config }: Case, there: Passage, full: number, headers: number, back: Return): void {
  const values = { passed_bytes: there.passed, lost_bytes: there.lost ?? null, wanted_bytes: full }
  if (there.passed >= full) {
    const more = there.lost === undefined ? ' (the maximum)' : ''
    const text = `datagrams of ${there.passed} bytes${more} reach the peer; kcp.mtu ${mtuOf(config)} requires ${full} bytes`
    report.add('size_out', 'ok', text, { values })
    return
  }
  const text =
    there.passed === 0
      ? `small pings reach the peer, datagrams of ${there.lost} bytes do not; kcp.mtu ${mtuOf(config)} requires ${full} bytes`
      : `datagrams of up to ${there.passed} bytes reach the peer, larger ones do not; kcp.mtu ${mtuOf(config)} requires ${full} bytes`
  report.add('size_out', 'warning', text, { values, remedies: mtuRemedies(fitting(there, back, headers)) })
}

function reportBack({ report }: Case, back: Return, there: Passage, full: number, headers: number): void {
  if (back.refused) return
  const { passage } = back
  if (passage === undefined) {
    report.add('size_back', 'note', 'not measured: the peer answers pings, but did not accept a session', {
      remedies: ['it may have reached its session limit: test again'],
    })
    return
  }
  const values = { passed_bytes: passage.passed, lost_bytes: passage.lost ?? null, full: back.full }
  if (back.full) {
    const text = `datagrams of ${passage.passed} bytes arrive from the peer, its maximum (its kcp.mtu is ${passage.passed + headers})`
    report.add('size_back', 'ok', text, { values: { ...values, peer_mtu: passage.passed + headers } })
    return
  }
  const text =
    passage.passed === 0
      ? `small datagrams arrive from the peer, datagrams of ${passage.lost} bytes do not`
      : `datagrams of up to ${passage.passed} bytes arrive from the peer, larger ones do not`
  const wanted = passage.passed >= full && there.passed >= full ? ' (the kcp.mtu of the peer is larger than ours)' : ''
  report.add('size_back', 'warning', `${text}${wanted}`, {
    values,
    remedies: mtuRemedies(fitting(there, back, headers)),
  })
}

function mtuRemedies(mtu: number): string[] {
  return [
    `set kcp.mtu to ${mtu} at both ends`,
    'or fix the path: it drops large datagrams without returning "fragmentation needed"',
  ]
}

async function reportTarget({ report }: Case, sessions: Sessions, path: Path, peer: SocketAddress): Promise<void> {
  const answer = await sessions.dial(TARGET_WAIT_MS + 2 * path.rttMs)
  const where = formatAddress(peer)
  const values = { answer }
  if (answer === 'eof') {
    report.add('server', 'warning', `${where} failed to connect to its target, or the target closed the connection`, {
      values,
      remedies: ['check that the target (connect) of the server is running', 'run kcptun-wasm doctor on the server'],
    })
  } else if (answer === 'data') {
    report.add('server', 'ok', `${where} connected to its target, which sent data`, { values })
  } else if (answer === 'nothing') {
    const text = `${where} reported no failure to connect to its target (success is not reported)`
    report.add('server', 'ok', text, { values })
  } else report.add('server', 'warning', `${where} rejected the session`, { values })
}
