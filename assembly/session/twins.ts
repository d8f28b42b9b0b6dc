/*
 * Sessions with the same conv and the same first flight at different addresses (docs/validation.md, "First flights"):
 * two clients, or one client and somebody who relays between it and the server. The one client would confirm them all,
 * and have its target dialled as often.
 *
 * One client has one conversation, and announces what it received in it to whoever relays: after more segments of the
 * one session were acknowledged than the other one has sent, every una of that client is too high for the other one.
 * So another session is served only if its peer acknowledges, after that, with an una of its own.
 *
 * These functions may change every session of the conv: the caller reschedules them.
 */

import { REASON_STALE_PEER } from '../abi'
import { closeConfirm, confirmAnew, NO_TWIN, TWIN_ASKED, twinUna } from '../kcp/confirm'
import { diff } from '../kcp/segment'
import { sameKey } from '../packet/address'
import { Sn, Ticks } from '../units'
import { addressOf, DIALLED, EOF_SENT, ESTABLISHED, HAS_TWIN, has, INITIATOR, Session, TIME_WAIT } from './session'
import { endSession, sendKeepalive } from './stream'
import { firstOfConv, nextOfConv } from './table'

/** @returns true if one client may be the peer of both sessions, of which `other` is served */
function isTwin(s: Session, other: Session): bool {
  if (other == s || other.confirm || has(other, INITIATOR) || !sameKey(addressOf(s), addressOf(other))) return false
  if (other.state == TIME_WAIT && !has(other, DIALLED)) return false
  return s.rcvNxt == 0 || other.rcvNxt == 0 || s.firstHash == other.firstHash
}

/** @returns the lowest una of the sessions that are served and may have the same peer; NO_TWIN if there are none */
function lowestUna(s: Session): Sn {
  let una = NO_TWIN
  let other = firstOfConv(s.conv)
  while (other) {
    if (isTwin(s, other) && (una == NO_TWIN || diff(other.sndUna, una) < 0)) una = max(other.sndUna, TWIN_ASKED)
    other = nextOfConv(other)
  }
  return una
}

/**
 * The peer of an unconfirmed session acknowledged a transmission of it.
 * @returns true if the session is confirmed; false if it has to be once more, or by more
 */
export function confirm(s: Session, now: Ticks): bool {
  if (lowestUna(s) == NO_TWIN || isDistinct(s)) {
    closeConfirm(s)
    return true
  }
  confirmAnew(s, TWIN_ASKED)
  let other = firstOfConv(s.conv)
  while (other) {
    if (isTwin(s, other)) {
      other.flags |= HAS_TWIN
      onTwinAcknowledged(other, now)
    }
    other = nextOfConv(other)
  }
  return false
}

/** @returns true if the peers of the other sessions had acknowledged more than this one has sent */
function isDistinct(s: Session): bool {
  const una = twinUna(s)
  return una != NO_TWIN && una != TWIN_ASKED && diff(s.sndEnd, una) < 0
}

/** @returns true if no peer of `s` announces this una, even if it receives one more segment */
function isBeyond(una: Sn, s: Session): bool {
  return diff(una, s.sndEnd + 1) > 0
}

/** Asks the peer of an unconfirmed session again. */
function askAnew(s: Session, una: Sn, now: Ticks): void {
  confirmAnew(s, una)
  sendKeepalive(s, now)
}

/** The peer of a session for which another one waits acknowledged something: asks the peer of that one, or goes on. */
export function onTwinAcknowledged(twin: Session, now: Ticks): void {
  let isMissing = false
  let s = firstOfConv(twin.conv)
  while (s) {
    if (s.confirm && twinUna(s) == TWIN_ASKED && isTwin(s, twin)) {
      const una = lowestUna(s)
      if (isBeyond(una, s)) askAnew(s, una, now)
      else isMissing = true
    }
    s = nextOfConv(s)
  }
  if (!isMissing) twin.flags &= ~HAS_TWIN
  else if (twin.state == ESTABLISHED && !has(twin, EOF_SENT)) sendKeepalive(twin, now)
}

/**
 * A session that was served is removed. Another that may be a copy of it ends, if nothing can distinguish them any more.
 * @returns true if `s` was changed
 */
export function onTwinEnded(s: Session, twin: Session, now: Ticks): bool {
  if (!s.confirm || !isTwin(s, twin) || isDistinct(s)) return false
  if (isBeyond(twin.sndUna, s)) askAnew(s, twin.sndUna, now)
  else endSession(s, REASON_STALE_PEER)
  return true
}
