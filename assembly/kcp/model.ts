/*
 * What automatic congestion control knows of a conversation: its rate, the RTTs of this round, the base loss, the delay
 * of the peer's ACKs. rounds.ts draws the conclusions, congestion.ts acts on them.
 *
 * Rates are segments per tick, as f64: WASM floats are the same on every host.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'
import { PeerPath, UNKNOWN } from './peer_path'
import { isAppLimited, sampleInterval } from './rate'
import { diff } from './segment'

/** States: the fast start, its queue drained, and the cycle of asking for less, as much, more. */
export const STARTUP: u32 = 0
export const DRAIN: u32 = 1
export const PROBE_DOWN: u32 = 2
export const PROBE_CRUISE: u32 = 3
export const PROBE_UP: u32 = 4

export const MS: f64 = TICKS_PER_MS
/** What hosts add to an RTT by waking late and working in batches. */
export const HOST_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
/** The most and the least that UP asks for. */
export const MAX_PACING_GAIN: f64 = 1.25
export const MIN_PACING_GAIN: f64 = 1.05
/** Memory of the RTT range and of the ACK delay: two halves of this. */
const WINDOW_HALF_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** Silences below this are no ACK delay. */
const MIN_ACK_DELAY_TICKS: Ticks = 20 * TICKS_PER_MS
const MIN_ACK_DELAY_COUNT: u32 = 2

@unmanaged
export class Model {
  // rate: best sample of this probe cycle and of the last; before the last UP
  maxBw: f64
  maxBwPrevious: f64
  maxBwAtProbeUp: f64
  // rate when the path became hot
  maxBwBeforeQueue: f64
  claimedBw: f64
  // product of the path that this flow has followed; samples of what left before this time tell of the rate it had
  shareScale: f64
  awaitsFreshSamples: u32
  freshSamplesFrom: Ticks
  // base loss now, one and two rounds ago
  baseLoss: f64
  baseLossOneAgo: f64
  baseLossTwoAgo: f64
  pacingGain: f64
  // fraction of a tick of the time the next segment may leave
  nextSendFraction: f64
  // this round
  roundMaxBw: f64
  fullBw: f64
  startupLost: f64
  startupAcked: f64
  lossSampleLost: f64
  lossSampleAcked: f64
  nextSendAt: Ticks
  isPacingLimited: u32
  state: u32
  stateEnteredAt: Ticks
  roundsInState: u32
  cruiseRounds: u32
  roundTripCounter: u32
  nextRoundDelivered: u32
  hasRoundEnded: u32
  roundMinRtt: Ticks
  roundMaxFilteredRtt: Ticks
  roundAcked: u32
  roundLost: u32
  roundsWithoutBwGrowth: u32
  queueRounds: u32
  excessLossRounds: u32
  minRttRises: u32
  random: u32
  lastQueueAt: Ticks
  rmtWndAtRoundStart: u32
  // the last 8 RTTs
  rtts: u64
  rtts2: u64
  rtts3: u64
  rtts4: u64
  rttCount: u32
  // greatest RTT of this half and the one before
  maxRttWindowAt: Ticks
  maxRtt: Ticks
  maxRttPrevious: Ticks
  // ACK delay likewise
  ackDelayWindowAt: Ticks
  maxAckDelay: Ticks
  maxAckDelayPrevious: Ticks
  ackDelayCount: u32
  ackDelayCountPrevious: u32
  lastAckAt: Ticks
  hadTimeoutSinceAck: u32
  // nothing was heard in this round for the probe timeout
  hadTimeoutInRound: u32
}

export function modelOf(c: Conversation): Model {
  return changetype<Model>(c.model)
}

export function peerPathOf(c: Conversation): PeerPath {
  return changetype<PeerPath>(c.peerPath)
}

/** RTT floor in ticks, at least 1; the smoothed RTT without a path record. */
export function minRtt(c: Conversation): Ticks {
  if (!c.peerPath) return max<u32>(1, c.srtt)
  const floor = peerPathOf(c).minRtt
  return floor == UNKNOWN ? max<u32>(1, c.srtt) : max<u32>(1, floor)
}

