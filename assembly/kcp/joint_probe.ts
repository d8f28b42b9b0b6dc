/*
 * Whether the flows of a path together overrun it where the RTT does not show that, because its queue is short.
 *
 * Each takes the highest rate that it measured for its own, and the sum is more than the path carries. To each of them
 * the losses look like those of the path, since the others go on while it sends less. So
 *
 * - STARTUP ends for all of them when together they deliver no more than before and lose segments;
 * - from time to time all send less for a while (the low part of a probe; what they sent just before is the high part).
 *   An overrun queue then drops fewer segments, whereas random loss takes the same part, and they reduce their rates by the
 *   difference. Until a probe with a higher rate loses nothing, they leave some of the bandwidth unused.
 */

import { TICKS_PER_MS } from '../abi'
import { Ticks } from '../units'
import { PeerPath, UNKNOWN } from './peer_path'
import { lostMore } from './probe_losses'
import { diff } from './segment'

/** Pacing gains of an overrun path: of the high part at first, of the low part, and between probes. */
const HIGH_GAIN: f64 = 1.05
const LOW_GAIN: f64 = 0.85
const CRUISE_GAIN: f64 = 0.95
/** When probes found nothing and the gain of the next one were more than this, the path is not overrun any more. */
const MAX_HIGH_GAIN: f64 = 1.13
/** Pauses in lengths of a part: before a probe with more gain, after one that found an overrun, and otherwise. */
const NEXT_PAUSE: u32 = 1
const OVERRUN_PAUSE: u32 = 8
const MIN_PAUSE: u32 = 4
const MAX_PAUSE: u32 = 64
/** A part is long enough for this many segments, but has at most so many round trips. */
const PART_SEGMENTS: f64 = 400
const MAX_PART_ROUNDS: u32 = 6
/** Without this many losses there is nothing to find. */
const MIN_LOSSES: u32 = 8
/** STARTUP: rounds without growth, and lost part of at least so many segments above that of an earlier round. */
const FLAT_ROUNDS: u32 = 2
const STARTUP_GROWTH: f64 = 1.25
const STARTUP_LOSS: f64 = 0.05
const MIN_STARTUP_SAMPLE: u32 = 64
const MIN_LOSS_SAMPLE: u32 = 16
/** A round is not compared with one so many round trips ago. */
const MAX_ROUND_AGE: u32 = 4
/** Part of the acknowledged segments that flows with enough data sent; otherwise applications limit the rate. */
const BULK_PART: f64 = 0.8
/** The parts of their rates that flows keep: after STARTUP, and after a probe, which sees little more than its gains. */
const MIN_STARTUP_PART: f64 = 0.0625
const MIN_PROBE_PART: f64 = 0.7
/** A probe whose losses were not known after so many round trips is given up. */
const MAX_PROBE_AGE: u32 = 8
/** Above this rate, segments per tick, hosts lose segments for want of CPU time. */
export const MAX_RATE: f64 = 4

/**
 * @param isProbeUp the flow probes for itself, because it has clearly less than the others
 * @returns pacing gain of the flows of the path; 0 = each has its own
 */
export function jointGain(path: PeerPath, isProbeUp: bool, now: Ticks): f64 {
  if (path.isProbing && diff(now, path.lowAt) >= 0 && diff(now, path.lowEndAt) < 0) return LOW_GAIN
  if (!path.isOverrun || isProbeUp) return 0
  return path.isProbing && diff(now, path.lowAt) < 0 ? path.highGain : CRUISE_GAIN
}

/**
 * Counts segments, sent at `sentAt`, that were acknowledged or lost.
 * @param isBulk they belong to a flow that is not app-limited
 */
export function countJoint(path: PeerPath, sentAt: Ticks, acked: u32, lost: u32, isBulk: bool): void {
  path.roundAcked += acked
  path.roundLost += lost
  if (isBulk) path.roundBulk += acked
  path.lostSinceProbe += lost
  if (!path.isProbing || diff(sentAt, path.highAt) < 0) return
  if (diff(sentAt, path.lowAt) < 0) {
    path.highAcked += acked
    path.highLost += lost
  } else if (diff(sentAt, path.lowAt + drainTicks(path)) >= 0 && diff(sentAt, path.lowEndAt) < 0) {
    path.lowAcked += acked
    path.lowLost += lost
  }
}

/** What is sent in this time still meets the queue that was there before. */
function drainTicks(path: PeerPath): Ticks {
  return path.minRtt / 8 + TICKS_PER_MS
}

/** One flow has the path for itself, and follows its own rules. */
export function endJoint(path: PeerPath, now: Ticks): void {
  path.isOverrun = path.isProbing = 0
  path.nextProbeAt = now
}

