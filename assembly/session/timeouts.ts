/*
 * Lifetime of sessions (protocol.md 6.7), exact to the tick and without the defects of kcptun-libev: both directions
 * count as progress, no session ends while data are in flight and the peer is alive, TIME_WAIT counts from its entry,
 * and KEEPALIVEs are sent early enough.
 */

import {
  REASON_LINGER,
  REASON_NO_ANSWER,
  REASON_RESET,
  REASON_STALE_PEER,
  REASON_TIMEOUT,
  TICKS_PER_SECOND,
} from '../abi'
import { NEVER, remaining } from '../clock'
import { sendReset } from '../control/queue'
import { PROBE_ASK, waitSnd } from '../kcp/conversation'
import { setClockTolerance } from '../kcp/input'
import { HEADER_BYTES } from '../kcp/segment'
import { Seconds, Ticks } from '../units'
import {
  addressOf,
  CONNECT,
  DRAINING,
  EOF_PENDING,
  EOF_RECEIVED,
  EOF_SENT,
  ESTABLISHED,
  has,
  INITIATOR,
  KEEPALIVE_PENDING,
  LINGER,
  RESET_CHALLENGED,
  Session,
  STREAM_INVALID,
  TCP_NONE,
  TIME_WAIT,
} from './session'
import { endSession, resetByPeer, sendKeepalive } from './stream'

/** For a client session without an answer, and a server session without DIAL. */
const OPEN_LIMIT_TICKS: Ticks = 30 * TICKS_PER_SECOND
/**
 * For a conversation that began midway: its beginning went to a server that has restarted since, if the peer still sends
 * something else after this time. Silence says nothing: what was acknowledged meanwhile would be lost with the session.
 */
const STALE_LIMIT_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** Interval between checks whether a first flight is genuine. */
const CONFIRM_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 2
/** kcptun-libev ends a session after `linger` without stream data from us; its minimum is 5 s. */
const MAX_PROTECT_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** A session whose peer was suspended for longer than `timeout` is over; the rest is for clocks that drift. */
const CLOCK_MARGIN_TICKS: Ticks = 600 * TICKS_PER_SECOND
/** A client that waits for the end of the stream asks at this part of `linger`. */
const ASKS_PER_LINGER: u32 = 8

let timeoutTicks: Ticks = 0
let lingerTicks: Ticks = 0

/** Sets the configured timeouts. */
export function setTimeouts(timeout: Seconds, linger: Seconds): void {
  timeoutTicks = timeout * TICKS_PER_SECOND
  lingerTicks = linger * TICKS_PER_SECOND
  setClockTolerance(timeoutTicks + CLOCK_MARGIN_TICKS)
}

/** A RESET is accepted after this time of silence, at least three RTOs; the peer is asked this many times meanwhile. */
const RESET_LIMIT_TICKS: Ticks = (12 * TICKS_PER_SECOND) / 10
const RESET_CHALLENGES: u32 = 3

function resetLimit(s: Session): Ticks {
  return max(3 * s.rto, RESET_LIMIT_TICKS)
}

/** @returns ticks until a RESET is accepted, or the peer is asked again */
function resetDeadline(s: Session, now: Ticks): Ticks {
  const limit = resetLimit(s)
  const left = remaining(s.resetAt, limit, now)
  if (left == 0) return 0
  const pause = limit / RESET_CHALLENGES
  return min(left, pause - ((now - s.resetAt) % pause))
}

/** @returns true while bytes wait for TCP or for an acknowledgement */
function isInFlight(s: Session): bool {
  return s.rcvRead != s.rcvNxt || waitSnd(s) != 0 || has(s, EOF_PENDING)
}

/** @returns true while a segment is missing before one that arrived */
function hasHole(s: Session): bool {
  return s.rcvNxt != s.rcvTop
}

function isStale(s: Session): bool {
  return s.rcvNxt == 0 && s.rcvTop != 0 && s.tcp == TCP_NONE
}