/** How long the peer takes to acknowledge beyond the path: the tick of an original. */
export function ackAllowance(c: Conversation): Ticks {
  if (!c.model) return 0
  const m = modelOf(c)
  return m.ackDelayCount + m.ackDelayCountPrevious < MIN_ACK_DELAY_COUNT ? 0 : max(m.maxAckDelay, m.maxAckDelayPrevious)
}

/** True if the peer acknowledges at ticks, as an original does. */
export function isIntervalFlushing(c: Conversation): bool {
  return ackAllowance(c) != 0
}

/** True while the path shows more load than it carries. */
export function hasStandingQueue(c: Conversation): bool {
  return c.model != 0 && modelOf(c).queueRounds >= 2
}

export function bandwidth(m: Model): f64 {
  return max(m.maxBw, m.maxBwPrevious)
}

/** Segments that fill the path at the model's rate. */
export function bdp(c: Conversation): f64 {
  return bandwidth(modelOf(c)) * <f64>minRtt(c)
}

export function enter(m: Model, state: u32, now: Ticks): void {
  m.state = state
  m.stateEnteredAt = now
  m.roundsInState = 0
}

/** Cruises for 3 to 6 rounds, so that flows do not probe in step. */
export function startCruise(m: Model, now: Ticks): void {
  m.random = m.random * 1664525 + 1013904223
  m.cruiseRounds = 3 + ((m.random >> 16) % 4)
  enter(m, PROBE_CRUISE, now)
}

/** Takes in the rate that a datagram's ACKs tell of. */
export function takeSample(c: Conversation, m: Model): void {
  if (diff(c.sampleDelivered, m.nextRoundDelivered) >= 0) m.hasRoundEnded = 1
  if (m.awaitsFreshSamples) {
    if (diff(c.sampleSentAt, m.freshSamplesFrom) < 0) return
    m.awaitsFreshSamples = 0
  }
  const interval = sampleInterval(c)
  const floor = <f64>minRtt(c)
  if (interval == 0 || <f64>interval < 0.9 * floor) return
  const rate = <f64>(c.delivered - c.sampleDelivered) / <f64>interval
  if (isAppLimited(c) && rate <= bandwidth(m)) return
  m.maxBw = max(m.maxBw, rate)
  m.roundMaxBw = max(m.roundMaxBw, rate)
}

/** Takes in an RTT: least of the round, least of the last 8 and the greatest of those, range of the last seconds. */
export function onRttSample(m: Model, rtt: Ticks, now: Ticks): void {
  const rtts = changetype<usize>(m) + offsetof<Model>('rtts')
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

export function filteredRtt(m: Model): Ticks {
  const rtts = changetype<usize>(m) + offsetof<Model>('rtts')
  const n = min<u32>(m.rttCount, 8)
  let least = UNKNOWN
  for (let i: u32 = 0; i < n; i++) least = min(least, load<u32>(rtts + ((<usize>i) << 2)))
  return least
}

/**
 * A peer that ticks acknowledges many segments at once, after a silence: what it gathered waited for it beyond the path.
 * A prompt one would have acknowledged the first of them long before the last was sent. Once it is known to tick,
 * segments that left close together tell as well.
 */
export function onAckDelay(c: Conversation, m: Model, span: Ticks, now: Ticks): void {
  if (now - m.ackDelayWindowAt >= WINDOW_HALF_TICKS) {
    m.maxAckDelayPrevious = m.maxAckDelay
    m.ackDelayCountPrevious = m.ackDelayCount
    m.maxAckDelay = m.ackDelayCount = 0
    m.ackDelayWindowAt = now
  }
  const waited = max<i32>(0, <i32>(c.sampleRtt + span - minRtt(c)))
  const silence = min(now - m.lastAckAt, <u32>waited)
  if (
    silence >= MIN_ACK_DELAY_TICKS &&
    (span >= MIN_ACK_DELAY_TICKS || isIntervalFlushing(c)) &&
    !m.hadTimeoutSinceAck
  ) {
    m.maxAckDelay = max(m.maxAckDelay, silence)
    m.ackDelayCount++
    // what looked like a rate that does not grow was the tick
    if (m.ackDelayCount + m.ackDelayCountPrevious == MIN_ACK_DELAY_COUNT) m.roundsWithoutBwGrowth = 0
  }
  m.hadTimeoutSinceAck = 0
}
