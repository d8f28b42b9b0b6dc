/*
 * Rounds and states of automatic congestion control: evaluates each round trip and selects what to probe next.
 *
 * Random loss does not reduce the rate: only loss above a learnt base counts. A standing queue does: rounds in which
 * even the minimum RTT is above that of the path.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import {
  ackAllowance,
  BbrModel,
  bandwidthOf,
  bdp,
  DRAIN,
  enter,
  filteredRtt,
  HOST_DELAY_TICKS,
  isIntervalFlushing,
  MAX_PACING_GAIN,
  MIN_PACING_GAIN,
  MS,
  minRttOf,
  modelOf,
  PROBE_CRUISE,
  PROBE_DOWN,
  PROBE_UP,
  peerPathOf,
  STARTUP,
  startCruise,
} from './bbr_model'
import { congestionWindow, sendLimit, UNPACED_AFTER_TICKS } from './congestion'
import { Conversation } from './conversation'
import { isAppLimited } from './delivery_rate'
import { applyShareScale, onCapacitySample, onOverload, reducePath, setClaimedBw, towardsMean } from './fair_share'
import { advanceJoint, endJoint, endJointRound } from './joint_probe'
import { longMinRtt, startProbeRtt, UNKNOWN } from './peer_path'
import { isLostAbove, isProbeKnown, onProbeUp } from './probe_losses'
import { diff } from './segment'

const PACING_GAIN_STEP: f64 = 0.02
/** Beside a shallow queue probes are rare. */
const SHALLOW_GAIN_STEP: f64 = 0.04
/** A probe with this gain that lost nothing shows that the queue is not shallow any more. */
const CLEAN_PACING_GAIN: f64 = 1.12
/**
 * A flow with less than this part of the path's bandwidth does not restart STARTUP: what it found probably belongs to
 * another flow.
 */
const SOLE_SHARE: f64 = 0.8
/** What a flow with less than this part of the mean of its path sends says nothing about the others. */
const LARGE_SHARE: f64 = 0.25
const MAX_SHARED_PACING_GAIN: f64 = 1.15
/** Weight of the mean of the path when a flow reduces its bandwidth. */
const MEAN_PULL: f64 = 0.25
/** A flow with less than this part of the mean of its path may probe for more despite a queue. */
const POOR_SHARE: f64 = 0.8
/** Loss this far above the base: the capacity of the link collapsed. */
const COLLAPSE_LOSS: f64 = 0.25
/** Loss this far above the base ends a STARTUP that was restarted: the queue overflows, even if the RTT shows none. */
const OVERSHOOT_LOSS: f64 = 0.15
/** Segments of a round from which that is judged. */
const MIN_OVERSHOOT_SAMPLE: u32 = 64
const MIN_CRUISE_TICKS: Ticks = 20 * TICKS_PER_MS
/**
 * PROBE_CRUISE after a probe that filled a shallow queue: it cost the neighbours losses, and a window of TCP takes
 * seconds to grow again.
 */
const SHALLOW_CRUISE_TICKS: Ticks = 3 * TICKS_PER_SECOND
const SHALLOW_CRUISE_ROUNDS: u32 = 60
/**
 * Limits of the RTT in a lossy PROBE_UP, in minimum RTTs, without HOST_DELAY_TICKS: above the first the RTT shows the
 * queue and its rules apply; up to the second even a full queue is never seen as one (cf. isRttRaised).
 */
const LOSSY_UP_RTT: f64 = 1.15
const SHALLOW_RTT: f64 = 1.1
/** The bandwidth before a reduction is found again at this part of it. */
const FOUND_AGAIN: f64 = 0.95
/** The smallest gain leaves room for this much random loss, or the bandwidth would decrease with each probe. */
const MAX_GAIN_LOSS: f64 = 0.1
/**
 * After this many rounds with a standing queue, with the bandwidth reduced to this part and no lower RTT, the minimum
 * RTT may have risen.
 */
const MIN_RTT_RISE_ROUNDS: u32 = 4
const MIN_RTT_RISE_BW: f64 = 0.7
/** Rounds without bandwidth growth that end STARTUP; an interval-flushing peer may send nothing during a round. */
const MAX_ROUNDS_WITHOUT_BW_GROWTH: u32 = 3
const INTERVAL_FLUSHING_MAX_ROUNDS: u32 = 8
/**
 * Segments of STARTUP from which the base loss is learnt with an interval-flushing peer: its ACKs do not show when a
 * queue begins.
 */
