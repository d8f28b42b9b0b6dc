/*
 * Congestion control: the congestion window and the pacing rate.
 *
 * Automatic (`nc` unset): a model of the path, maximum bandwidth and minimum RTT, with pacing, similar to BBR
 * (bbr_model.ts, bbr_rounds.ts). `nc` 1 disables control except for the windows, `nc` 0 selects the classic window.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER } from '../clock'
import { alloc, classOf, free } from '../memory/slab'
import { Ticks } from '../units'
import {
  ackAllowance,
  BbrModel,
  bandwidthOf,
  bdp,
  DRAIN,
  HOST_DELAY_TICKS,
  MAX_PACING_GAIN,
  MS,
  minRttOf,
  modelOf,
  onAckDelay,
  onRttSample,
  PROBE_DOWN,
  PROBE_UP,
  peerPathOf,
  STARTUP,
  takeSample,
} from './bbr_model'
import { growClassic, halveClassic, restartClassic } from './classic'
import { Conversation, waitSnd } from './conversation'
import { isAppLimited } from './delivery_rate'
import { applyShareScale, capacity, claimFairShare, fairShare, setClaimedBw } from './fair_share'
import { countJoint, jointGain, MAX_RATE } from './joint_probe'
import { DEFAULT_WND, NC_AUTOMATIC, NC_CLASSIC, searchMtu } from './options'
import { knownSize, setPathMss } from './path_size'
import { joinPeerPath, leavePeerPath, onPathRtt, UNKNOWN } from './peer_path'
import { countProbe } from './probe_losses'
import { diff } from './segment'

const STARTUP_PACING_GAIN: f64 = 2.77
const INITIAL_CWND: u32 = 32
const MIN_CWND: u32 = 4
/** Pacing gain in a round that follows two rounds with a standing queue. */
const QUEUE_PACING_GAIN: f64 = 0.95
/** Pacing gain in PROBE_CRUISE and PROBE_DOWN beside a shallow queue: leaves TCP room to grow without losses. */
const SHALLOW_PACING_GAIN: f64 = 0.95
const SHALLOW_DOWN_GAIN: f64 = 0.9
/**
 * A host that wakes late may send this much of the pacing budget at once if it was pacing-limited; otherwise one tick's
 * worth.
 */
const MAX_CATCH_UP_TICKS: Ticks = 4 * TICKS_PER_MS
const LOSSY_CATCH_UP_TICKS: Ticks = 2 * TICKS_PER_MS
/** Segments that a short queue holds. */
const SHORT_BURST: f64 = 8
/** Within these bounds the base loss may be that of a short queue, which drops the ends of bursts. */
const MIN_BURST_LOSS: f64 = 0.01
const MAX_BURST_LOSS: f64 = 0.08
/** A flow that only the window limits is not paced when no queue was seen for this long. */
export const UNPACED_AFTER_TICKS: Ticks = 10 * TICKS_PER_SECOND

/**
 * Starts congestion control of a conversation with the peer at `address`. Without memory for a model the default window
 * applies.
 */
export function openCongestion(c: Conversation, address: usize, now: Ticks): void {
  if (c.congestionMode != NC_AUTOMATIC) return
  c.peerPath = joinPeerPath(address, now)
  const cls = classOf(offsetof<BbrModel>())
  if (c.peerPath) c.model = alloc(cls)
  if (!c.model) {
    closeCongestion(c)
    c.sndWnd = min(c.sndWnd, DEFAULT_WND)
    return
  }
  memory.fill(c.model, 0, (<usize>1) << cls)
  const m = modelOf(c)
  m.pacingGain = MAX_PACING_GAIN
  m.random = c.conv
  m.minRttRises = peerPathOf(c).minRttRises
  m.overruns = peerPathOf(c).overruns
  setPathSize(c, address, now)
  m.roundMinRtt = UNKNOWN
  m.stateEnteredAt = m.maxRttWindowAt = m.ackDelayWindowAt = m.lastAckAt = m.lastQueueAt = m.nextSendAt = now
}

/** The peer moved to `address`: a different path, with its own minimum RTT, bandwidth and size limit. */
export function changePath(c: Conversation, address: usize, now: Ticks): void {
  if (!c.model) return
  const path = joinPeerPath(address, now)
  if (!path) return
  const m = modelOf(c)
  const share = m.claimedBw
  setClaimedBw(c, 0)
  leavePeerPath(c.peerPath)
  c.peerPath = path
  setClaimedBw(c, share)
  m.minRttRises = peerPathOf(c).minRttRises
  m.overruns = peerPathOf(c).overruns
  m.isShallow = 0
  setPathSize(c, address, now)
}

