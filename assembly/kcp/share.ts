/*
 * How the conversations with one peer divide what the path carries.
 *
 * A late one that has much to send takes its part at once and the others leave it that part: they share a process, so
 * nobody needs a full queue to notice. Who has little to send takes nothing from the others.
 */

import { TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'
import { MIN_UP, Model, modelOf, pathOf, rateOf, rttFloor, STARTUP, startCruise } from './model'
import { Path, UNKNOWN } from './path'
import { startRtt } from './rtt'

/** What a path carried is believed for so long after it was seen. */
const KNOWN_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** Flows that leave one after the other carry less and less: for so long the most they did counts. */
const MOST_TICKS: Ticks = 10 * TICKS_PER_SECOND
/** The product of cuts starts anew below this. */
const LEAST_CUT: f64 = 1e-100

/** Sets what a conversation claims of its path, segments per tick; 0 while it has nothing to send. */
export function setShare(c: Conversation, rate: f64): void {
  const m = modelOf(c)
  const path = pathOf(c)
  if (m.share == 0) m.cut = path.cut
  else if (rate == 0) m.share *= min(1, path.cut / m.cut)
  path.rates += rate - m.share
  if (m.share == 0 && rate != 0) path.flows++
  else if (m.share != 0 && rate == 0) path.flows--
  if (path.flows == 0) path.rates = 0
  m.share = rate
}

/** Notes what the path carries, if `c` shows it: settled, and not held back by its windows. */
export function noteCapacity(c: Conversation, m: Model, now: Ticks, isLinkLimited: bool): void {
  const path = pathOf(c)
  if (m.state == STARTUP || m.share == 0 || !isLinkLimited) return
  path.loss = m.loss
  if (path.rates < path.known && now - path.knownAt < MOST_TICKS) return
  path.known = path.rates
  path.knownAt = now
}

/** A conversation found the path loaded. */
export function noteYield(c: Conversation): void {
  const path = pathOf(c)
  path.known = min(path.known, path.rates)
}

function capacity(path: Path, now: Ticks): f64 {
  return now - path.knownAt < KNOWN_TICKS ? path.known : 0
}

/** What one more conversation may have, segments per tick; 0 if nothing is known. */
export function fairShare(path: Path, now: Ticks): f64 {
  const known = capacity(path, now)
  return min(known, max(known / <f64>(path.flows + 1), known - path.rates))
}

/** Starts a conversation at its part of a known path, which the others leave to it. */
export function claimShare(c: Conversation, m: Model, now: Ticks): void {
  const path = pathOf(c)
  const share = fairShare(path, now)
  if (share == 0 || path.floor == UNKNOWN) return
  const left = path.known - share
  if (path.rates > left) {
    if (path.cut < LEAST_CUT) path.cut = 1
    path.cut *= left / path.rates
    path.cutAbove = share
    path.rates = left
  }
  if (c.srtt == 0) startRtt(c, path.floor)
  m.rate = share
  m.loss = path.loss
  // the path is known: no need to look far above it, with all the others doing so too
  m.up = MIN_UP
  startCruise(m, now)
  setShare(c, share)
}

/** Leaves to late conversations what they took. */
export function followCuts(c: Conversation, m: Model, now: Ticks): void {
  const path = pathOf(c)
  if (m.share == 0 || m.cut == path.cut) return
  const part = min(1, path.cut / m.cut)
  m.cut = path.cut
  m.share *= part
  if (rateOf(m) < path.cutAbove) return
  m.rate *= part
  m.rateBefore *= part
  m.rateAtUp *= part
  m.rateCool *= part
  // what is under way still tells of the rate before
  m.isHeld = 1
  m.heldUntil = now + rttFloor(c)
}