const INTERVAL_FLUSHING_LOSS_SAMPLE: f64 = 256
/** ACKs per datagram of kcptun-libev. */
const INTERVAL_FLUSHING_ACKS: f64 = 55
/** Consecutive rounds of excess loss after which the path to an interval-flushing peer is overloaded. */
const INTERVAL_FLUSHING_EXCESS_ROUNDS: u32 = 2

// ---- rounds

/** To be called after a receive batch, when losses were detected. */
export function updateCongestion(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  if (m.hasRoundEnded) {
    endRound(c, m, now)
    m.nextRoundDelivered = c.delivered
    m.hasRoundEnded = 0
  }
  applyShareScale(c, m, now)
  followPath(c, m, now)
  advanceState(c, m, now)
  // by what followPath decided; above, by what another flow did
  applyShareScale(c, m, now)
  // a conversation with nothing in flight and nothing to send claims no share of the path
  const isIdle = c.flight == 0 && c.lost == 0 && c.sndEnd == c.sndNxt
  if (m.claimedBw != 0) setClaimedBw(c, isIdle ? 0 : bandwidthOf(m))
  onCapacitySample(c, m, now, sendLimit(c) >= congestionWindow(c))
}

/** What the flows of a path do together. */
function followPath(c: Conversation, m: BbrModel, now: Ticks): void {
  const path = peerPathOf(c)
  const isLarge = m.claimedBw * <f64>path.flows >= LARGE_SHARE * path.claimedBw && !isAppLimited(c)
  if (isSoleFlow(c, m)) endJoint(path, now)
  else if (!isAppLimited(c)) {
    let part = m.state == STARTUP ? endJointRound(path, now) : 0
    if (part != 0) path.overruns++
    else if (isLarge) part = advanceJoint(path, m.queueRounds < 2 && !path.isContested, now)
    if (part != 0) reducePath(c, part)
  }
  if (m.overruns == path.overruns) return
  m.overruns = path.overruns
  // one that got little so far goes on
  if (m.state == STARTUP && isLarge) endStartup(m, true, now)
}

/**
 * @returns true if the loss of this round is unknown: after a timeout, lost segments may be lost ACKs of an
 *   interval-flushing peer, which sends each ACK once, or of a peer that was not known as one yet
 */
function isLossUnknown(c: Conversation, m: BbrModel): bool {
  return m.hadTimeoutInRound != 0 && (m.state == STARTUP || isIntervalFlushing(c))
}

/**
 * @returns true if more was lost than the base explains, in proportion and by chance. An interval-flushing peer sends
 *   each ACK once, many per datagram: one lost datagram of ACKs looks like as many lost segments.
 */
function isExcessLoss(c: Conversation, m: BbrModel, share: f64, chance: f64, minimum: f64): bool {
  return !isLossUnknown(c, m) && isAbove(m.baseLoss, c, m.roundLost, m.roundAcked, share, chance, minimum)
}

/** @returns true if `lost` of `lost + acked` segments are more than a loss of `base` explains */
function isAbove(base: f64, c: Conversation, lost: u32, acked: u32, share: f64, chance: f64, minimum: f64): bool {
  const n = <f64>(acked + lost)
  const expected = base * n
  const bunch = isIntervalFlushing(c) ? INTERVAL_FLUSHING_ACKS : 1
  return <f64>lost > expected + share * n + chance * Math.sqrt(max(1, expected) * bunch) + minimum
}

/**
 * Adapts the gain to what PROBE_UP lost, which is known a round trip later. A queue that the RTT shows has rules of its
 * own.
 */
function judgeProbe(c: Conversation, m: BbrModel): void {
  if (!isProbeKnown(c, m)) return
  // it sent less than it meant to, with the others
  const path = peerPathOf(c)
  if (diff(path.lowEndAt, m.probeUpAt) > 0 && diff(path.lowAt, m.probeEndAt) < 0) return
  // a minimum RTT that was found beside others may include their queue
  const minRtt = <f64>min(minRttOf(c), longMinRtt(path))
  const rtt = <f64>m.upMaxRtt - <f64>HOST_DELAY_TICKS
  if (
    rtt <= LOSSY_UP_RTT * minRtt &&
    !isIntervalFlushing(c) &&
    isAbove(m.baseLoss, c, m.upLost, m.upAcked, 0.02, 2.5, 2) &&
    isLostAbove(m)
  ) {
    m.reducedFrom = 0
    // one may have met a burst of loss
    if (rtt <= SHALLOW_RTT * minRtt && ++m.lossyProbes >= 2) m.isShallow = 1
    if (!m.hasUpFailed) reduceGain(m)
  } else if (!m.hasUpFailed) {
    m.lossyProbes = 0
    if (m.pacingGain >= CLEAN_PACING_GAIN) m.isShallow = 0
    if (bandwidthOf(m) >= FOUND_AGAIN * m.reducedFrom) m.reducedFrom = 0
    increaseGain(c, m)
  }
}