/** Applies what is known about the size of datagrams on the path, or was found before by conversations that ended. */
function setPathSize(c: Conversation, address: usize, now: Ticks): void {
  const path = peerPathOf(c)
  const size = knownSize(address, now)
  if (searchMtu() == 0) {
    setPathMss(c, size)
    return
  }
  if (path.references == 1) path.size = size
  setPathMss(c, path.size)
}

/** Frees the model and leaves the path. */
export function closeCongestion(c: Conversation): void {
  if (c.model) {
    setClaimedBw(c, 0)
    free(c.model, classOf(offsetof<BbrModel>()))
  }
  if (c.peerPath) leavePeerPath(c.peerPath)
  c.model = c.peerPath = 0
}

// ---- what may be sent

/** @returns congestion window in segments */
export function congestionWindow(c: Conversation): u32 {
  if (c.congestionMode == NC_CLASSIC) return max<u32>(c.cwnd, 1)
  if (!c.model) return NEVER
  const m = modelOf(c)
  const rate = bandwidthOf(m)
  if (rate == 0) return INITIAL_CWND
  if (peerPathOf(c).isProbingRtt) return max(MIN_CWND, <u32>(0.5 * bdp(c)))
  const cwnd = 2 * bdp(c) + max(2, rate * (MS + HOST_DELAY_TICKS)) + rate * <f64>ackAllowance(c)
  return max(m.state == STARTUP ? INITIAL_CWND : MIN_CWND, <u32>cwnd)
}

/** @returns segments that may be in flight by the windows of both ends */
export function sendLimit(c: Conversation): u32 {
  return min(c.sndWnd, c.rmtWnd)
}

/** @returns true if congestion control allows a segment to be sent now; lost segments are paced like new ones */
export function maySend(c: Conversation, now: Ticks): bool {
  return c.flight < congestionWindow(c) && pacingDeadline(c, now) == 0
}

/** @returns ticks until pacing allows the next segment */
export function pacingDeadline(c: Conversation, now: Ticks): Ticks {
  if (!c.model) return 0
  const m = modelOf(c)
  const wait = diff(m.nextSendAt, now)
  if (wait <= 0) return 0
  m.isPacingLimited = 1
  return wait
}

/** @returns pacing rate, segments per tick */
function pace(c: Conversation): f64 {
  const m = modelOf(c)
  const rate = bandwidthOf(m)
  if (rate == 0) {
    // no bandwidth sample yet: the initial window over one round trip if the RTT is known, otherwise at once
    const first = c.srtt ? <f64>INITIAL_CWND / <f64>c.srtt : <f64>INITIAL_CWND
    const fair = fairShare(peerPathOf(c), m.nextSendAt)
    return fair == 0 ? first : min(first, max(fair, <f64>INITIAL_CWND / <f64>minRttOf(c)))
  }
  if (m.state == STARTUP) return STARTUP_PACING_GAIN * rate
  if (m.state == DRAIN) return rate / STARTUP_PACING_GAIN
  // an app-limited flow takes what it needs: the gain of others would only delay it
  const gain = isAppLimited(c) ? 0 : jointGain(peerPathOf(c), m.state == PROBE_UP, m.nextSendAt)
  if (gain != 0) return gain * rate
  if (m.state == PROBE_DOWN)
    return min(m.isShallow ? SHALLOW_DOWN_GAIN : 1, max(0.8, 1 - 0.8 * (m.pacingGain - 1))) * rate
  if (m.state == PROBE_UP) return m.pacingGain * rate
  if (m.isShallow) return SHALLOW_PACING_GAIN * rate
  return m.queueRounds >= 2 ? QUEUE_PACING_GAIN * rate : rate
}

/**
 * @returns rate of the path, full segments per tick: the capacity that was measured, otherwise the initial window in a
 *   round trip. What its flows claim is less, or counts small segments.
 */
export function pathRate(c: Conversation, now: Ticks): f64 {
  const known = capacity(peerPathOf(c), now)
  return known != 0 ? known : <f64>INITIAL_CWND / <f64>minRttOf(c)
}

