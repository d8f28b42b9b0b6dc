/*
 * Scheduling of sessions: those with output are in the ready list, those that a receive batch changed in the dirty
 * list, all others wait for their deadline.
 */

import { TICKS_PER_MS } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { unpredictable } from '../control/pings'
import { PING, push } from '../control/queue'
import { freeIdleAckRing, pendingAcks } from '../kcp/ack_queue'
import { updateCongestion } from '../kcp/bbr_rounds'
import { burstDelay } from '../kcp/bulk'
import { waitSnd } from '../kcp/conversation'
import { detectLoss, recoveryDeadline } from '../kcp/loss_detection'
import { FLUSH_INTERVAL } from '../kcp/options'
import { hasOutput, onOutputDrained, segmentDeadline, updateProbe } from '../kcp/output'
import { freeIdleReceiveRing } from '../kcp/receive_buffer'
import { freeIdleSendRing } from '../kcp/send_buffer'
import { awaitValidation, nextValidationPing, Remote, validate, validationPingDeadline } from '../packet/remote'
import { takeDrained } from '../session/events'
import { ownDeadline, serveNext, serveOwn } from '../session/rate'
import {
  addressOf,
  BLOCKED,
  DIALLED,
  DRAINING,
  ECHO_PENDING,
  EOF_PENDING,
  EVICTED,
  has,
  IN_DIRTY,
  IN_EVENTS,
  IN_READY,
  SEND_HELD,
  Session,
  setState,
  TCP_NONE,
  TIME_WAIT,
  uncountHalfOpen,
} from '../session/session'
import { endSession, queuePending, unblock } from '../session/stream'
import { firstOfConv, nextOfConv, remove, sessionAt, slotsInUse } from '../session/table'
import { checkTimeouts, timeoutDeadline } from '../session/timeouts'
import { cancel, earliest, postpone, wake } from '../session/timer'
import { addTombstone } from '../session/tombstones'
import { onTwinEnded } from '../session/twins'
import { shift, WAITSND } from '../stats'
import { Ticks } from '../units'
import { checkBlackhole } from './blackhole'
import { searchPath } from './path_search'

/** A session that waits for memory, or for the host to drain a list, is retried after this time. */
const RETRY_TICKS: Ticks = 100 * TICKS_PER_MS

let firstReady: usize = 0
let lastReady: usize = 0
let firstDirty: usize = 0

/** @returns true if the conversation is live: it sends, and detects loss */
export function isLive(s: Session): bool {
  return s.state != TIME_WAIT && !has(s, DRAINING)
}

/** @returns ticks until the session has something to do */
function sessionDeadline(s: Session, now: Ticks): Ticks {
  let wanted = timeoutDeadline(s, now)
  // a session in the ready list waits for the host, a held one for the answer of its address
  if (s.rate) wanted = min(wanted, ownDeadline(s, now))
  if (s.remote) wanted = min(wanted, validationPingDeadline(changetype<Remote>(s.remote), now))
  if (!isLive(s) || has(s, IN_READY | SEND_HELD)) return wanted
  wanted = min(wanted, recoveryDeadline(s, now))
  if (has(s, EOF_PENDING | ECHO_PENDING | BLOCKED) && waitSnd(s) == 0) wanted = min(wanted, RETRY_TICKS)
  wanted = min(wanted, segmentDeadline(s, now))
  if (pendingAcks(s)) wanted = min(wanted, ticksUntil(s.ackDeadline, now))
  if (s.wndProbeInterval) wanted = min(wanted, ticksUntil(s.wndProbeAt, now))
  if (s.flushMode == FLUSH_INTERVAL) {
    const tick = ticksUntil(s.flushAt, now)
    wanted = hasOutput(s, now) ? tick : max(wanted, tick)
    wanted = min(wanted, timeoutDeadline(s, now))
  }
  return wanted
}

function isFlushDue(s: Session, now: Ticks): bool {
  return s.flushMode != FLUSH_INTERVAL || ticksUntil(s.flushAt, now) == 0
}

/** To be called after any change of a session: queues its output, updates its deadline. */
export function reschedule(s: Session, now: Ticks): void {
  if (s.rate) serveOwn(s, now)
  if (isLive(s)) {
    updateProbe(s, now)
    queuePending(s, now)
    unblock(s)
    if (!has(s, SEND_HELD) && hasOutput(s, now)) {
      if (isFlushDue(s, now)) enqueueReady(s)
      else wake(s, s.flushAt)
    }
    freeIdleSendRing(s)
    freeIdleReceiveRing(s)
    freeIdleAckRing(s)
  }
  const waiting = waitSnd(s)
  if (waiting != s.waitingCounted) {
    shift(WAITSND, waiting - s.waitingCounted)
    s.waitingCounted = waiting
  }
  if (s.state == TIME_WAIT) {
    removeEnded(s, now)
    return
  }
  const wanted = sessionDeadline(s, now)
  if (wanted != NEVER) wake(s, now + wanted)
}

/** A session that was served is removed: others of its conv may have waited for it. */
function endTwins(ended: Session, now: Ticks): void {
  let s = firstOfConv(ended.conv)
  while (s) {
    const next = nextOfConv(s)
    if (onTwinEnded(s, ended, now)) reschedule(s, now)
    s = next
  }
}

/**
 * Ends a session that still waits for DIAL, because another needs its place. It leaves no record: nothing was dialled, and
 * more than the records that may exist can be evicted.
 */
