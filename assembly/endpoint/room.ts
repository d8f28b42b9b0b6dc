/*
 * Room for new sessions: within `max_sessions`, the limit of half-open ones, and memory. Old ones that nothing is left of
 * yield, and those of a server that still wait for DIAL.
 */

import { CONFIG_MAX_HALF_OPEN, TICKS_PER_SECOND } from '../abi'
import { waitSnd } from '../kcp/conversation'
import { areStreamsInNeed, areStreamsLimited } from '../memory/slab'
import { keyOf } from '../packet/address'
import { countRefused, isKeyFull } from '../packet/keys'
import {
  addressOf,
  EOF_PENDING,
  halfOpenCount,
  has,
  IN_DIRTY,
  IN_EVENTS,
  IN_READY,
  nextOf,
  oldestAwaiting,
  oldestLinger,
  TCP_GONE,
} from '../session/session'
import { endSession } from '../session/stream'
import { isTableFull } from '../session/table'
import { areTombstonesFull } from '../session/tombstones'
import { count, SESSIONS_EVICTED } from '../stats'
import { Ticks } from '../units'
import { field } from './config'
import { evict, reschedule } from './schedule'

/** Limit of sessions of a list that are visited for one to end. */
const MAX_VISITS: u32 = 64
/** The same for a session of one key that is full: those of other keys are passed over. */
const MAX_KEY_VISITS: u32 = 1024
/** Half-open sessions that a server keeps even if memory is scarce. */
const MAX_AWAITING_SCARCE: u32 = 32
const ANY_KEY: u32 = u32.MAX_VALUE
/** Life of a session that waits for DIAL which none takes from it: time for a few round trips. */
const AWAIT_TICKS: Ticks = TICKS_PER_SECOND

/** @returns true if there is room for a session that this side opens */
export function hasRoom(now: Ticks): bool {
  return !isHalfOpenFull() && makeRoom(now)
}

/** @returns true if there is room for a session that a peer with this key opens */
export function hasRoomForPeer(key: u32, now: Ticks): bool {
  if (isKeyFull(key)) {
    evictAwaiting(key, MAX_KEY_VISITS, now)
    if (isKeyFull(key)) {
      countRefused(key)
      return false
    }
  }
  if (isCrowded()) evictAwaiting(ANY_KEY, MAX_VISITS, now)
  return !isHalfOpenFull() && !isMemoryKept() && makeRoom(now)
}

/**
 * Makes room for one more session: evicts one in LINGER if everything it sent is acknowledged and nothing is left for
 * TCP.
 * @returns false if there is none, or if too many sessions ended recently
 */
function makeRoom(now: Ticks): bool {
  if (areTombstonesFull()) return false
  if (!isTableFull()) return true
  let s = oldestLinger()
  for (let i: u32 = 0; i < MAX_VISITS && s; i++) {
    const isDone = waitSnd(s) == 0 && s.rcvRead == s.rcvTop && s.tcp == TCP_GONE
    if (isDone && !has(s, EOF_PENDING | IN_READY | IN_DIRTY | IN_EVENTS)) {
      endSession(s, 0)
      reschedule(s, now)
      return true
    }
    s = nextOf(s)
  }
  return false
}

/**
 * @returns true if a new session of a server takes the place of one that waits for DIAL. In memory they yield before
 *   they take from the streams that are open.
 */
function isCrowded(): bool {
  return isTableFull() || isHalfOpenFull() || areStreamsLimited()
}

/** @returns true if memory is kept for open streams: many sessions that wait for DIAL, none of which may yield, have their share */
function isMemoryKept(): bool {
  return areStreamsInNeed() && halfOpenCount() >= MAX_AWAITING_SCARCE
}

/**
 * Ends the session that has waited for DIAL longest: its peer may never answer, as that of a replayed first flight, and
 * the new one may be served after a round trip. One that is genuine is opened again by its next datagram, or reset.
 * @param key whose session it is, or ANY_KEY
 */
function evictAwaiting(key: u32, visits: u32, now: Ticks): void {
  let s = oldestAwaiting()
  for (let i: u32 = 0; i < visits && s; i++) {
    if (now - s.created < AWAIT_TICKS) return
    if ((key == ANY_KEY || keyOf(addressOf(s)) == key) && !has(s, IN_READY | IN_DIRTY | IN_EVENTS)) {
      evict(s, now)
      count(SESSIONS_EVICTED)
      return
    }
    s = nextOf(s)
  }
}

/** @returns true if the limit of half-open sessions is reached: those without DIAL or without an answer */
function isHalfOpenFull(): bool {
  return field(CONFIG_MAX_HALF_OPEN) != 0 && halfOpenCount() >= field(CONFIG_MAX_HALF_OPEN)
}
