/*
 * Congestion control: how much may be in flight and how fast it leaves.
 *
 * Automatic (`nc` unset): a model of the path, its rate and its RTT floor, with pacing, in the manner of BBR. Random loss does not slow it down: loss counts only above a learnt base.
 * A standing queue, seen as an RTT floor of whole rounds above that of the path, does. `nc` 1 is no control but the windows, `nc` 0 the classic window.
 *
 * Rates are segments per tick, as f64: WASM floats are the same on every host.
 */
import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER } from '../clock'
import { alloc, classOf, free } from '../memory/slab'
import { growClassic, halveClassic, restartClassic } from './classic'
import { Conversation, congestionMode, NC_AUTOMATIC, NC_CLASSIC } from './conversation'
import { joinPath, leavePath, longFloor, notePathRtt, Path, pathLimit, probeFloor, UNKNOWN } from './path'
import { isDataLimited, sampleInterval } from './rate'
import { diff, HEADER_BYTES } from './segment'

const STARTUP: u32 = 0
const DRAIN: u32 = 1
const DOWN: u32 = 2
const CRUISE: u32 = 3
const UP: u32 = 4

const MS: f64 = TICKS_PER_MS
const STARTUP_GAIN: f64 = 2.77
const INITIAL_CWND: u32 = 32
const MIN_CWND: u32 = 4
const MAX_UP: f64 = 1.25
const MIN_UP: f64 = 1.05
const UP_STEP: f64 = 0.02
/** The pace in a round that follows two hot ones. */
const GUARD: f64 = 0.95
/** Pull of a flow that must yield towards the mean of its path. */
const MEAN_PULL: f64 = 0.25
/** A flow with less than this part of the mean of its path is poor. */
const POOR_SHARE: f64 = 0.8
/** Loss so far above the base is a collapse of the link's rate. */
const COLLAPSE_LOSS: f64 = 0.25
const MIN_CRUISE_TICKS: u32 = 20 * TICKS_PER_MS
/** Memory of the RTT range and of the ACK delay: two halves of this. */
const HALF_TICKS: u32 = 5 * TICKS_PER_SECOND
/** So many hot rounds, and a rate yielded to this part, without a lower RTT: the floor may have risen. */
const STUBBORN_ROUNDS: u32 = 4
const STUBBORN_RATE: f64 = 0.7
/** Rounds in a row of excessive loss that make a ticking peer's path count as overloaded. */
const TICKING_EXCESS_ROUNDS: u32 = 2
/** Silences below this are no ACK delay. */
const MIN_ACK_DELAY_TICKS: u32 = 8 * TICKS_PER_MS
const MIN_ACK_DELAY_COUNT: u32 = 4
/** A host that wakes late may catch up so much of the pace, if pacing was what it waited for; else one tick. */
const MAX_CATCH_UP_TICKS: u32 = 4 * TICKS_PER_MS
/** Without a queue for so long, a flow that only the window limits need not be paced. */
const UNPACED_AFTER_TICKS: u32 = 10 * TICKS_PER_SECOND
/** What hosts add to an RTT by waking late and working in batches. */
const HOST_DELAY_TICKS: u32 = 1 * TICKS_PER_MS

@unmanaged
class Model {
  // rate: best sample of this probe cycle and of the last; before the last UP
  rate: f64
  rateBefore: f64
  rateAtUp: f64
  // rate when the path became hot
  rateCool: f64
  share: f64
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
  paceAt: u32
  isPaced: u32
  state: u32
  stateAt: u32
  stateRounds: u32
  cruiseRounds: u32
  rounds: u32
  roundEnd: u32
  roundLeast: u32
  roundMost: u32
  acked: u32
  lost: u32
  flatRounds: u32
  hot: u32
  excessRounds: u32
  raised: u32
  random: u32
  queueAt: u32
  windowAtRound: u32
  // the last 8 RTTs
  rtts: u64
  rtts2: u64
  rtts3: u64
  rtts4: u64
  rttCount: u32
  // greatest RTT of this half and the one before
  rangeAt: u32
  rangeNow: u32
  rangeBefore: u32
  // ACK delay likewise
  delayAt: u32
  delayNow: u32
  delayBefore: u32
  delayCount: u32
  delayCountBefore: u32
  lastAckAt: u32
  wasProbed: u32
}