function increaseGain(c: Conversation, m: BbrModel): void {
  const step = m.isShallow ? SHALLOW_GAIN_STEP : PACING_GAIN_STEP
  m.pacingGain = min(isSoleFlow(c, m) ? MAX_PACING_GAIN : MAX_SHARED_PACING_GAIN, m.pacingGain + step)
}

function reduceGain(m: BbrModel): void {
  m.pacingGain = max(MIN_PACING_GAIN + min(MAX_GAIN_LOSS, m.baseLoss), 1 + (m.pacingGain - 1) / 2)
}

function isQuiet(c: Conversation, m: BbrModel): bool {
  const minRtt = <f64>minRttOf(c)
  return <f64>m.roundMinRtt <= 1.05 * minRtt + 0.5 * MS && <f64>m.roundMaxFilteredRtt <= 1.15 * minRtt + MS
}

function endRound(c: Conversation, m: BbrModel, now: Ticks): void {
  m.roundTripCounter++
  m.roundsInState++
  const minRtt = <f64>minRttOf(c)
  const roundRtt = m.roundMinRtt == UNKNOWN ? minRtt : <f64>m.roundMinRtt
  const delay = <f64>(ackAllowance(c) + HOST_DELAY_TICKS)
  const isRttRaised =
    !peerPathOf(c).isContested && roundRtt > 1.1 * minRtt + MS + delay && bandwidthOf(m) * (roundRtt - minRtt) > 4
  m.excessLossRounds = isExcessLoss(c, m, 0.02, 2.5, 2) ? m.excessLossRounds + 1 : 0
  const excess = m.excessLossRounds >= (isIntervalFlushing(c) ? INTERVAL_FLUSHING_EXCESS_ROUNDS : 1)
  if (roundRtt > 1.1 * minRtt + MS + <f64>ackAllowance(c) || (excess && isIntervalFlushing(c))) m.lastQueueAt = now
  if (m.state != PROBE_UP) {
    if (isRttRaised && m.queueRounds == 0) m.maxBwBeforeQueue = bandwidthOf(m)
    m.queueRounds = isRttRaised ? m.queueRounds + 1 : 0
  }
  checkMinRtt(c, m, roundRtt, now)
  updateBaseLoss(c, m)
  judgeProbe(c, m)
  if (m.state == STARTUP) {
    checkFullBwReached(c, m, roundRtt, excess, now)
  } else if (m.state != PROBE_UP && (excess || m.queueRounds >= 2) && !isAppLimited(c)) {
    reduceBandwidth(c, m)
  }
  m.baseLossTwoAgo = m.baseLossOneAgo
  m.baseLossOneAgo = m.baseLoss
  m.roundMaxBw = 0
  m.roundMinRtt = UNKNOWN
  m.roundMaxFilteredRtt = 0
  m.roundAcked = m.roundLost = m.hadTimeoutInRound = 0
  m.rmtWndAtRoundStart = c.rmtWnd
}

/**
 * A queue drains when its flows reduce their rates. If the RTT stays high, the path itself has become longer: starts
 * PROBE_RTT, and when that found a higher minimum RTT, restores the bandwidth.
 */
function checkMinRtt(c: Conversation, m: BbrModel, roundRtt: f64, now: Ticks): void {
  const path = peerPathOf(c)
  if (m.minRttRises != path.minRttRises) {
    m.minRttRises = path.minRttRises
    if (m.maxBwBeforeQueue > bandwidthOf(m)) m.maxBw = m.maxBwBeforeQueue
    m.queueRounds = 0
    return
  }
  if (m.queueRounds >= MIN_RTT_RISE_ROUNDS && bandwidthOf(m) < MIN_RTT_RISE_BW * m.maxBwBeforeQueue)
    startProbeRtt(path, <u32>roundRtt, now)
}

