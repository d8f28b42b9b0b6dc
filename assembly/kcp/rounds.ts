/*
 * Rounds and states of automatic congestion control: what a round trip taught, and what to ask of the path next.
 *
 * Random loss does not slow it down: loss counts only above a learnt base. A standing queue, seen as an RTT floor of
 * whole rounds above that of the path, does.
 */

import { TICKS_PER_MS } from '../abi'
import { Ticks } from '../units'
import { congestionWindow, sendLimit, UNPACED_AFTER_TICKS } from './congestion'
import { Conversation } from './conversation'
import { onCapacitySample, onYield, setClaimedBw } from './fair_share'
import {
  ackAllowance,
  bandwidth,
  bdp,
  DRAIN,
  enter,
  filteredRtt,
  HOST_DELAY_TICKS,
  isIntervalFlushing,
  MAX_PACING_GAIN,
  MIN_PACING_GAIN,
  Model,
  MS,
  minRtt,
  modelOf,
  PROBE_CRUISE,
  PROBE_DOWN,
  PROBE_UP,
  peerPathOf,
  STARTUP,
  startCruise,
} from './model'
import { longMinRtt, startProbeRtt, UNKNOWN } from './peer_path'
import { isAppLimited } from './rate'
import { diff } from './segment'

const PACING_GAIN_STEP: f64 = 0.02
/** A flow with less than this part of its path's rate does not start anew for more: what it found is likely another's. */
const SOLE_SHARE: f64 = 0.8
const MAX_SHARED_PACING_GAIN: f64 = 1.15
/** Pull of a flow that must yield towards the mean of its path. */
const MEAN_PULL: f64 = 0.25
/** A flow with less than this part of the mean of its path is poor. */
const POOR_SHARE: f64 = 0.8
/** Loss so far above the base is a collapse of the link's rate. */
const COLLAPSE_LOSS: f64 = 0.25
const MIN_CRUISE_TICKS: Ticks = 20 * TICKS_PER_MS
/** So many hot rounds, and a rate yielded to this part, without a lower RTT: the floor may have risen. */
const MIN_RTT_RISE_ROUNDS: u32 = 4
const MIN_RTT_RISE_BW: f64 = 0.7
/** Rounds without a faster rate that end the start; a tick may pass without a word. */
const MAX_ROUNDS_WITHOUT_BW_GROWTH: u32 = 3
const INTERVAL_FLUSHING_MAX_ROUNDS: u32 = 8
/** Segments of its start that tell the base loss of a ticking peer's path: its ACKs do not show when a queue begins. */
const INTERVAL_FLUSHING_LOSS_SAMPLE: f64 = 256
/** ACKs that the original puts into a datagram. */
const INTERVAL_FLUSHING_ACKS: f64 = 55
/** Rounds in a row of excessive loss that make a ticking peer's path count as overloaded. */
const INTERVAL_FLUSHING_EXCESS_ROUNDS: u32 = 2

// ---- rounds

/** To be called after a receive batch, when losses have been looked for. */
export function updateCongestion(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  if (m.hasRoundEnded) {
    endRound(c, m, now)
    m.nextRoundDelivered = c.delivered
    m.hasRoundEnded = 0
  }
  advanceState(c, m, now)
  // who has nothing in flight and nothing to send claims no part of the path
  const isIdle = c.flight == 0 && c.lost == 0 && c.sndEnd == c.sndNxt
  if (m.claimedBw != 0) setClaimedBw(c, isIdle ? 0 : bandwidth(m))
  onCapacitySample(c, m, now, sendLimit(c) >= congestionWindow(c))
}

/**
 * After a silence, what counts as lost may be ACKs that a ticking peer says once, or did before it was known as one:
 * such a round tells nothing of loss.
 */
function isLossUnknown(c: Conversation, m: Model): bool {
  return m.hadTimeoutInRound != 0 && (m.state == STARTUP || isIntervalFlushing(c))
}

/**
 * True if more was lost than the base explains: by share, and by chance. A peer that ticks says each ACK once, many at
 * a time: one lost datagram of ACKs looks like so many lost segments.
 */
function isExcess(c: Conversation, m: Model, share: f64, chance: f64, least: f64): bool {
  if (isLossUnknown(c, m)) return false
  const n = <f64>(m.roundAcked + m.roundLost)
  const expected = m.baseLoss * n
  const bunch = isIntervalFlushing(c) ? INTERVAL_FLUSHING_ACKS : 1
  return <f64>m.roundLost > expected + share * n + chance * Math.sqrt(max(1, expected) * bunch) + least
}

function isQuiet(c: Conversation, m: Model): bool {
  const floor = <f64>minRtt(c)
  return <f64>m.roundMinRtt <= 1.05 * floor + 0.5 * MS && <f64>m.roundMaxFilteredRtt <= 1.15 * floor + MS
}