export function evict(s: Session, now: Ticks): void {
  s.flags |= EVICTED
  endSession(s, 0)
  reschedule(s, now)
}

/** Removes an ended session when no list of the endpoint contains it, and adds a tombstone. */
function removeEnded(s: Session, now: Ticks): void {
  if (has(s, IN_READY | IN_DIRTY | IN_EVENTS)) return
  cancel(s)
  if (has(s, DIALLED)) endTwins(s, now)
  setState(s, 0)
  if (!has(s, EVICTED)) addTombstone(addressOf(s), s.conv)
  remove(s)
}

/** To be called when the host took events: removes ended sessions that waited for that. */
export function removeDrained(now: Ticks): void {
  for (let s = takeDrained(); s; s = takeDrained()) removeEnded(s, now)
}

// ---- addresses that are not validated

/** Pings the address of a session if its validation requires it. */
export function pingUnvalidated(s: Session, now: Ticks): void {
  if (!s.remote) return
  const remote = changetype<Remote>(s.remote)
  if (validationPingDeadline(remote, now) == 0)
    push(PING, nextValidationPing(remote, unpredictable(), now), addressOf(s))
}

/** An address is validated: continues what waited for that. */
export function onValidated(remote: Remote, now: Ticks): void {
  const at = changetype<usize>(remote)
  if (!validate(remote)) return
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const other = sessionAt(i)
    if (!other || other.remote != at) continue
    if (other.tcp != TCP_NONE) uncountHalfOpen(other)
    if (!has(other, SEND_HELD)) continue
    other.flags &= ~SEND_HELD
    reschedule(other, now)
  }
}

/** Holds the output of a session until its address may be sent more. */
export function hold(s: Session): void {
  s.flags |= SEND_HELD
  awaitValidation(changetype<Remote>(s.remote))
}

// ---- ready list

export function hasReady(): bool {
  return firstReady != 0
}

/** @returns first session of the ready list, which must not be empty */
export function readySession(): Session {
  return changetype<Session>(firstReady)
}

function enqueueReady(s: Session): void {
  if (has(s, IN_READY)) return
  s.flags |= IN_READY
  s.nextReady = 0
  if (lastReady) changetype<Session>(lastReady).nextReady = changetype<usize>(s)
  else firstReady = changetype<usize>(s)
  lastReady = changetype<usize>(s)
}

/** Ends the turn of a session. */
export function dequeueReady(s: Session, more: bool, now: Ticks): void {
  firstReady = s.nextReady
  if (!firstReady) lastReady = 0
  s.flags &= ~IN_READY
  if (more) {
    enqueueReady(s)
    return
  }
  if (isLive(s)) onOutputDrained(s, now)
  if (s.flushMode == FLUSH_INTERVAL) s.flushAt = now + s.flushTicks
  reschedule(s, now)
}

// ---- dirty list

/** Adds a session to the dirty list. */
export function markDirty(s: Session): void {
  if (has(s, IN_DIRTY)) return
  s.flags |= IN_DIRTY
  s.nextDirty = firstDirty
  firstDirty = changetype<usize>(s)
}

/** Processes the sessions that a receive batch changed. */
export function processDirty(now: Ticks): void {
  while (firstDirty) {
    const s = changetype<Session>(firstDirty)
    firstDirty = s.nextDirty
    s.flags &= ~IN_DIRTY
    s.isPrompt = 0
    if (isLive(s)) {
      detectLoss(s, now)
      updateCongestion(s, now)
      checkBlackhole(s, now)
      searchPath(s, now)
    }
    reschedule(s, now)
  }
}

// ---- deadlines

/** Serves the streams that wait for their turn under a rate limit. */
export function checkRates(now: Ticks): void {
  for (let s = serveNext(now); s; s = serveNext(now)) reschedule(s, now)
}

/** Processes every session whose deadline has passed. */
export function checkSessions(now: Ticks): void {
  while (true) {
    const s = earliest()
    if (!s || ticksUntil(s.deadline, now) != 0) return
    cancel(s)
    checkTimeouts(s, now)
    pingUnvalidated(s, now)
    if (isLive(s)) {
      detectLoss(s, now)
      checkBlackhole(s, now)
    }
    reschedule(s, now)
  }
}

/** @returns ticks until `checkSessions` has something to do, at most `limit` */
export function sessionsDeadline(limit: Ticks, now: Ticks): Ticks {
  while (true) {
    const s = earliest()
    if (!s) return limit
    const scheduled = ticksUntil(s.deadline, now)
    if (scheduled >= limit) return limit
    const wanted = sessionDeadline(s, now)
    if (wanted <= scheduled) return scheduled
    postpone(s, now + min(wanted, limit))
  }
}

/** @returns ticks by which the session that is due next may be late: a bulk transfer that waits for pacing */
export function sessionsSlack(now: Ticks): Ticks {
  const s = earliest()
  if (!s || !isLive(s) || has(s, IN_READY | SEND_HELD) || s.flushMode == FLUSH_INTERVAL) return 0
  const wait = segmentDeadline(s, now)
  return wait == 0 || wait > ticksUntil(s.deadline, now) ? 0 : burstDelay(s, now)
}

/** After a suspension every session is due. */
export function wakeSessions(now: Ticks): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s) continue
    cancel(s)
    wake(s, now)
  }
}