/** The link carries less than the model assumed. */
function reduceBandwidth(c: Conversation, m: BbrModel): void {
  const n = <f64>(m.roundAcked + m.roundLost)
  const lossRate = n > 0 ? <f64>m.roundLost / n : 0
  m.reducedFrom = max(m.reducedFrom, bandwidthOf(m))
  let rate = max(m.roundMaxBw, bandwidthOf(m) * (lossRate > m.baseLoss + COLLAPSE_LOSS ? 0.3 : 0.85))
  rate *= towardsMean(peerPathOf(c), rate, MEAN_PULL)
  m.maxBw = rate
  m.maxBwPrevious = 0
  onOverload(c)
}

/** Learns the loss of the path without a queue. */
function updateBaseLoss(c: Conversation, m: BbrModel): void {
  const n = m.roundAcked + m.roundLost
  if (n == 0 || isLossUnknown(c, m)) return
  if (m.state == STARTUP) {
    if (m.isBaseKnown) return
    if (isIntervalFlushing(c) ? m.startupAcked + m.startupLost >= INTERVAL_FLUSHING_LOSS_SAMPLE : !isQuiet(c, m)) return
    m.startupAcked += m.roundAcked
    m.startupLost += m.roundLost
    const all = m.startupAcked + m.startupLost
    if (all >= 60) m.baseLoss = m.startupLost / all
    return
  }
  if (m.state == PROBE_UP) return
  const minRtt = <f64>minRttOf(c)
  const range = <f64>max(m.maxRtt, m.maxRttPrevious) - minRtt
  const isNarrow = range < max(0.06 * minRtt, 1.5 * MS)
  if (!isNarrow && <f64>m.roundMaxFilteredRtt > minRtt + 0.35 * range) return
  m.lossSampleAcked += m.roundAcked
  m.lossSampleLost += m.roundLost
  const all = m.lossSampleAcked + m.lossSampleLost
  if (all < 100) return
  m.baseLoss += min(1, all / (isNarrow ? 1000 : 400)) * (m.lossSampleLost / all - m.baseLoss)
  m.lossSampleAcked = m.lossSampleLost = 0
}

// ---- states

function checkFullBwReached(c: Conversation, m: BbrModel, roundRtt: f64, excess: bool, now: Ticks): void {
  const rate = bandwidthOf(m)
  if (rate >= 1.25 * m.fullBw) {
    m.fullBw = rate
    m.roundsWithoutBwGrowth = 0
    return
  }
  if (excess && isIntervalFlushing(c)) {
    endStartup(m, true, now)
    return
  }
  // application-limited rounds, and rounds in which the window grew, are no evidence
  if (isAppLimited(c) || (c.rmtWnd > m.rmtWndAtRoundStart && m.rmtWndAtRoundStart != 0)) return
  const minRtt = <f64>minRttOf(c)
  const isRttRaised = roundRtt > 1.25 * minRtt + 2 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS + c.rttvar)
  // an interval-flushing peer: what the window allows should be sent before its next flush
  if (isIntervalFlushing(c) && sendLimit(c) < congestionWindow(c) && !isRttRaised && !excess) return
  m.roundsWithoutBwGrowth++
  if (
    m.roundsWithoutBwGrowth >= (isIntervalFlushing(c) ? INTERVAL_FLUSHING_MAX_ROUNDS : MAX_ROUNDS_WITHOUT_BW_GROWTH) ||
    (m.roundsWithoutBwGrowth >= 2 && (isRttRaised || excess))
  )
    endStartup(m, excess || isRttRaised, now)
}

function endStartup(m: BbrModel, isOverload: bool, now: Ticks): void {
  if (isOverload) m.baseLoss = m.baseLossTwoAgo
  m.roundsWithoutBwGrowth = 0
  enter(m, DRAIN, now)
}

function restartStartup(m: BbrModel, now: Ticks): void {
  m.fullBw = bandwidthOf(m)
  m.isBaseKnown = 1
  m.roundsWithoutBwGrowth = 0
  m.isProbeAwaited = 0
  enter(m, STARTUP, now)
}

/**
 * @returns true if STARTUP loses far more than the rounds before: the queue overflows, even if the RTT shows none. The
 *   base loss that it learns itself includes what it caused.
 */
