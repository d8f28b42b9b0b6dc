/*
 * Congestion control: how much may be in flight and how fast it leaves.
 *
 * Automatic (`nc` unset): a model of the path, its rate and its RTT floor, with pacing, in the manner of BBR (model.ts,
 * rounds.ts). `nc` 1 is no control but the windows, `nc` 0 the classic window.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER } from '../clock'
import { alloc, classOf, free } from '../memory/slab'
import { Ticks } from '../units'
import { growClassic, halveClassic, restartClassic } from './classic'
import { Conversation, waitSnd } from './conversation'
import { applyShareScale, claimShare, fairShare, setClaimedBw } from './fair_share'
import {
  ackAllowance,
  bandwidth,
  bdp,
  DRAIN,
  HOST_DELAY_TICKS,
  MAX_PACING_GAIN,
  Model,
  MS,
  minRtt,
  modelOf,
  onAckDelay,
  onRttSample,
  PROBE_DOWN,
  PROBE_UP,
  peerPathOf,
  STARTUP,
  takeSample,
} from './model'
import { DEFAULT_WND, NC_AUTOMATIC, NC_CLASSIC } from './options'
import { joinPeerPath, leavePeerPath, onPathRtt, pathLimit, UNKNOWN } from './peer_path'
import { diff, HEADER_BYTES } from './segment'

const STARTUP_PACING_GAIN: f64 = 2.77
const INITIAL_CWND: u32 = 32
const MIN_CWND: u32 = 4
/** The pace in a round that follows two hot ones. */
const QUEUE_PACING_GAIN: f64 = 0.95
/** A host that wakes late may catch up so much of the pace, if pacing was what it waited for; else one tick. */
const MAX_CATCH_UP_TICKS: Ticks = 4 * TICKS_PER_MS
/** Without a queue for so long, a flow that only the window limits need not be paced. */
export const UNPACED_AFTER_TICKS: Ticks = 10 * TICKS_PER_SECOND

/** Starts control of a conversation with the peer at `address`. Without memory for a model the default window holds. */
export function openCongestion(c: Conversation, address: usize, now: Ticks): void {
  if (c.congestionMode != NC_AUTOMATIC) return
  c.peerPath = joinPeerPath(address, now)
  const cls = classOf(offsetof<Model>())
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
  setPathLimit(c, address, now)
  m.roundMinRtt = UNKNOWN
  m.stateEnteredAt = m.maxRttWindowAt = m.ackDelayWindowAt = m.lastAckAt = m.lastQueueAt = m.nextSendAt = now
}

/** The peer moved to `address`: another path, with an RTT floor, rates and a limit of its own. */
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
  setPathLimit(c, address, now)
}

function setPathLimit(c: Conversation, address: usize, now: Ticks): void {
  const limit = pathLimit(address, now)
  c.pathMss = limit == 0 ? NEVER : limit - HEADER_BYTES
}

export function closeCongestion(c: Conversation): void {
  if (c.model) {
    setClaimedBw(c, 0)
    free(c.model, classOf(offsetof<Model>()))
  }
  if (c.peerPath) leavePeerPath(c.peerPath)
  c.model = c.peerPath = 0
}

// ---- what may leave

/** Segments that may be in flight by congestion control. */
export function congestionWindow(c: Conversation): u32 {
  if (c.congestionMode == NC_CLASSIC) return max<u32>(c.cwnd, 1)
  if (!c.model) return NEVER
  const m = modelOf(c)
  const rate = bandwidth(m)
  if (rate == 0) return INITIAL_CWND
  if (peerPathOf(c).isProbingRtt) return max(MIN_CWND, <u32>(0.5 * bdp(c)))
  const cwnd = 2 * bdp(c) + max(2, rate * (MS + HOST_DELAY_TICKS)) + rate * <f64>ackAllowance(c)
  return max(m.state == STARTUP ? INITIAL_CWND : MIN_CWND, <u32>cwnd)
}

/** Segments that may be sent before something is acknowledged: the windows of both ends, and control's. */
export function sendLimit(c: Conversation): u32 {
  return min(c.sndWnd, c.rmtWnd)
}

/** True if control lets a segment leave now. Lost ones are paced like new ones. */
export function maySend(c: Conversation, now: Ticks): bool {
  return c.flight < congestionWindow(c) && pacingDeadline(c, now) == 0
}

