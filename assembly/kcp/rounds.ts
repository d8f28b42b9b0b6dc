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
import {
  ackAllowance,
  bdp,
  CRUISE,
  DOWN,
  DRAIN,
  enter,
  HOST_DELAY_TICKS,
  isTicking,
  leastOfEight,
  MAX_UP,
  MIN_UP,
  Model,
  MS,
  modelOf,
  pathOf,
  rateOf,
  rttFloor,
  STARTUP,
  startCruise,
  UP,
} from './model'
import { longFloor, probeFloor, UNKNOWN } from './path'
import { isDataLimited } from './rate'
import { diff } from './segment'
import { noteCapacity, noteYield, setShare } from './share'

const UP_STEP: f64 = 0.02
/** A flow with less than this part of its path's rate does not start anew for more: what it found is likely another's. */
const SOLE_SHARE: f64 = 0.8
const MAX_SHARED_UP: f64 = 1.15
/** Pull of a flow that must yield towards the mean of its path. */
const MEAN_PULL: f64 = 0.25
/** A flow with less than this part of the mean of its path is poor. */
const POOR_SHARE: f64 = 0.8
/** Loss so far above the base is a collapse of the link's rate. */
const COLLAPSE_LOSS: f64 = 0.25
const MIN_CRUISE_TICKS: Ticks = 20 * TICKS_PER_MS
/** So many hot rounds, and a rate yielded to this part, without a lower RTT: the floor may have risen. */
const STUBBORN_ROUNDS: u32 = 4
const STUBBORN_RATE: f64 = 0.7
/** Rounds without a faster rate that end the start; a tick may pass without a word. */
const FLAT_ROUNDS: u32 = 3
const TICKING_FLAT_ROUNDS: u32 = 8
/** Segments of its start that tell the base loss of a ticking peer's path: its ACKs do not show when a queue begins. */
const TICKING_BASE: f64 = 256
/** ACKs that the original puts into a datagram. */
const TICKING_ACKS: f64 = 55
/** Rounds in a row of excessive loss that make a ticking peer's path count as overloaded. */
const TICKING_EXCESS_ROUNDS: u32 = 2

// ---- rounds

/** To be called after a receive batch, when losses have been looked for. */
export function updateCongestion(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  if (m.isRoundOver) {
    endRound(c, m, now)
    m.roundEnd = c.delivered
    m.isRoundOver = 0
  }
  advanceState(c, m, now)
  // who has nothing in flight and nothing to send claims no part of the path
  const isIdle = c.flight == 0 && c.lost == 0 && c.sndEnd == c.sndNxt
  if (m.share != 0) setShare(c, isIdle ? 0 : rateOf(m))
  noteCapacity(c, m, now, sendLimit(c) >= congestionWindow(c))
}

/**
 * After a silence, what counts as lost may be ACKs that a ticking peer says once, or did before it was known as one:
 * such a round tells nothing of loss.
 */
function isUntold(c: Conversation, m: Model): bool {
  return m.isSilent != 0 && (m.state == STARTUP || isTicking(c))
}

/**
 * True if more was lost than the base explains: by share, and by chance. A peer that ticks says each ACK once, many at
 * a time: one lost datagram of ACKs looks like so many lost segments.
 */
function isExcess(c: Conversation, m: Model, share: f64, chance: f64, least: f64): bool {
  if (isUntold(c, m)) return false
  const n = <f64>(m.acked + m.lost)
  const expected = m.loss * n
  const bunch = isTicking(c) ? TICKING_ACKS : 1
  return <f64>m.lost > expected + share * n + chance * Math.sqrt(max(1, expected) * bunch) + least
}

function isQuiet(c: Conversation, m: Model): bool {
  const floor = <f64>rttFloor(c)
  return <f64>m.roundLeast <= 1.05 * floor + 0.5 * MS && <f64>m.roundMost <= 1.15 * floor + MS
}

