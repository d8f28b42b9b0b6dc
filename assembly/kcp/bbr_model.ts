/*
 * State of automatic congestion control: bandwidth, RTTs of this round, base loss, ACK delay of the peer. bbr_rounds.ts
 * advances it, congestion.ts applies it.
 *
 * Bandwidth is in segments per tick, as f64: WASM floats are the same on every host.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'
import { isAppLimited, sampleInterval } from './delivery_rate'
import { PeerPath, UNKNOWN } from './peer_path'
import { diff } from './segment'

/** States, as in BBR. PROBE_DOWN, PROBE_CRUISE and PROBE_UP form the PROBE_BW cycle. */
export const STARTUP: u32 = 0
export const DRAIN: u32 = 1
export const PROBE_DOWN: u32 = 2
export const PROBE_CRUISE: u32 = 3
export const PROBE_UP: u32 = 4

export const MS: f64 = TICKS_PER_MS
/** Contribution of hosts to the RTT: late wakeups and batching. */
export const HOST_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
/** Bounds of the pacing gain in PROBE_UP. */
export const MAX_PACING_GAIN: f64 = 1.25
export const MIN_PACING_GAIN: f64 = 1.05
/** The maxima of RTT and ACK delay cover two periods of this length. */
const WINDOW_HALF_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** Shorter pauses are not an ACK delay. */
const MIN_ACK_DELAY_TICKS: Ticks = 20 * TICKS_PER_MS
const MIN_ACK_DELAY_COUNT: u32 = 2

@unmanaged
export class BbrModel {
  // max_bw of this probe cycle and of the previous one; before the last PROBE_UP; before the standing queue began
  maxBw: f64
  maxBwPrevious: f64
  maxBwAtProbeUp: f64
  maxBwBeforeQueue: f64
  // max_bw of this round; full_bw of STARTUP
  roundMaxBw: f64
  fullBw: f64
  // fair share (fair_share.ts): bandwidth claimed of the path, and that while not app-limited, product of its scale factors that were applied
  claimedBw: f64
  bulkBw: f64
  shareScale: f64
  // samples of segments sent before that time measure the bandwidth before the last reduction
  awaitsFreshSamples: u32
  freshSamplesFrom: Ticks
  // base loss of this round, one and two rounds ago
  baseLoss: f64
  baseLossOneAgo: f64
  baseLossTwoAgo: f64
  // segments from which the base loss is learnt, in STARTUP and later
  startupLost: f64
  startupAcked: f64
  lossSampleLost: f64
  lossSampleAcked: f64
  // pacing: gain of PROBE_UP, time of the next segment and the fraction of a tick to add
  pacingGain: f64
  nextSendFraction: f64
  nextSendAt: Ticks
  isPacingLimited: u32
  // feedback on the last PROBE_UP and the PROBE_DOWN after it (probe_losses.ts): whether it is awaited, when the
  // states were entered and left, segments acknowledged and lost
  isProbeAwaited: u32
  probeUpAt: Ticks
  probeDownAt: Ticks
  probeEndAt: Ticks
  upAcked: u32
  upLost: u32
  lowAcked: u32
  lowLost: u32
  upMaxRtt: Ticks
  // PROBE_UP was ended by losses; probes in a row that lost segments in a queue that the RTT does not show; because of
  // that probes are rare and a part of the bandwidth is left to others
  hasUpFailed: u32
  lossyProbes: u32
  isShallow: u32
  // the bandwidth before it was reduced, until it is found again or a probe lost segments; 0 = it was not
  reducedFrom: f64
  // the base loss was learnt in PROBE_CRUISE: STARTUP does not learn it again
  isBaseKnown: u32
  // state
  state: u32
  stateEnteredAt: Ticks
  roundsInState: u32
  cruiseRounds: u32
  random: u32
  // rounds: their number, `delivered` at which the current one ends
  roundTripCounter: u32
  nextRoundDelivered: u32
  hasRoundEnded: u32
  // RTT of this round: minimum, and maximum of `filteredRtt`
  roundMinRtt: Ticks
  roundMaxFilteredRtt: Ticks
  roundAcked: u32
  roundLost: u32
  rmtWndAtRoundStart: u32
  // the probe timeout expired since the last ACK, and in this round
  hadTimeoutSinceAck: u32
  hadTimeoutInRound: u32
  // consecutive rounds without bandwidth growth, with a standing queue, with excess loss; last round with a queue
  roundsWithoutBwGrowth: u32
  queueRounds: u32
  excessLossRounds: u32
  lastQueueAt: Ticks
  // number of rises of the path's minimum RTT, and of overruns by STARTUP, that were handled
  minRttRises: u32
  overruns: u32
  // the last 8 RTTs
  rttCount: u32
  rtts: u64
  rtts2: u64
  rtts3: u64
  rtts4: u64
  // maximum RTT of this period and the previous one
  maxRttWindowAt: Ticks
  maxRtt: Ticks
  maxRttPrevious: Ticks
  // ACK delay of the peer likewise, and number of delays seen
  ackDelayWindowAt: Ticks
  maxAckDelay: Ticks
  maxAckDelayPrevious: Ticks
  ackDelayCount: u32
  ackDelayCountPrevious: u32
  lastAckAt: Ticks
}

/** @returns the model of a conversation that has one */
export function modelOf(c: Conversation): BbrModel {
  return changetype<BbrModel>(c.model)
}

/** @returns the path record of a conversation that has one */
export function peerPathOf(c: Conversation): PeerPath {
  return changetype<PeerPath>(c.peerPath)
}