/** @returns ticks of pacing budget that a late wake-up may use at once: all flows of the path use theirs */
function maxCatchUp(c: Conversation, m: BbrModel): Ticks {
  const path = peerPathOf(c)
  const rate = max(bandwidthOf(m), path.claimedBw)
  const isBurstLoss = m.baseLoss >= MIN_BURST_LOSS && m.baseLoss < MAX_BURST_LOSS && rate < MAX_RATE
  if (!m.isShallow && !path.isOverrun && !isBurstLoss) return MAX_CATCH_UP_TICKS
  return min(MAX_CATCH_UP_TICKS, max(LOSSY_CATCH_UP_TICKS, <u32>(SHORT_BURST / max(rate, 0.001))))
}

/** A segment was sent at `now`. */
export function onSent(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  const catchUp: u32 = m.isPacingLimited ? maxCatchUp(c, m) : 1
  if (diff(now, m.nextSendAt) > <i32>catchUp) {
    m.nextSendAt = now - catchUp
    m.nextSendFraction = 0
  }
  applyShareScale(c, m, now)
  if (bandwidthOf(m) == 0 && waitSnd(c) > INITIAL_CWND) claimFairShare(c, m, now)
  if (m.claimedBw == 0) setClaimedBw(c, bandwidthOf(m))
  let rate = pace(c)
  if (c.flight >= sendLimit(c) / 2 && diff(now, m.lastQueueAt) > <i32>UNPACED_AFTER_TICKS) rate *= 2
  const gap = m.nextSendFraction + 1 / rate
  const whole = <u32>gap
  m.nextSendAt += whole
  m.nextSendFraction = gap - <f64>whole
}

/** Everything that may be sent was sent: the conversation is no longer pacing-limited. */
export function onDrained(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  if (diff(m.nextSendAt, now) <= 0) m.isPacingLimited = 0
}

// ---- feedback

/** `n` transmissions of a segment, the last at `sentAt`, were declared lost. */
export function onLoss(c: Conversation, sentAt: Ticks, n: u32): void {
  if (c.model) countJoint(peerPathOf(c), sentAt, 0, n, false)
}

/** `n` transmissions in all were declared lost. */
export function onLosses(c: Conversation, n: u32): void {
  if (c.congestionMode == NC_CLASSIC) halveClassic(c)
  if (!c.model) return
  modelOf(c).roundLost += n
  countProbe(c, modelOf(c), 0, n)
}

/** A declared loss was spurious. */
export function onSpuriousLoss(c: Conversation): void {
  if (c.model && modelOf(c).roundLost) modelOf(c).roundLost--
}

/** The probe timeout expired. The bandwidth estimate is not reduced. */
export function onTimeout(c: Conversation): void {
  if (c.congestionMode == NC_CLASSIC) restartClassic(c)
  if (c.model) modelOf(c).hadTimeoutSinceAck = modelOf(c).hadTimeoutInRound = 1
}

/** `rtt`: the RTT sample of a datagram, which is that of the most recently sent transmission it acknowledged. */
export function onRtt(c: Conversation, rtt: Ticks, now: Ticks): void {
  if (!c.model) return
  onPathRtt(peerPathOf(c), max<u32>(1, rtt), now)
  onRttSample(modelOf(c), max<u32>(1, rtt), now)
}

/**
 * A datagram with acknowledgements was handled completely.
 * @param acked segments it acknowledged
 * @param span ticks between the first and the last transmission it acknowledged, if there were many; else 0
 */
export function onAckDatagram(c: Conversation, acked: u32, span: Ticks, now: Ticks): void {
  if (c.congestionMode == NC_CLASSIC) growClassic(c)
  if (!c.model) return
  const m = modelOf(c)
  m.roundAcked += acked
  countProbe(c, m, acked, 0)
  countJoint(peerPathOf(c), c.rackSentAt, acked, 0, !isAppLimited(c))
  if (c.hasSample) {
    onAckDelay(c, m, span, now)
    takeSample(c, m)
  }
  m.lastAckAt = now
}

// ---- statistics

/** @returns pacing rate in segments per second; 0 without a model */
export function paceOf(c: Conversation): u32 {
  return c.model ? <u32>(pace(c) * TICKS_PER_SECOND) : 0
}

/** @returns base loss in units of 1/10000 (u16), state (u8), rounds with a standing queue (u8) */
export function lossOf(c: Conversation): u32 {
  if (!c.model) return 0
  const m = modelOf(c)
  return <u32>(m.baseLoss * 10000) | (m.state << 16) | (min<u32>(m.queueRounds, 255) << 24)
}