/** Ticks until the pace lets the next segment leave. */
export function pacingDeadline(c: Conversation, now: Ticks): Ticks {
  if (!c.model) return 0
  const m = modelOf(c)
  const wait = diff(m.nextSendAt, now)
  if (wait <= 0) return 0
  m.isPacingLimited = 1
  return wait
}

/** Segments per tick. */
function pace(c: Conversation): f64 {
  const m = modelOf(c)
  const rate = bandwidth(m)
  if (rate == 0) {
    // nothing is known: the first window within the first round trip, if that is known, else at once
    const first = c.srtt ? <f64>INITIAL_CWND / <f64>c.srtt : <f64>INITIAL_CWND
    const fair = fairShare(peerPathOf(c), m.nextSendAt)
    return fair == 0 ? first : min(first, max(fair, <f64>INITIAL_CWND / <f64>minRtt(c)))
  }
  if (m.state == STARTUP) return STARTUP_PACING_GAIN * rate
  if (m.state == DRAIN) return rate / STARTUP_PACING_GAIN
  if (m.state == PROBE_DOWN) return max(0.8, 1 - 0.8 * (m.pacingGain - 1)) * rate
  if (m.state == PROBE_UP) return m.pacingGain * rate
  return m.queueRounds >= 2 ? QUEUE_PACING_GAIN * rate : rate
}

/** A segment left at `now`. */
export function onSent(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  const catchUp: u32 = m.isPacingLimited ? MAX_CATCH_UP_TICKS : 1
  if (diff(now, m.nextSendAt) > <i32>catchUp) {
    m.nextSendAt = now - catchUp
    m.nextSendFraction = 0
  }
  applyShareScale(c, m, now)
  if (bandwidth(m) == 0 && waitSnd(c) > INITIAL_CWND) claimShare(c, m, now)
  if (m.claimedBw == 0) setClaimedBw(c, bandwidth(m))
  let rate = pace(c)
  if (c.flight >= sendLimit(c) / 2 && diff(now, m.lastQueueAt) > <i32>UNPACED_AFTER_TICKS) rate *= 2
  const gap = m.nextSendFraction + 1 / rate
  const whole = <u32>gap
  m.nextSendAt += whole
  m.nextSendFraction = gap - <f64>whole
}

/** All that may leave has left: what waited for the pace no longer does. */
export function onDrained(c: Conversation, now: Ticks): void {
  if (!c.model) return
  const m = modelOf(c)
  if (diff(m.nextSendAt, now) <= 0) m.isPacingLimited = 0
}

// ---- what is heard

/** `n` transmissions were found lost. */
export function onLosses(c: Conversation, n: u32): void {
  if (c.congestionMode == NC_CLASSIC) halveClassic(c)
  if (c.model) modelOf(c).roundLost += n
}

/** A loss was none. */
export function onSpurious(c: Conversation): void {
  if (c.model && modelOf(c).roundLost) modelOf(c).roundLost--
}

/** Nothing was heard for the probe timeout. The rate is not touched. */
export function onTimeout(c: Conversation): void {
  if (c.congestionMode == NC_CLASSIC) restartClassic(c)
  if (c.model) modelOf(c).hadTimeoutSinceAck = modelOf(c).hadTimeoutInRound = 1
}

/** The transmission sent last of those that a datagram told of took `rtt` ticks. */
export function onRtt(c: Conversation, rtt: Ticks, now: Ticks): void {
  if (!c.model) return
  onPathRtt(peerPathOf(c), max<u32>(1, rtt), now)
  onRttSample(modelOf(c), max<u32>(1, rtt), now)
}

/**
 * A datagram that acknowledged something was taken in whole. `span`: ticks between the first and the last transmission
 * it told of, if it told of many.
 */
export function onAckDatagram(c: Conversation, acked: u32, span: Ticks, now: Ticks): void {
  if (c.congestionMode == NC_CLASSIC) growClassic(c)
  if (!c.model) return
  const m = modelOf(c)
  m.roundAcked += acked
  if (c.hasSample) {
    onAckDelay(c, m, span, now)
    takeSample(c, m)
  }
  m.lastAckAt = now
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
  return <u32>(m.baseLoss * 10000) | (m.state << 16) | (min<u32>(m.queueRounds, 255) << 24)
}