/**
 * To be called by flows in STARTUP: ends the round of the path if it is over.
 * @returns the part of their rates that all flows keep if STARTUP overran the path; 0 if not
 */
export function endJointRound(path: PeerPath, now: Ticks): f64 {
  const length = now - path.roundAt
  if (path.minRtt == UNKNOWN || length < path.minRtt) return 0
  const isOld = length > MAX_ROUND_AGE * path.minRtt
  const rate = <f64>path.roundAcked / <f64>length
  const all = <f64>(path.roundAcked + path.roundLost)
  const loss = all > 0 ? <f64>path.roundLost / all : 0
  const isLossy = all >= MIN_STARTUP_SAMPLE && loss > path.leastLoss + STARTUP_LOSS + chance(path.leastLoss, all)
  if (all >= MIN_LOSS_SAMPLE) path.leastLoss = min(path.leastLoss, loss)
  const isBulk = <f64>path.roundBulk >= BULK_PART * <f64>path.roundAcked
  path.roundAt = now
  path.roundAcked = path.roundLost = path.roundBulk = 0
  if (isOld) {
    path.fullRate = 0
    path.flatRounds = 0
    path.leastLoss = 1
    return 0
  }
  path.flatRounds = rate > STARTUP_GROWTH * path.fullRate ? 0 : path.flatRounds + 1
  path.fullRate = max(path.fullRate, rate)
  if (path.flatRounds < FLAT_ROUNDS || !isLossy || !isBulk) return 0
  if (path.fullRate == 0 || path.fullRate > min(MAX_RATE, path.claimedBw)) return 0
  path.isProbing = path.lostSinceProbe = 0
  path.nextProbeAt = now + MIN_PAUSE * path.minRtt
  return max(MIN_STARTUP_PART, path.fullRate / path.claimedBw)
}

/** @returns part of `n` segments by which a loss of `base` is exceeded by chance, at most */
function chance(base: f64, n: f64): f64 {
  return 3 * Math.sqrt(max(base * (1 - base), 0) / n)
}

/**
 * Starts a probe if it is due, or judges one.
 * @param isHidden the RTT shows no queue; if it does, its rules apply, and none is left unused
 * @returns the part of their rates that all flows keep if they overran the path; 0 if not
 */
export function advanceJoint(path: PeerPath, isHidden: bool, now: Ticks): f64 {
  if (!isHidden || path.claimedBw > MAX_RATE) path.isOverrun = 0
  if (!path.isProbing) {
    if (isProbeDue(path, now)) startProbe(path, now)
    return 0
  }
  if (diff(now, path.lowEndAt + path.minRtt + path.minRtt / 2) < 0) return 0
  const isLate = diff(now, path.lowEndAt + MAX_PROBE_AGE * path.minRtt) > 0
  const more = isLate ? 0 : lostMore(path.highAcked, path.highLost, path.lowAcked, path.lowLost)
  if (more != 0) onOverrun(path, isHidden)
  else onClean(path)
  path.isProbing = path.lostSinceProbe = 0
  path.nextProbeAt = now + path.probePause * path.probePart
  return more != 0 ? max(MIN_PROBE_PART, 1 - more) : 0
}

function isProbeDue(path: PeerPath, now: Ticks): bool {
  if (path.minRtt == UNKNOWN || path.claimedBw > MAX_RATE || diff(now, path.nextProbeAt) < 0) return false
  return path.isOverrun != 0 || path.lostSinceProbe >= MIN_LOSSES
}

function startProbe(path: PeerPath, now: Ticks): void {
  const wanted = <Ticks>(PART_SEGMENTS / max(path.claimedBw, 0.001))
  path.isProbing = 1
  path.probePart = max(path.minRtt, min(wanted, MAX_PART_ROUNDS * path.minRtt))
  path.highAt = now
  path.lowAt = now + path.probePart
  path.lowEndAt = path.lowAt + path.probePart + drainTicks(path)
  path.highAcked = path.highLost = path.lowAcked = path.lowLost = 0
}

function onOverrun(path: PeerPath, isHidden: bool): void {
  path.highGain = path.isOverrun ? max(HIGH_GAIN, 1 + (path.highGain - 1) / 2) : HIGH_GAIN
  if (isHidden) path.isOverrun = 1
  path.probePause = OVERRUN_PAUSE
}

function onClean(path: PeerPath): void {
  if (!path.isOverrun) {
    path.probePause = min(MAX_PAUSE, max(MIN_PAUSE, 2 * path.probePause))
    return
  }
  path.probePause = NEXT_PAUSE
  path.highGain += path.highGain - 1
  if (path.highGain > MAX_HIGH_GAIN) path.isOverrun = 0
}