function isOvershoot(c: Conversation, m: BbrModel): bool {
  if (m.roundAcked + m.roundLost < MIN_OVERSHOOT_SAMPLE || m.roundTripCounter < 3 || isIntervalFlushing(c)) return false
  const base = m.isBaseKnown ? m.baseLoss : m.baseLossTwoAgo
  return !isLossUnknown(c, m) && isAbove(base, c, m.roundLost, m.roundAcked, OVERSHOOT_LOSS, 3, 4)
}

function advanceState(c: Conversation, m: BbrModel, now: Ticks): void {
  const minRtt = minRttOf(c)
  const inState = now - m.stateEnteredAt
  const full = bdp(c)
  if (m.state == STARTUP) {
    const isLate =
      m.roundAcked + m.roundLost >= 64 &&
      m.roundTripCounter >= 3 &&
      <f64>filteredRtt(m) > 1.1 * <f64>minRtt + 0.5 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS) &&
      isExcessLoss(c, m, 0.05, 3, 4)
    if (isLate || isOvershoot(c, m)) endStartup(m, true, now)
  } else if (m.state == DRAIN) {
    if (<f64>c.flight <= full || inState > 3 * c.srtt) startCruise(m, now)
  } else if (m.state == PROBE_DOWN) {
    if ((inState >= minRtt && <f64>c.flight <= full) || inState > 2 * minRtt + TICKS_PER_MS) endCycle(c, m, now)
  } else if (m.state == PROBE_CRUISE) {
    const least =
      m.isShallow && m.reducedFrom == 0 ? min(SHALLOW_CRUISE_TICKS, SHALLOW_CRUISE_ROUNDS * minRtt) : MIN_CRUISE_TICKS
    if (m.roundsInState >= m.cruiseRounds && inState >= least && !isAppLimited(c) && mayProbeUp(c, m)) {
      m.maxBwAtProbeUp = bandwidthOf(m)
      onProbeUp(m, now)
      enter(m, PROBE_UP, now)
    }
  } else {
    advanceProbeUp(c, m, minRtt, inState, full, now)
  }
}

/** @returns true if a flow may probe: on a loaded path only one that has clearly less than its share */
function mayProbeUp(c: Conversation, m: BbrModel): bool {
  const path = peerPathOf(c)
  return (m.queueRounds < 2 && !path.isOverrun) || bandwidthOf(m) * <f64>path.flows < POOR_SHARE * path.claimedBw
}

function advanceProbeUp(c: Conversation, m: BbrModel, minRtt: Ticks, inState: Ticks, full: f64, now: Ticks): void {
  if (isExcessLoss(c, m, 0.02, 2.5, 2)) {
    m.hasUpFailed = 1
    reduceGain(m)
    m.probeDownAt = now
    enter(m, PROBE_DOWN, now)
    return
  }
  const isFull = inState >= minRtt && <f64>c.flight >= m.pacingGain * full
  if (!isFull && m.roundsInState < 2 && inState <= 3 * minRtt) return
  m.probeDownAt = now
  if (hasMoreBandwidth(c, m, now)) {
    increaseGain(c, m)
    restartStartup(m, now)
  } else enter(m, PROBE_DOWN, now)
}

/** @returns true for a flow with most of the bandwidth of its path */
function isSoleFlow(c: Conversation, m: BbrModel): bool {
  return m.claimedBw >= SOLE_SHARE * peerPathOf(c).claimedBw
}

/** @returns true if the path carries clearly more than assumed, without a queue */
function hasMoreBandwidth(c: Conversation, m: BbrModel, now: Ticks): bool {
  if (!isSoleFlow(c, m)) return false
  if (bandwidthOf(m) <= 1.13 * m.maxBwAtProbeUp || isExcessLoss(c, m, 0.02, 2.5, 2)) return false
  if (isIntervalFlushing(c)) return diff(now, m.lastQueueAt) > <i32>UNPACED_AFTER_TICKS
  const minRtt = longMinRtt(peerPathOf(c))
  return isQuiet(c, m) && (minRtt == UNKNOWN || <f64>filteredRtt(m) <= 1.15 * <f64>minRtt + MS)
}

/** Ends a probe cycle: samples before it are discarded. */
function endCycle(c: Conversation, m: BbrModel, now: Ticks): void {
  if (hasMoreBandwidth(c, m, now)) {
    restartStartup(m, now)
    return
  }
  if (m.maxBw != 0) {
    m.maxBwPrevious = m.maxBw
    m.maxBw = 0
  }
  m.probeEndAt = now
  startCruise(m, now)
}
