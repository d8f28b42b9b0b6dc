/*
 * How the conversations with one peer share the capacity of the path.
 *
 * A new conversation with enough data takes its fair share at once and the others reduce theirs: they run in one
 * process, so no queue has to build up first. A conversation with little data takes nothing from the others.
 */

import { TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import {
  BbrModel,
  bandwidthOf,
  MIN_PACING_GAIN,
  minRttOf,
  modelOf,
  peerPathOf,
  STARTUP,
  startCruise,
} from './bbr_model'
import { Conversation } from './conversation'
import { isAppLimited } from './delivery_rate'
import { PeerPath, UNKNOWN } from './peer_path'
import { startRtt } from './rtt_estimator'

/** A measured capacity is used for this long. */
const CAPACITY_EXPIRY_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** When flows end one after the other, their sum decreases; the maximum of this period is kept. */
const CAPACITY_DECREASE_TICKS: Ticks = 10 * TICKS_PER_SECOND
/** Weight of the mean when all flows reduce their bandwidth together. */
const JOINT_MEAN_PULL: f64 = 0.5
/** The product of scale factors is reset below this. */
const MIN_SHARE_SCALE: f64 = 1e-100

/** Sets the bandwidth that a conversation claims of its path, segments per tick; 0 while it has nothing to send. */
export function setClaimedBw(c: Conversation, rate: f64): void {
  const m = modelOf(c)
  const path = peerPathOf(c)
  if (m.claimedBw == 0) m.shareScale = path.shareScale
  else if (rate == 0) m.claimedBw *= min(1, path.shareScale / m.shareScale)
  path.claimedBw += rate - m.claimedBw
  if (m.claimedBw == 0 && rate != 0) path.flows++
  else if (m.claimedBw != 0 && rate == 0) path.flows--
  if (path.flows == 0) path.claimedBw = 0
  m.claimedBw = rate
  const bulk = isAppLimited(c) ? 0 : rate
  path.bulkBw += bulk - m.bulkBw
  if (m.bulkBw == 0 && bulk != 0) path.bulkFlows++
  else if (m.bulkBw != 0 && bulk == 0) path.bulkFlows--
  if (path.bulkFlows == 0) path.bulkBw = 0
  m.bulkBw = bulk
}

/** Records the capacity of the path if `c` measures it: after STARTUP, and not limited by its windows. */
export function onCapacitySample(c: Conversation, m: BbrModel, now: Ticks, isLinkLimited: bool): void {
  const path = peerPathOf(c)
  if (m.state == STARTUP || m.claimedBw == 0 || !isLinkLimited) return
  path.baseLoss = m.baseLoss
  if (path.claimedBw < path.capacityBw && now - path.capacityAt < CAPACITY_DECREASE_TICKS) return
  path.capacityBw = path.claimedBw
  path.capacityAt = now
}

/** A conversation found a standing queue or loss: the path carries no more than its flows claim now. */
export function onOverload(c: Conversation): void {
  const path = peerPathOf(c)
  path.capacityBw = min(path.capacityBw, path.claimedBw)
}

/** @returns bandwidth of the path when the link last limited it, segments per tick; 0 if that was long ago */
export function capacity(path: PeerPath, now: Ticks): f64 {
  return now - path.capacityAt < CAPACITY_EXPIRY_TICKS ? path.capacityBw : 0
}

/** @returns bandwidth that one more conversation may take, segments per tick; 0 if the capacity is unknown */
export function fairShare(path: PeerPath, now: Ticks): f64 {
  const known = capacity(path, now)
  return min(known, max(known / <f64>(path.flows + 1), known - path.claimedBw))
}

/** Starts a conversation at its fair share of a known path; the others reduce theirs. */
export function claimFairShare(c: Conversation, m: BbrModel, now: Ticks): void {
  const path = peerPathOf(c)
  const share = fairShare(path, now)
  if (share == 0 || path.minRtt == UNKNOWN) return
  const left = path.capacityBw - share
  if (path.claimedBw > left) {
    if (path.shareScale < MIN_SHARE_SCALE) path.shareScale = 1
    path.shareScale *= left / path.claimedBw
    path.shareScaleMinBw = share
    path.claimedBw = left
  }
  if (c.srtt == 0) startRtt(c, path.minRtt)
  m.maxBw = share
  m.baseLoss = path.baseLoss
  // the capacity is known: no need to probe far above it while other flows do so too
  m.pacingGain = MIN_PACING_GAIN
  startCruise(m, now)
  setClaimedBw(c, share)
}

/** @returns factor that brings `rate` nearer to the mean of the flows that are not app-limited, by a part of the distance */
export function towardsMean(path: PeerPath, rate: f64, part: f64): f64 {
  return rate == 0 || path.bulkFlows < 2 ? 1 : 1 + part * (path.bulkBw / <f64>path.bulkFlows / rate - 1)
}

/**
 * All flows of a path reduce their bandwidth to `part` of it, and approach its mean. It does not apply to app-limited
 * ones: what they measured is what they need.
 */
export function reducePath(c: Conversation, part: f64): void {
  const path = peerPathOf(c)
  if (path.shareScale < MIN_SHARE_SCALE) path.shareScale = 1
  path.shareScale *= part
  path.shareScaleMinBw = 0
  path.claimedBw *= part
  onOverload(c)
}

/** Reduces the share of a conversation by what new conversations took, or by what is too much for the path. */
export function applyShareScale(c: Conversation, m: BbrModel, now: Ticks): void {
  const path = peerPathOf(c)
  if (m.claimedBw == 0 || m.shareScale == path.shareScale) return
  const isJoint = path.shareScaleMinBw == 0
  let part = min(1, path.shareScale / m.shareScale)
  m.shareScale = path.shareScale
  m.claimedBw *= part
  const rate = bandwidthOf(m)
  if (rate < path.shareScaleMinBw || (isJoint && isAppLimited(c))) return
  if (isJoint) part *= towardsMean(path, rate, JOINT_MEAN_PULL)
  m.maxBw *= part
  m.maxBwPrevious *= part
  m.maxBwAtProbeUp *= part
  m.maxBwBeforeQueue *= part
  // ACKs of what is in flight still measure the previous rate
  m.awaitsFreshSamples = 1
  m.freshSamplesFrom = now + minRttOf(c)
}