function modelOf(c: Conversation): Model {
  return changetype<Model>(c.model)
}

function pathOf(c: Conversation): Path {
  return changetype<Path>(c.path)
}

/** Starts control of a conversation with the peer at `address`. Without memory it goes without a model: the windows alone hold. */
export function openCongestion(c: Conversation, address: usize, now: u32): void {
  if (congestionMode != NC_AUTOMATIC) return
  c.path = joinPath(address, now)
  if (!c.path) return
  const cls = classOf(offsetof<Model>())
  c.model = alloc(cls)
  if (!c.model) {
    closeCongestion(c)
    return
  }
  memory.fill(c.model, 0, (<usize>1) << cls)
  const m = modelOf(c)
  m.up = MAX_UP
  m.random = c.conv
  m.raised = pathOf(c).raised
  const limit = pathLimit(address, now)
  if (limit != 0 && limit - HEADER_BYTES < c.mss) c.mss = limit - HEADER_BYTES
  m.roundLeast = UNKNOWN
  m.stateAt = m.rangeAt = m.delayAt = m.lastAckAt = m.queueAt = m.paceAt = now
}

export function closeCongestion(c: Conversation): void {
  if (c.model) {
    setShare(c, 0)
    free(c.model, classOf(offsetof<Model>()))
  }
  if (c.path) leavePath(c.path)
  c.model = c.path = 0
}

// ---- what others ask

/** RTT floor in ticks, at least 1; the smoothed RTT without a path record. */
export function rttFloor(c: Conversation): u32 {
  if (!c.path) return max<u32>(1, c.srtt)
  const floor = pathOf(c).floor
  return floor == UNKNOWN ? max<u32>(1, c.srtt) : max<u32>(1, floor)
}

/** How long the peer takes to acknowledge beyond the path: the tick of an original. */
export function ackAllowance(c: Conversation): u32 {
  if (!c.model) return 0
  const m = modelOf(c)
  return m.delayCount + m.delayCountBefore < MIN_ACK_DELAY_COUNT ? 0 : max(m.delayNow, m.delayBefore)
}

/** True while the path shows more load than it carries. */
export function isHot(c: Conversation): bool {
  return c.model != 0 && modelOf(c).hot >= 2
}

function rateOf(m: Model): f64 {
  return max(m.rate, m.rateBefore)
}

/** Segments that fill the path at the model's rate. */
function bdp(c: Conversation): f64 {
  return rateOf(modelOf(c)) * <f64>rttFloor(c)
}

/** Segments that may be in flight by congestion control. */
export function congestionWindow(c: Conversation): u32 {
  if (congestionMode == NC_CLASSIC) return max<u32>(c.cwnd, 1)
  if (!c.model) return NEVER
  const m = modelOf(c)
  const rate = rateOf(m)
  if (rate == 0) return INITIAL_CWND
  if (pathOf(c).probing) return max(MIN_CWND, <u32>(0.5 * bdp(c)))
  const cwnd = 2 * bdp(c) + max(2, rate * (MS + HOST_DELAY_TICKS)) + rate * <f64>ackAllowance(c)
  return max(m.state == STARTUP ? INITIAL_CWND : MIN_CWND, <u32>cwnd)
}

/** Segments that may be sent before something is acknowledged: the windows of both ends, and control's. */
export function sendLimit(c: Conversation): u32 {
  return min(c.sndWnd, c.rmtWnd)
}

/** True if control lets a segment leave now. Lost ones are paced like new ones. */
export function maySend(c: Conversation, now: u32): bool {
  return c.flight < congestionWindow(c) && untilPace(c, now) == 0
}