function endRound(c: Conversation, m: Model, now: Ticks): void {
  m.roundTripCounter++
  m.roundsInState++
  const floor = <f64>minRtt(c)
  const least = m.roundMinRtt == UNKNOWN ? floor : <f64>m.roundMinRtt
  const delay = <f64>(ackAllowance(c) + HOST_DELAY_TICKS)
  const isRaised = least > 1.1 * floor + MS + delay && bandwidth(m) * (least - floor) > 4
  m.excessLossRounds = isExcess(c, m, 0.02, 2.5, 2) ? m.excessLossRounds + 1 : 0
  const excess = m.excessLossRounds >= (isIntervalFlushing(c) ? INTERVAL_FLUSHING_EXCESS_ROUNDS : 1)
  if (least > 1.1 * floor + MS + <f64>ackAllowance(c) || (excess && isIntervalFlushing(c))) m.lastQueueAt = now
  if (m.state != PROBE_UP) {
    if (isRaised && m.queueRounds == 0) m.maxBwBeforeQueue = bandwidth(m)
    m.queueRounds = isRaised ? m.queueRounds + 1 : 0
  }
  onMinRttRise(c, m, least, now)
  learnLoss(c, m)
  if (m.state == STARTUP) {
    checkStartupFull(c, m, least, excess, now)
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
 * A queue drains when its flows yield. If the RTT stays up all the same the path itself has become longer: the floor is
 * looked for, and what was yielded for nothing is taken back.
 */
function onMinRttRise(c: Conversation, m: Model, least: f64, now: Ticks): void {
  const path = peerPathOf(c)
  if (m.minRttRises != path.minRttRises) {
    m.minRttRises = path.minRttRises
    if (m.maxBwBeforeQueue > bandwidth(m)) m.maxBw = m.maxBwBeforeQueue
    m.queueRounds = 0
    return
  }
  if (m.queueRounds >= MIN_RTT_RISE_ROUNDS && bandwidth(m) < MIN_RTT_RISE_BW * m.maxBwBeforeQueue)
    startProbeRtt(path, <u32>least, now)
}

/** The link carries less than the model believed. */
function reduceBandwidth(c: Conversation, m: Model): void {
  const n = <f64>(m.roundAcked + m.roundLost)
  const lossRate = n > 0 ? <f64>m.roundLost / n : 0
  let rate = max(m.roundMaxBw, bandwidth(m) * (lossRate > m.baseLoss + COLLAPSE_LOSS ? 0.3 : 0.85))
  const path = peerPathOf(c)
  if (path.flows > 1) rate += MEAN_PULL * (path.claimedBw / <f64>path.flows - rate)
  m.maxBw = rate
  m.maxBwPrevious = 0
  onYield(c)
}

/** The loss that the path shows without a queue. */
function learnLoss(c: Conversation, m: Model): void {
  const n = m.roundAcked + m.roundLost
  if (n == 0 || isLossUnknown(c, m)) return
  if (m.state == STARTUP) {
    if (isIntervalFlushing(c) ? m.startupAcked + m.startupLost >= INTERVAL_FLUSHING_LOSS_SAMPLE : !isQuiet(c, m)) return
    m.startupAcked += m.roundAcked
    m.startupLost += m.roundLost
    const all = m.startupAcked + m.startupLost
    if (all >= 60) m.baseLoss = m.startupLost / all
    return
  }
  if (m.state == PROBE_UP) return
  const floor = <f64>minRtt(c)
  const range = <f64>max(m.maxRtt, m.maxRttPrevious) - floor
  const isNarrow = range < max(0.06 * floor, 1.5 * MS)
  if (!isNarrow && <f64>m.roundMaxFilteredRtt > floor + 0.35 * range) return
  m.lossSampleAcked += m.roundAcked
  m.lossSampleLost += m.roundLost
  const all = m.lossSampleAcked + m.lossSampleLost
  if (all < 100) return
  m.baseLoss += min(1, all / (isNarrow ? 1000 : 400)) * (m.lossSampleLost / all - m.baseLoss)
  m.lossSampleAcked = m.lossSampleLost = 0
}

// ---- states

function checkStartupFull(c: Conversation, m: Model, least: f64, excess: bool, now: Ticks): void {
  const rate = bandwidth(m)
  if (rate >= 1.25 * m.fullBw) {
    m.fullBw = rate
    m.roundsWithoutBwGrowth = 0
    return
  }
  if (excess && isIntervalFlushing(c)) {
    endStartup(m, true, now)
    return
  }
  // rounds short of data, or whose window just grew, tell nothing
  if (isAppLimited(c) || (c.rmtWnd > m.rmtWndAtRoundStart && m.rmtWndAtRoundStart != 0)) return
  const floor = <f64>minRtt(c)
  const isRaised = least > 1.25 * floor + 2 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS + c.rttvar)
  // what the window allows had better leave before the next tick of a peer that ticks
  if (isIntervalFlushing(c) && sendLimit(c) < congestionWindow(c) && !isRaised && !excess) return
  m.roundsWithoutBwGrowth++
  if (
    m.roundsWithoutBwGrowth >= (isIntervalFlushing(c) ? INTERVAL_FLUSHING_MAX_ROUNDS : MAX_ROUNDS_WITHOUT_BW_GROWTH) ||
    (m.roundsWithoutBwGrowth >= 2 && (isRaised || excess))
  )
    endStartup(m, excess || isRaised, now)
}

function endStartup(m: Model, isOverload: bool, now: Ticks): void {
  if (isOverload) m.baseLoss = m.baseLossTwoAgo
  m.roundsWithoutBwGrowth = 0
  enter(m, DRAIN, now)
}

function restartStartup(m: Model, now: Ticks): void {
  m.fullBw = bandwidth(m)
  m.startupAcked = m.startupLost = 0
  m.roundsWithoutBwGrowth = 0
  enter(m, STARTUP, now)
}

function advanceState(c: Conversation, m: Model, now: Ticks): void {
  const floor = minRtt(c)
  const inState = now - m.stateEnteredAt
  const full = bdp(c)
  if (m.state == STARTUP) {
    const isLate =
      m.roundAcked + m.roundLost >= 64 &&
      m.roundTripCounter >= 3 &&
      <f64>filteredRtt(m) > 1.1 * <f64>floor + 0.5 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS) &&
      isExcess(c, m, 0.05, 3, 4)
    if (isLate) endStartup(m, true, now)
  } else if (m.state == DRAIN) {
    if (<f64>c.flight <= full || inState > 3 * c.srtt) startCruise(m, now)
  } else if (m.state == PROBE_DOWN) {
    if ((inState >= floor && <f64>c.flight <= full) || inState > 2 * floor + TICKS_PER_MS) endCycle(c, m, now)
  } else if (m.state == PROBE_CRUISE) {
    if (m.roundsInState >= m.cruiseRounds && inState >= MIN_CRUISE_TICKS && !isAppLimited(c) && mayProbeUp(c, m)) {
      m.maxBwAtProbeUp = bandwidth(m)
      enter(m, PROBE_UP, now)
    }
  } else {
    advanceProbeUp(c, m, floor, inState, full, now)
  }
}