/** @returns ticks until the session ends if nothing happens */
function endDeadline(s: Session, now: Ticks): Ticks {
  // it waits for the host to take its last events
  if (s.state == TIME_WAIT) return NEVER
  if (s.state == CONNECT) return remaining(s.created, OPEN_LIMIT_TICKS, now)
  if (s.tcp == TCP_NONE) {
    if (isStale(s) && s.signAt - s.created >= STALE_LIMIT_TICKS) return 0
    return remaining(s.created, OPEN_LIMIT_TICKS, now)
  }
  if (isInFlight(s)) return remaining(has(s, DRAINING) ? s.payloadAt : s.signAt, timeoutTicks, now)
  if (s.state == LINGER || has(s, STREAM_INVALID)) return remaining(s.signAt, lingerTicks, now)
  if (has(s, EOF_SENT) || has(s, EOF_RECEIVED)) {
    return min(remaining(s.signAt, lingerTicks, now), remaining(s.payloadAt, timeoutTicks, now))
  }
  const silent = remaining(s.signAt, timeoutTicks, now)
  // a peer that is alive but does not fill the hole has had an ACK of it, from a server that has restarted since
  return hasHole(s) ? min(silent, remaining(s.payloadAt, timeoutTicks, now)) : silent
}

/** @returns ticks until a KEEPALIVE is due */
function keepaliveDeadline(s: Session, now: Ticks): Ticks {
  // una acknowledged it because its ACK was lost: that confirms nothing
  if (s.confirm) return waitSnd(s) != 0 ? NEVER : remaining(s.queuedAt, max(s.rto, CONFIRM_PAUSE_TICKS), now)
  if (s.state != ESTABLISHED || s.tcp == TCP_NONE || has(s, DRAINING | STREAM_INVALID) || waitSnd(s) != 0) return NEVER
  const protect = max(min(lingerTicks / 2, MAX_PROTECT_TICKS), 2 * TICKS_PER_SECOND)
  // a hole proves that data are in flight
  if (has(s, KEEPALIVE_PENDING) || s.rcvRead != s.rcvTop) return remaining(s.queuedAt, protect, now)
  if (has(s, EOF_SENT)) return NEVER
  // the side that may still send keeps a half-closed session alive
  if (has(s, EOF_RECEIVED)) return remaining(s.queuedAt, protect, now)
  return remaining(s.queuedAt, has(s, INITIATOR) ? timeoutTicks / 2 : (timeoutTicks / 4) * 3, now)
}

/**
 * A client that has ended its direction sends nothing by itself, so a server would never learn its new address. When the
 * server's KEEPALIVEs stay out, it asks for an answer before `linger` ends the session.
 * @returns ticks until a WASK is due
 */
function askDeadline(s: Session, now: Ticks): Ticks {
  const isWaiting = s.state == ESTABLISHED && has(s, EOF_SENT) && !has(s, EOF_RECEIVED | DRAINING)
  if (!isWaiting || !has(s, INITIATOR) || waitSnd(s) != 0) return NEVER
  return max(remaining(s.signAt, lingerTicks / 2, now), remaining(s.queuedAt, lingerTicks / ASKS_PER_LINGER, now))
}

/** @returns ticks until `checkTimeouts` has something to do */
export function timeoutDeadline(s: Session, now: Ticks): Ticks {
  const wanted = min(min(endDeadline(s, now), keepaliveDeadline(s, now)), askDeadline(s, now))
  return has(s, RESET_CHALLENGED) ? min(wanted, resetDeadline(s, now)) : wanted
}

/** Performs what is due. */
export function checkTimeouts(s: Session, now: Ticks): void {
  if (endDeadline(s, now) == 0) {
    if (isStale(s) || (s.state == ESTABLISHED && hasHole(s))) sendReset(s.conv, addressOf(s), HEADER_BYTES)
    endSession(s, reasonOf(s))
  } else if (has(s, RESET_CHALLENGED) && resetDeadline(s, now) == 0) {
    s.flags &= ~RESET_CHALLENGED
    resetByPeer(s, REASON_RESET)
  } else if (keepaliveDeadline(s, now) == 0) {
    sendKeepalive(s, now)
  } else if (askDeadline(s, now) == 0) {
    s.queuedAt = now
    s.wndProbes |= PROBE_ASK
  } else if (has(s, RESET_CHALLENGED)) {
    s.wndProbes |= PROBE_ASK
  }
}

function reasonOf(s: Session): u32 {
  if (s.state == CONNECT) return REASON_NO_ANSWER
  if (isStale(s)) return REASON_STALE_PEER
  return has(s, EOF_SENT) || has(s, EOF_RECEIVED) ? REASON_LINGER : REASON_TIMEOUT
}
