/*
 * How the conversations with one peer divide what the path carries.
 *
 * A late one that has much to send takes its part at once and the others leave it that part: they share a process, so
 * nobody needs a full queue to notice. Who has little to send takes nothing from the others.
 */

import { TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'
import { bandwidth, MIN_PACING_GAIN, Model, minRtt, modelOf, peerPathOf, STARTUP, startCruise } from './model'
import { PeerPath, UNKNOWN } from './peer_path'
import { startRtt } from './rtt'

/** What a path carried is believed for so long after it was seen. */
const CAPACITY_EXPIRY_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** Flows that leave one after the other carry less and less: for so long the most they did counts. */
const CAPACITY_DECREASE_TICKS: Ticks = 10 * TICKS_PER_SECOND
/** The product of cuts starts anew below this. */
const MIN_SHARE_SCALE: f64 = 1e-100

/** Sets what a conversation claims of its path, segments per tick; 0 while it has nothing to send. */
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
}

/** Notes what the path carries, if `c` shows it: settled, and not held back by its windows. */
export function onCapacitySample(c: Conversation, m: Model, now: Ticks, isLinkLimited: bool): void {
  const path = peerPathOf(c)
  if (m.state == STARTUP || m.claimedBw == 0 || !isLinkLimited) return
  path.baseLoss = m.baseLoss
  if (path.claimedBw < path.capacityBw && now - path.capacityAt < CAPACITY_DECREASE_TICKS) return
  path.capacityBw = path.claimedBw
  path.capacityAt = now
}

/** A conversation found the path loaded. */
export function onYield(c: Conversation): void {
  const path = peerPathOf(c)
  path.capacityBw = min(path.capacityBw, path.claimedBw)
}

function capacity(path: PeerPath, now: Ticks): f64 {
  return now - path.capacityAt < CAPACITY_EXPIRY_TICKS ? path.capacityBw : 0
}

/** What one more conversation may have, segments per tick; 0 if nothing is known. */
export function fairShare(path: PeerPath, now: Ticks): f64 {
  const known = capacity(path, now)
  return min(known, max(known / <f64>(path.flows + 1), known - path.claimedBw))
}

/** Starts a conversation at its part of a known path, which the others leave to it. */
export function claimShare(c: Conversation, m: Model, now: Ticks): void {
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
  // the path is known: no need to look far above it, with all the others doing so too
  m.pacingGain = MIN_PACING_GAIN
  startCruise(m, now)
  setClaimedBw(c, share)
}

/** Leaves to late conversations what they took. */
export function applyShareScale(c: Conversation, m: Model, now: Ticks): void {
  const path = peerPathOf(c)
  if (m.claimedBw == 0 || m.shareScale == path.shareScale) return
  const part = min(1, path.shareScale / m.shareScale)
  m.shareScale = path.shareScale
  m.claimedBw *= part
  if (bandwidth(m) < path.shareScaleMinBw) return
  m.maxBw *= part
  m.maxBwPrevious *= part
  m.maxBwAtProbeUp *= part
  m.maxBwBeforeQueue *= part
  // what is under way still tells of the rate before
  m.awaitsFreshSamples = 1
  m.freshSamplesFrom = now + minRtt(c)
}