/** Ticks until the pace lets the next segment leave. */
export function untilPace(c: Conversation, now: u32): u32 {
  if (!c.model) return 0
  const m = modelOf(c)
  const wait = diff(m.paceAt, now)
  if (wait <= 0) return 0
  m.isPaced = 1
  return wait
}

// ---- sending

/** Segments per tick. */
function pace(c: Conversation): f64 {
  const m = modelOf(c)
  const rate = rateOf(m)
  if (rate == 0) {
    // nothing is known: the first window within the first round trip, if that is known, else at once
    return c.srtt ? <f64>INITIAL_CWND / <f64>c.srtt : <f64>INITIAL_CWND
  }
  if (m.state == STARTUP) return STARTUP_GAIN * rate
  if (m.state == DRAIN) return rate / STARTUP_GAIN
  if (m.state == DOWN) return max(0.8, 1 - 0.8 * (m.up - 1)) * rate
  if (m.state == UP) return m.up * rate
  return m.hot >= 2 ? GUARD * rate : rate
}

/** A segment left at `now`. */
export function onSent(c: Conversation, now: u32): void {
  if (!c.model) return
  const m = modelOf(c)
  const catchUp: u32 = m.isPaced ? MAX_CATCH_UP_TICKS : 1
  if (diff(now, m.paceAt) > <i32>catchUp) {
    m.paceAt = now - catchUp
    m.paceFraction = 0
  }
  if (m.share == 0) setShare(c, rateOf(m))
  let rate = pace(c)
  if (c.flight >= sendLimit(c) / 2 && diff(now, m.queueAt) > <i32>UNPACED_AFTER_TICKS) rate *= 2
  const gap = m.paceFraction + 1 / rate
  const whole = <u32>gap
  m.paceAt += whole
  m.paceFraction = gap - <f64>whole
}

/** All that may leave has left: what waited for the pace no longer does. */
export function onDrained(c: Conversation, now: u32): void {
  if (!c.model) return
  const m = modelOf(c)
  if (diff(m.paceAt, now) <= 0) m.isPaced = 0
}

/** The conversation has nothing in flight and nothing to send: it claims no part of the path. */
export function onIdle(c: Conversation): void {
  if (c.model) setShare(c, 0)
}

function setShare(c: Conversation, rate: f64): void {
  const m = modelOf(c)
  const path = pathOf(c)
  path.rates += rate - m.share
  if (m.share == 0 && rate != 0) path.flows++
  else if (m.share != 0 && rate == 0) path.flows--
  if (path.flows == 0) path.rates = 0
  m.share = rate
}

// ---- losses

/** `n` transmissions were found lost. */
export function onLosses(c: Conversation, n: u32): void {
  if (congestionMode == NC_CLASSIC) halveClassic(c)
  if (c.model) modelOf(c).lost += n
}

/** A loss was none. */
export function onSpurious(c: Conversation): void {
  if (c.model && modelOf(c).lost) modelOf(c).lost--
}

/** Nothing was heard for the probe timeout. The rate is not touched. */
export function onTimeout(c: Conversation): void {
  if (congestionMode == NC_CLASSIC) restartClassic(c)
  if (c.model) modelOf(c).wasProbed = 1
}

// ---- ACKs

/** A datagram that acknowledged something was taken in whole. `span`: ticks between the first and the last transmission it told of. */
export function onAckDatagram(c: Conversation, acked: u32, span: u32, now: u32): void {
  if (congestionMode == NC_CLASSIC) growClassic(c)
  if (!c.model) return
  const m = modelOf(c)
  m.acked += acked
  if (c.hasSample) takeSample(c, m, span, now)
  m.lastAckAt = now
}

function takeSample(c: Conversation, m: Model, span: u32, now: u32): void {
  const rtt = max<u32>(1, c.sampleRtt)
  notePathRtt(pathOf(c), rtt, now)
  noteRtt(m, rtt, now)
  noteAckDelay(m, span, now)
  const interval = sampleInterval(c)
  const floor = <f64>rttFloor(c)
  if (interval == 0 || <f64>interval < 0.9 * floor) return
  const rate = <f64>(c.delivered - c.sampleDelivered) / <f64>interval
  if (isDataLimited(c) && rate <= rateOf(m)) return
  m.rate = max(m.rate, rate)
  m.roundRate = max(m.roundRate, rate)
}

