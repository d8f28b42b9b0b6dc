/*
 * What automatic congestion control knows of a conversation: its rate, the RTTs of this round, the base loss, the delay
 * of the peer's ACKs. rounds.ts draws the conclusions, congestion.ts acts on them.
 *
 * Rates are segments per tick, as f64: WASM floats are the same on every host.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'
import { Path, UNKNOWN } from './path'
import { isDataLimited, sampleInterval } from './rate'
import { diff } from './segment'

/** States: the fast start, its queue drained, and the cycle of asking for less, as much, more. */
export const STARTUP: u32 = 0
export const DRAIN: u32 = 1
export const DOWN: u32 = 2
export const CRUISE: u32 = 3
export const UP: u32 = 4

export const MS: f64 = TICKS_PER_MS
/** What hosts add to an RTT by waking late and working in batches. */
export const HOST_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
/** The most and the least that UP asks for. */
export const MAX_UP: f64 = 1.25
export const MIN_UP: f64 = 1.05
/** Memory of the RTT range and of the ACK delay: two halves of this. */
const HALF_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** Silences below this are no ACK delay. */
const MIN_ACK_DELAY_TICKS: Ticks = 20 * TICKS_PER_MS
const MIN_ACK_DELAY_COUNT: u32 = 2

@unmanaged
export class Model {
  // rate: best sample of this probe cycle and of the last; before the last UP
  rate: f64
  rateBefore: f64
  rateAtUp: f64
  // rate when the path became hot
  rateCool: f64
  share: f64
  // product of the path that this flow has followed; samples of what left before this time tell of the rate it had
  cut: f64
  isHeld: u32
  heldUntil: Ticks
  // base loss now, one and two rounds ago
  loss: f64
  lossOne: f64
  lossTwo: f64
  up: f64
  // fraction of a tick of the time the next segment may leave
  paceFraction: f64
  // this round
  roundRate: f64
  startupRate: f64
  startupLost: f64
  startupAcked: f64
  baseLost: f64
  baseAcked: f64
  paceAt: Ticks
  isPaced: u32
  state: u32
  stateAt: Ticks
  stateRounds: u32
  cruiseRounds: u32
  rounds: u32
  roundEnd: u32
  isRoundOver: u32
  roundLeast: Ticks
  roundMost: Ticks
  acked: u32
  lost: u32
  flatRounds: u32
  hot: u32
  excessRounds: u32
  raised: u32
  random: u32
  queueAt: Ticks
  windowAtRound: u32
  // the last 8 RTTs
  rtts: u64
  rtts2: u64
  rtts3: u64
  rtts4: u64
  rttCount: u32
  // greatest RTT of this half and the one before
  rangeAt: Ticks
  rangeNow: Ticks
  rangeBefore: Ticks
  // ACK delay likewise
  delayAt: Ticks
  delayNow: Ticks
  delayBefore: Ticks
  delayCount: u32
  delayCountBefore: u32
  lastAckAt: Ticks
  wasProbed: u32
  // nothing was heard in this round for the probe timeout
  isSilent: u32
}

export function modelOf(c: Conversation): Model {
  return changetype<Model>(c.model)
}

export function pathOf(c: Conversation): Path {
  return changetype<Path>(c.path)
}

/** RTT floor in ticks, at least 1; the smoothed RTT without a path record. */
export function rttFloor(c: Conversation): Ticks {
  if (!c.path) return max<u32>(1, c.srtt)
  const floor = pathOf(c).floor
  return floor == UNKNOWN ? max<u32>(1, c.srtt) : max<u32>(1, floor)
}

/** How long the peer takes to acknowledge beyond the path: the tick of an original. */
export function ackAllowance(c: Conversation): Ticks {
  if (!c.model) return 0
  const m = modelOf(c)
  return m.delayCount + m.delayCountBefore < MIN_ACK_DELAY_COUNT ? 0 : max(m.delayNow, m.delayBefore)
}

/** True if the peer acknowledges at ticks, as an original does. */
export function isTicking(c: Conversation): bool {
  return ackAllowance(c) != 0
}

/** True while the path shows more load than it carries. */
export function isHot(c: Conversation): bool {
  return c.model != 0 && modelOf(c).hot >= 2
}

export function rateOf(m: Model): f64 {
  return max(m.rate, m.rateBefore)
}

/** Segments that fill the path at the model's rate. */
export function bdp(c: Conversation): f64 {
  return rateOf(modelOf(c)) * <f64>rttFloor(c)
}

export function enter(m: Model, state: u32, now: Ticks): void {
  m.state = state
  m.stateAt = now
  m.stateRounds = 0
}

/** Cruises for 3 to 6 rounds, so that flows do not probe in step. */
export function startCruise(m: Model, now: Ticks): void {
  m.random = m.random * 1664525 + 1013904223
  m.cruiseRounds = 3 + ((m.random >> 16) % 4)
  enter(m, CRUISE, now)
}

/** Takes in the rate that a datagram's ACKs tell of. */
export function takeSample(c: Conversation, m: Model): void {
  if (diff(c.sampleDelivered, m.roundEnd) >= 0) m.isRoundOver = 1
  if (m.isHeld) {
    if (diff(c.sampleSentAt, m.heldUntil) < 0) return
    m.isHeld = 0
  }
  const interval = sampleInterval(c)
  const floor = <f64>rttFloor(c)
  if (interval == 0 || <f64>interval < 0.9 * floor) return
  const rate = <f64>(c.delivered - c.sampleDelivered) / <f64>interval
  if (isDataLimited(c) && rate <= rateOf(m)) return
  m.rate = max(m.rate, rate)
  m.roundRate = max(m.roundRate, rate)
}

/** Takes in an RTT: least of the round, least of the last 8 and the greatest of those, range of the last seconds. */
export function noteRtt(m: Model, rtt: Ticks, now: Ticks): void {
  const rtts = changetype<usize>(m) + offsetof<Model>('rtts')
  store<u32>(rtts + ((<usize>(m.rttCount & 7)) << 2), rtt)
  m.rttCount++
  m.roundLeast = min(m.roundLeast, rtt)
  m.roundMost = max(m.roundMost, leastOfEight(m))
  if (now - m.rangeAt >= HALF_TICKS) {
    m.rangeBefore = m.rangeNow
    m.rangeNow = 0
    m.rangeAt = now
  }
  m.rangeNow = max(m.rangeNow, rtt)
}

export function leastOfEight(m: Model): Ticks {
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
export function noteAckDelay(c: Conversation, m: Model, span: Ticks, now: Ticks): void {
  if (now - m.delayAt >= HALF_TICKS) {
    m.delayBefore = m.delayNow
    m.delayCountBefore = m.delayCount
    m.delayNow = m.delayCount = 0
    m.delayAt = now
  }
  const waited = max<i32>(0, <i32>(c.sampleRtt + span - rttFloor(c)))
  const silence = min(now - m.lastAckAt, <u32>waited)
  if (silence >= MIN_ACK_DELAY_TICKS && (span >= MIN_ACK_DELAY_TICKS || isTicking(c)) && !m.wasProbed) {
    m.delayNow = max(m.delayNow, silence)
    m.delayCount++
    // what looked like a rate that does not grow was the tick
    if (m.delayCount + m.delayCountBefore == MIN_ACK_DELAY_COUNT) m.flatRounds = 0
  }
  m.wasProbed = 0
}