/** @returns minimum RTT in ticks, at least 1; the smoothed RTT without a path record */
export function minRttOf(c: Conversation): Ticks {
  if (!c.peerPath) return max<u32>(1, c.srtt)
  const minRtt = peerPathOf(c).minRtt
  return minRtt == UNKNOWN ? max<u32>(1, c.srtt) : max<u32>(1, minRtt)
}

/**
 * @returns ticks by which the peer delays ACKs: the flush interval of kcptun-libev; 0 for a peer that acknowledges
 *   promptly
 */
export function ackAllowance(c: Conversation): Ticks {
  if (!c.model) return 0
  const m = modelOf(c)
  return m.ackDelayCount + m.ackDelayCountPrevious < MIN_ACK_DELAY_COUNT ? 0 : max(m.maxAckDelay, m.maxAckDelayPrevious)
}

/** @returns true if the peer acknowledges at a flush interval, as kcptun-libev does */
export function isIntervalFlushing(c: Conversation): bool {
  return ackAllowance(c) != 0
}

/** @returns true while the path has a standing queue */
export function hasStandingQueue(c: Conversation): bool {
  return c.model != 0 && modelOf(c).queueRounds >= 2
}

/** @returns maximum bandwidth of this probe cycle and the previous one, segments per tick; 0 = no sample yet */
export function bandwidthOf(m: BbrModel): f64 {
  return max(m.maxBw, m.maxBwPrevious)
}

/** @returns bandwidth-delay product in segments */
export function bdp(c: Conversation): f64 {
  return bandwidthOf(modelOf(c)) * <f64>minRttOf(c)
}

/** Enters a state. */
export function enter(m: BbrModel, state: u32, now: Ticks): void {
  m.state = state
  m.stateEnteredAt = now
  m.roundsInState = 0
}

/** Starts PROBE_CRUISE for 3 to 6 rounds, randomly, so that flows do not probe at the same time. */
export function startCruise(m: BbrModel, now: Ticks): void {
  m.random = m.random * 1664525 + 1013904223
  m.cruiseRounds = 3 + ((m.random >> 16) % 4)
  enter(m, PROBE_CRUISE, now)
}

/** Adds the rate sample of a datagram. */
export function takeSample(c: Conversation, m: BbrModel): void {
  if (diff(c.sampleDelivered, m.nextRoundDelivered) >= 0) m.hasRoundEnded = 1
  if (m.awaitsFreshSamples) {
    if (diff(c.sampleSentAt, m.freshSamplesFrom) < 0) return
    m.awaitsFreshSamples = 0
  }
  const interval = sampleInterval(c)
  const minRtt = <f64>minRttOf(c)
  if (interval == 0 || <f64>interval < 0.9 * minRtt) return
  const rate = <f64>(c.delivered - c.sampleDelivered) / <f64>interval
  if (isAppLimited(c) && rate <= bandwidthOf(m)) return
  m.maxBw = max(m.maxBw, rate)
  m.roundMaxBw = max(m.roundMaxBw, rate)
}

/**
 * Adds an RTT sample: minimum of the round, minimum of the last 8 and the maximum of those, maximum of the last
 * seconds.
 */
export function onRttSample(m: BbrModel, rtt: Ticks, now: Ticks): void {
  const rtts = changetype<usize>(m) + offsetof<BbrModel>('rtts')
  store<u32>(rtts + ((<usize>(m.rttCount & 7)) << 2), rtt)
  m.rttCount++
  m.roundMinRtt = min(m.roundMinRtt, rtt)
  m.roundMaxFilteredRtt = max(m.roundMaxFilteredRtt, filteredRtt(m))
  if (now - m.maxRttWindowAt >= WINDOW_HALF_TICKS) {
    m.maxRttPrevious = m.maxRtt
    m.maxRtt = 0
    m.maxRttWindowAt = now
  }
  m.maxRtt = max(m.maxRtt, rtt)
}

/** @returns minimum of the last 8 RTT samples; UNKNOWN if there is none */
export function filteredRtt(m: BbrModel): Ticks {
  const rtts = changetype<usize>(m) + offsetof<BbrModel>('rtts')
  const n = min<u32>(m.rttCount, 8)
  let least = UNKNOWN
  for (let i: u32 = 0; i < n; i++) least = min(least, load<u32>(rtts + ((<usize>i) << 2)))
  return least
}

/**
 * Detects an interval-flushing peer: it acknowledges many segments at once after a pause, and its ACKs waited longer
 * than the path explains. A peer that acknowledges promptly would have acknowledged the first segments long before the
 * last was sent. Once the peer is known to flush at an interval, segments that were sent close together count as well.
 */
export function onAckDelay(c: Conversation, m: BbrModel, span: Ticks, now: Ticks): void {
  if (now - m.ackDelayWindowAt >= WINDOW_HALF_TICKS) {
    m.maxAckDelayPrevious = m.maxAckDelay
    m.ackDelayCountPrevious = m.ackDelayCount
    m.maxAckDelay = m.ackDelayCount = 0
    m.ackDelayWindowAt = now
  }
  const waited = max<i32>(0, <i32>(c.sampleRtt + span - minRttOf(c)))
  const silence = min(now - m.lastAckAt, <u32>waited)
  if (
    silence >= MIN_ACK_DELAY_TICKS &&
    (span >= MIN_ACK_DELAY_TICKS || isIntervalFlushing(c)) &&
    !m.hadTimeoutSinceAck
  ) {
    m.maxAckDelay = max(m.maxAckDelay, silence)
    m.ackDelayCount++
    // the flush interval looked like a bandwidth that does not grow
    if (m.ackDelayCount + m.ackDelayCountPrevious == MIN_ACK_DELAY_COUNT) m.roundsWithoutBwGrowth = 0
  }
  m.hadTimeoutSinceAck = 0
}