/** RTTs: least of the round, least of the last 8 and the greatest of those, range of the last seconds. */
function noteRtt(m: Model, rtt: u32, now: u32): void {
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

function leastOfEight(m: Model): u32 {
  const rtts = changetype<usize>(m) + offsetof<Model>('rtts')
  const n = min<u32>(m.rttCount, 8)
  let least = UNKNOWN
  for (let i: u32 = 0; i < n; i++) least = min(least, load<u32>(rtts + ((<usize>i) << 2)))
  return least
}

/** A prompt peer would have acknowledged the first of these segments long before the last was sent; one that ticks gathers them. */
function noteAckDelay(m: Model, span: u32, now: u32): void {
  if (now - m.delayAt >= HALF_TICKS) {
    m.delayBefore = m.delayNow
    m.delayCountBefore = m.delayCount
    m.delayNow = m.delayCount = 0
    m.delayAt = now
  }
  const silence = min(now - m.lastAckAt, span)
  if (silence >= MIN_ACK_DELAY_TICKS && !m.wasProbed) {
    m.delayNow = max(m.delayNow, silence)
    m.delayCount++
  }
  m.wasProbed = 0
}

// ---- rounds

/** To be called after a receive batch, when losses have been looked for. */
export function updateCongestion(c: Conversation, now: u32): void {
  if (!c.model) return
  const m = modelOf(c)
  if (c.hasSample && diff(c.sampleDelivered, m.roundEnd) >= 0) {
    endRound(c, m, now)
    m.roundEnd = c.delivered
  }
  advanceState(c, m, now)
  if (m.share != 0) setShare(c, rateOf(m))
}

/** True if more was lost than the base explains: by share, and by chance. */
function isExcess(m: Model, share: f64, chance: f64, least: f64): bool {
  const n = <f64>(m.acked + m.lost)
  const expected = m.loss * n
  return <f64>m.lost > expected + share * n + chance * Math.sqrt(max(1, expected)) + least
}

function isQuiet(c: Conversation, m: Model): bool {
  const floor = <f64>rttFloor(c)
  return <f64>m.roundLeast <= 1.05 * floor + 0.5 * MS && <f64>m.roundMost <= 1.15 * floor + MS
}

function endRound(c: Conversation, m: Model, now: u32): void {
  m.rounds++
  m.stateRounds++
  const floor = <f64>rttFloor(c)
  const least = m.roundLeast == UNKNOWN ? floor : <f64>m.roundLeast
  const delay = <f64>(ackAllowance(c) + HOST_DELAY_TICKS)
  const isRaised = least > 1.1 * floor + MS + delay && rateOf(m) * (least - floor) > 4
  m.excessRounds = isExcess(m, 0.02, 2.5, 2) ? m.excessRounds + 1 : 0
  // a peer that ticks says each ACK once, many at a time: one lost datagram of ACKs looks like many lost segments
  const excess = m.excessRounds >= (ackAllowance(c) ? TICKING_EXCESS_ROUNDS : 1)
  if (least > 1.1 * floor + MS) m.queueAt = now
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
  m.acked = m.lost = 0
  m.windowAtRound = c.rmtWnd
}

/**
 * A queue drains when its flows yield. If the RTT stays up all the same the path itself has become longer: the floor is looked for, and what was yielded for nothing
 * is taken back.
 */
function followFloor(c: Conversation, m: Model, least: f64, now: u32): void {
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
}

/** The loss that the path shows without a queue. */
function learnLoss(c: Conversation, m: Model): void {
  const n = m.acked + m.lost
  if (n == 0) return
  if (m.state == STARTUP) {
    if (!isQuiet(c, m)) return
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

function enter(m: Model, state: u32, now: u32): void {
  m.state = state
  m.stateAt = now
  m.stateRounds = 0
}

function judgeStartup(c: Conversation, m: Model, least: f64, excess: bool, now: u32): void {
  const rate = rateOf(m)
  if (rate >= 1.25 * m.startupRate) {
    m.startupRate = rate
    m.flatRounds = 0
    return
  }
  // rounds short of data, or whose window just grew, tell nothing
  if (isDataLimited(c) || (c.rmtWnd > m.windowAtRound && m.windowAtRound != 0)) return
  m.flatRounds++
  const floor = <f64>rttFloor(c)
  const isRaised = least > 1.25 * floor + 2 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS + c.rttvar)
  if (m.flatRounds >= 3 || (m.flatRounds >= 2 && (isRaised || excess))) endStartup(m, excess || isRaised, now)
}

function endStartup(m: Model, isOverload: bool, now: u32): void {
  if (isOverload) m.loss = m.lossTwo
  m.flatRounds = 0
  enter(m, DRAIN, now)
}

function restartStartup(m: Model, now: u32): void {
  m.startupRate = rateOf(m)
  m.startupAcked = m.startupLost = 0
  m.flatRounds = 0
  enter(m, STARTUP, now)
}

function advanceState(c: Conversation, m: Model, now: u32): void {
  const floor = rttFloor(c)
  const inState = now - m.stateAt
  const full = bdp(c)
  if (m.state == STARTUP) {
    const isLate =
      m.acked + m.lost >= 64 &&
      m.rounds >= 3 &&
      <f64>leastOfEight(m) > 1.1 * <f64>floor + 0.5 * MS + <f64>(ackAllowance(c) + HOST_DELAY_TICKS) &&
      isExcess(m, 0.05, 3, 4)
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

function advanceUp(c: Conversation, m: Model, floor: u32, inState: u32, full: f64, now: u32): void {
  if (isExcess(m, 0.02, 2.5, 2)) {
    m.up = max(MIN_UP, 1 + (m.up - 1) / 2)
    enter(m, DOWN, now)
    return
  }
  const isFull = inState >= floor && <f64>c.flight >= m.up * full
  if (!isFull && m.stateRounds < 2 && inState <= 3 * floor) return
  m.up = min(MAX_UP, m.up + UP_STEP)
  if (isFaster(c, m)) restartStartup(m, now)
  else enter(m, DOWN, now)
}

/** True if the path turned out to carry clearly more, and no queue says otherwise. */
function isFaster(c: Conversation, m: Model): bool {
  if (rateOf(m) <= 1.13 * m.rateAtUp || isExcess(m, 0.02, 2.5, 2)) return false
  const floor = longFloor(pathOf(c))
  return isQuiet(c, m) && (floor == UNKNOWN || <f64>leastOfEight(m) <= 1.15 * <f64>floor + MS)
}

/** The end of a probe cycle: samples older than it are forgotten. */
function endCycle(c: Conversation, m: Model, now: u32): void {
  if (isFaster(c, m)) {
    restartStartup(m, now)
    return
  }
  m.rateBefore = m.rate
  m.rate = 0
  startCruise(m, now)
}

/** Cruises for 3 to 6 rounds, so that flows do not probe in step. */
function startCruise(m: Model, now: u32): void {
  m.random = m.random * 1664525 + 1013904223
  m.cruiseRounds = 3 + ((m.random >> 16) % 4)
  enter(m, CRUISE, now)
}

// ---- what is shown

/** Segments a second that the pace allows; 0 without a model. */
export function paceOf(c: Conversation): u32 {
  return c.model ? <u32>(pace(c) * TICKS_PER_SECOND) : 0
}

/** Base loss in parts of 10000, and above it the state (u8) and hot rounds (u8). */
export function lossOf(c: Conversation): u32 {
  if (!c.model) return 0
  const m = modelOf(c)
  return <u32>(m.loss * 10000) | (m.state << 16) | (min<u32>(m.hot, 255) << 24)
}