function endRound(c: Conversation, m: Model, now: Ticks): void {
  m.rounds++
  m.stateRounds++
  const floor = <f64>rttFloor(c)
  const least = m.roundLeast == UNKNOWN ? floor : <f64>m.roundLeast
  const delay = <f64>(ackAllowance(c) + HOST_DELAY_TICKS)
  const isRaised = least > 1.1 * floor + MS + delay && rateOf(m) * (least - floor) > 4
  m.excessRounds = isExcess(c, m, 0.02, 2.5, 2) ? m.excessRounds + 1 : 0
  const excess = m.excessRounds >= (isTicking(c) ? TICKING_EXCESS_ROUNDS : 1)
  if (least > 1.1 * floor + MS + <f64>ackAllowance(c) || (excess && isTicking(c))) m.queueAt = now
  if (m.state != UP) {
    if (isRaised && m.hot == 0) m.rateCool = rateOf(m)
    m.hot = isRaised ? m.hot + 1 : 0
  }
  followFloor(c, m, least, now)
  learnLoss(c, m)
  if (m.state == STARTUP) {
    judgeStartup(c, m, least, excess, now)
  } else if (m.state != UP && (excess || m.hot >= 2) && !isDataLimited(c)) {
    yieldRate(c, m)
  }
  m.lossTwo = m.lossOne
  m.lossOne = m.loss
  m.roundRate = 0
  m.roundLeast = UNKNOWN
  m.roundMost = 0
  m.acked = m.lost = m.isSilent = 0
  m.windowAtRound = c.rmtWnd
}

/**
 * A queue drains when its flows yield. If the RTT stays up all the same the path itself has become longer: the floor is
 * looked for, and what was yielded for nothing is taken back.
 */
function followFloor(c: Conversation, m: Model, least: f64, now: Ticks): void {
  const path = pathOf(c)
  if (m.raised != path.raised) {
    m.raised = path.raised
    if (m.rateCool > rateOf(m)) m.rate = m.rateCool
    m.hot = 0
    return
  }
  if (m.hot >= STUBBORN_ROUNDS && rateOf(m) < STUBBORN_RATE * m.rateCool) probeFloor(path, <u32>least, now)
}

/** The link carries less than the model believed. */
function yieldRate(c: Conversation, m: Model): void {
  const n = <f64>(m.acked + m.lost)
  const lossRate = n > 0 ? <f64>m.lost / n : 0
  let rate = max(m.roundRate, rateOf(m) * (lossRate > m.loss + COLLAPSE_LOSS ? 0.3 : 0.85))
  const path = pathOf(c)
  if (path.flows > 1) rate += MEAN_PULL * (path.rates / <f64>path.flows - rate)
  m.rate = rate
  m.rateBefore = 0
  noteYield(c)
}

/** The loss that the path shows without a queue. */
function learnLoss(c: Conversation, m: Model): void {
  const n = m.acked + m.lost
  if (n == 0 || isUntold(c, m)) return
  if (m.state == STARTUP) {
    if (isTicking(c) ? m.startupAcked + m.startupLost >= TICKING_BASE : !isQuiet(c, m)) return
    m.startupAcked += m.acked
    m.startupLost += m.lost
    const all = m.startupAcked + m.startupLost
    if (all >= 60) m.loss = m.startupLost / all
    return
  }
  if (m.state == UP) return
  const floor = <f64>rttFloor(c)
  const range = <f64>max(m.rangeNow, m.rangeBefore) - floor
  const isNarrow = range < max(0.06 * floor, 1.5 * MS)
  if (!isNarrow && <f64>m.roundMost > floor + 0.35 * range) return
  m.baseAcked += m.acked
  m.baseLost += m.lost
  const all = m.baseAcked + m.baseLost
  if (all < 100) return
  m.loss += min(1, all / (isNarrow ? 1000 : 400)) * (m.baseLost / all - m.loss)
  m.baseAcked = m.baseLost = 0
}

// ---- states

function judgeStartup(c: Conversation, m: Model, least: f64, excess: bool, now: Ticks): void {
  const rate = rateOf(m)
  if (rate >= 1.25 * m.startupRate) {
    m.startupRate = rate
    m.flatRounds = 0
    return
  }
  if (excess && isTicking(c)) {
    endStartup(m, true, now)
    return
  }
  // rounds short of data, or whose window just grew, tell nothing
  if (isDataLimited(c) || (c.rmtWnd > m.windowAtRound && m.windowAtRound != 0)) return
  const floor = <f64>rttFloor(c)
  const isRaised = least > 1.25 * floor + 2 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS + c.rttvar)
  // what the window allows had better leave before the next tick of a peer that ticks
  if (isTicking(c) && sendLimit(c) < congestionWindow(c) && !isRaised && !excess) return
  m.flatRounds++
  if (m.flatRounds >= (isTicking(c) ? TICKING_FLAT_ROUNDS : FLAT_ROUNDS) || (m.flatRounds >= 2 && (isRaised || excess)))
    endStartup(m, excess || isRaised, now)
}