/** On a loaded path only a flow that has clearly less than its share asks for more. */
function mayProbeUp(c: Conversation, m: Model): bool {
  const path = peerPathOf(c)
  return m.queueRounds < 2 || bandwidth(m) * <f64>path.flows < POOR_SHARE * path.claimedBw
}

function advanceProbeUp(c: Conversation, m: Model, floor: Ticks, inState: Ticks, full: f64, now: Ticks): void {
  if (isExcess(c, m, 0.02, 2.5, 2)) {
    m.pacingGain = max(MIN_PACING_GAIN, 1 + (m.pacingGain - 1) / 2)
    enter(m, PROBE_DOWN, now)
    return
  }
  const isFull = inState >= floor && <f64>c.flight >= m.pacingGain * full
  if (!isFull && m.roundsInState < 2 && inState <= 3 * floor) return
  m.pacingGain = min(isSoleFlow(c, m) ? MAX_PACING_GAIN : MAX_SHARED_PACING_GAIN, m.pacingGain + PACING_GAIN_STEP)
  if (hasMoreBandwidth(c, m, now)) restartStartup(m, now)
  else enter(m, PROBE_DOWN, now)
}

/** True for a flow that has most of what its path carries. */
function isSoleFlow(c: Conversation, m: Model): bool {
  return m.claimedBw >= SOLE_SHARE * peerPathOf(c).claimedBw
}

/** True if the path turned out to carry clearly more, and no queue says otherwise. */
function hasMoreBandwidth(c: Conversation, m: Model, now: Ticks): bool {
  if (!isSoleFlow(c, m)) return false
  if (bandwidth(m) <= 1.13 * m.maxBwAtProbeUp || isExcess(c, m, 0.02, 2.5, 2)) return false
  if (isIntervalFlushing(c)) return diff(now, m.lastQueueAt) > <i32>UNPACED_AFTER_TICKS
  const floor = longMinRtt(peerPathOf(c))
  return isQuiet(c, m) && (floor == UNKNOWN || <f64>filteredRtt(m) <= 1.15 * <f64>floor + MS)
}

/** The end of a probe cycle: samples older than it are forgotten. */
function endCycle(c: Conversation, m: Model, now: Ticks): void {
  if (hasMoreBandwidth(c, m, now)) {
    restartStartup(m, now)
    return
  }
  if (m.maxBw != 0) {
    m.maxBwPrevious = m.maxBw
    m.maxBw = 0
  }
  startCruise(m, now)
}