function endStartup(m: Model, isOverload: bool, now: Ticks): void {
  if (isOverload) m.loss = m.lossTwo
  m.flatRounds = 0
  enter(m, DRAIN, now)
}

function restartStartup(m: Model, now: Ticks): void {
  m.startupRate = rateOf(m)
  m.startupAcked = m.startupLost = 0
  m.flatRounds = 0
  enter(m, STARTUP, now)
}

function advanceState(c: Conversation, m: Model, now: Ticks): void {
  const floor = rttFloor(c)
  const inState = now - m.stateAt
  const full = bdp(c)
  if (m.state == STARTUP) {
    const isLate =
      m.acked + m.lost >= 64 &&
      m.rounds >= 3 &&
      <f64>leastOfEight(m) > 1.1 * <f64>floor + 0.5 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS) &&
      isExcess(c, m, 0.05, 3, 4)
    if (isLate) endStartup(m, true, now)
  } else if (m.state == DRAIN) {
    if (<f64>c.flight <= full || inState > 3 * c.srtt) startCruise(m, now)
  } else if (m.state == DOWN) {
    if ((inState >= floor && <f64>c.flight <= full) || inState > 2 * floor + TICKS_PER_MS) endCycle(c, m, now)
  } else if (m.state == CRUISE) {
    if (m.stateRounds >= m.cruiseRounds && inState >= MIN_CRUISE_TICKS && !isDataLimited(c) && mayProbeUp(c, m)) {
      m.rateAtUp = rateOf(m)
      enter(m, UP, now)
    }
  } else {
    advanceUp(c, m, floor, inState, full, now)
  }
}

/** On a loaded path only a flow that has clearly less than its share asks for more. */
function mayProbeUp(c: Conversation, m: Model): bool {
  const path = pathOf(c)
  return m.hot < 2 || rateOf(m) * <f64>path.flows < POOR_SHARE * path.rates
}

function advanceUp(c: Conversation, m: Model, floor: Ticks, inState: Ticks, full: f64, now: Ticks): void {
  if (isExcess(c, m, 0.02, 2.5, 2)) {
    m.up = max(MIN_UP, 1 + (m.up - 1) / 2)
    enter(m, DOWN, now)
    return
  }
  const isFull = inState >= floor && <f64>c.flight >= m.up * full
  if (!isFull && m.stateRounds < 2 && inState <= 3 * floor) return
  m.up = min(isAlone(c, m) ? MAX_UP : MAX_SHARED_UP, m.up + UP_STEP)
  if (isFaster(c, m, now)) restartStartup(m, now)
  else enter(m, DOWN, now)
}

/** True for a flow that has most of what its path carries. */
function isAlone(c: Conversation, m: Model): bool {
  return m.share >= SOLE_SHARE * pathOf(c).rates
}

/** True if the path turned out to carry clearly more, and no queue says otherwise. */
function isFaster(c: Conversation, m: Model, now: Ticks): bool {
  if (!isAlone(c, m)) return false
  if (rateOf(m) <= 1.13 * m.rateAtUp || isExcess(c, m, 0.02, 2.5, 2)) return false
  if (isTicking(c)) return diff(now, m.queueAt) > <i32>UNPACED_AFTER_TICKS
  const floor = longFloor(pathOf(c))
  return isQuiet(c, m) && (floor == UNKNOWN || <f64>leastOfEight(m) <= 1.15 * <f64>floor + MS)
}

/** The end of a probe cycle: samples older than it are forgotten. */
function endCycle(c: Conversation, m: Model, now: Ticks): void {
  if (isFaster(c, m, now)) {
    restartStartup(m, now)
    return
  }
  if (m.rate != 0) {
    m.rateBefore = m.rate
    m.rate = 0
  }
  startCruise(m, now)
}
