/*
 * Sessions whose peer appears at another address (docs/validation.md, "Migration"). A datagram from there moves
 * nothing: both addresses are pinged. If the old one answers or sends a segment, its sessions stay. If only the new one
 * answered after a round trip, they move, and move back if the old one answers soon after.
 *
 * A NAT that assigns a new port to a client moves all its sessions, so the state is kept per pair of addresses, and all
 * sessions of the old address move, also those of which nothing has arrived from the new one: their peer may be waiting
 * for an answer, and send nothing.
 */

import { EVENT_MIGRATED, TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { NEW_PING, OLD_PING, sendPing } from '../control/pings'
import { changePath } from '../kcp/congestion'
import { copyAddress, sameAddress, sameKey } from '../packet/address'
import { findRemote, inheritClock, joinRemote, leaveRemote, Remote } from '../packet/remote'
import { queueEvent } from '../session/events'
import {
  addressOf,
  CONNECT,
  has,
  MOVED,
  MOVING,
  SEND_HELD,
  Session,
  TCP_GONE,
  TCP_NONE,
  uncountHalfOpen,
} from '../session/session'
import { find, firstOfConv, nextOfConv, rekey, sessionAt, slotsInUse } from '../session/table'
import { Ticks } from '../units'
import { followPeer } from './peer'
import { isLive, onValidated, reschedule } from './schedule'

@unmanaged
class Pair {
  old0: u64
  old1: u64
  old2: u64
  new0: u64
  new1: u64
  new2: u64
  state: u32
  startedAt: Ticks
  // when the old address has had time to answer; when the state ends
  dueAt: Ticks
  endsAt: Ticks
  questions: u32
  generation: u32
  // which of them answered a PING
  oldAnswered: bool
  newAnswered: bool
}

const FREE: u32 = 0
/** Both were pinged. */
const ASKED: u32 = 1
/** Only the new one answered so far. */
const NEW_ANSWERED: u32 = 2
/** The sessions of the old address moved to the new one. */
const MOVED_PAIR: u32 = 3
/** The old address is alive. */
const STAYED: u32 = 4

/** Number of pairs; one whose sessions have moved or stayed is replaced first. */
const PAIRS: u32 = 256
const PAIR_BYTES: u32 = 80
const pairs: usize = memory.data(256 * 80, 8)
let last: u32 = 0

/** Without an answer a check ends after this time, and the next datagram starts another; maximum number of PINGs. */
const ASKED_TICKS: Ticks = 3 * TICKS_PER_SECOND
const MAX_QUESTIONS: u32 = 4
/** The old address may answer this much later and its sessions still return. */
const RETURN_TICKS: Ticks = 3 * TICKS_PER_SECOND
/** Sessions that follow within this time move without a check. */
const MOVED_TICKS: Ticks = 60 * TICKS_PER_SECOND
/** After the old address answered, datagrams from the new one start no check for this long. */
const STAYED_TICKS: Ticks = TICKS_PER_SECOND
/** Minimum time allowed for an answer beyond the smoothed RTT; RTT before the first sample. */
const MIN_VARIANCE_TICKS: Ticks = 4 * TICKS_PER_MS
const UNKNOWN_RTT_TICKS: Ticks = 200 * TICKS_PER_MS
const MAX_WAIT_TICKS: Ticks = TICKS_PER_SECOND

function pairAt(i: u32): Pair {
  return changetype<Pair>(pairs + <usize>(i * PAIR_BYTES))
}

function oldOf(p: Pair): usize {
  return changetype<usize>(p)
}

function newOf(p: Pair): usize {
  return changetype<usize>(p) + offsetof<Pair>('new0')
}

function isOver(p: Pair, now: Ticks): bool {
  return p.state == FREE || ticksUntil(p.endsAt, now) == 0
}

/** @returns the pair of these addresses, null if there is none */
function findPair(old: usize, address: usize, now: Ticks): Pair | null {
  for (let i: u32 = 0; i < last; i++) {
    const p = pairAt(i)
    if (!isOver(p, now) && sameAddress(oldOf(p), old) && sameAddress(newOf(p), address)) return p
  }
  return null
}

/** @returns an entry for a new pair: a free one, or one whose sessions have moved or stayed */
function makePair(now: Ticks): Pair | null {
  let found: Pair | null = null
  for (let i: u32 = 0; i < PAIRS; i++) {
    const p = pairAt(i)
    if (isOver(p, now)) {
      last = max(last, i + 1)
      return p
    }
    if (!found && (p.state == MOVED_PAIR || p.state == STAYED)) found = p
  }
  return found
}

/**
 * A datagram that continues `s` arrived from `address`.
 * @returns true if it is to be accepted: it is authentic, and comes from the peer whatever its address
 */
export function onOtherAddress(s: Session, address: usize, now: Ticks): bool {
  let p = findPair(addressOf(s), address, now)
  if (p && p.state == MOVED_PAIR) {
    move(s, address, true, now)
    return true
  }
  if (p && p.state == STAYED) return true
  if (!p) {
    p = makePair(now)
    if (!p) return true
    copyAddress(oldOf(p), addressOf(s))
    copyAddress(newOf(p), address)
    p.state = ASKED
    p.generation++
    p.questions = 0
    p.oldAnswered = false
    p.newAnswered = false
    p.startedAt = now
    p.endsAt = now + ASKED_TICKS
    const rtt = s.srtt ? s.srtt : UNKNOWN_RTT_TICKS
    p.dueAt = now + min(rtt + max(4 * s.rttvar, MIN_VARIANCE_TICKS), MAX_WAIT_TICKS)
  }
  s.flags |= MOVING
  const pause = (p.dueAt - p.startedAt) * p.questions
  if (p.state == ASKED && p.questions < MAX_QUESTIONS && now - p.startedAt >= pause) pingBoth(p, now)
  return true
}

/**
 * The first flight of `s` arrived again, from `address`: its peer has moved before it received an answer, or another
 * client uses the same conv. Both addresses are pinged.
 * @returns true if both have answered a PING, so it is another client; a late segment of the old address does not count
 */
export function isOtherPeer(s: Session, address: usize, now: Ticks): bool {
  onOtherAddress(s, address, now)
  const p = findPair(addressOf(s), address, now)
  return p ? p.oldAnswered && p.newAnswered : false
}

function pingBoth(p: Pair, now: Ticks): void {
  const argument = (p.generation << 8) | (<u32>(changetype<usize>(p) - pairs) / PAIR_BYTES)
  p.questions++
  sendPing(OLD_PING, argument, oldOf(p), now)
  sendPing(NEW_PING, argument, newOf(p), now)
}

/** A segment of `s` arrived from its old address. */
export function onOldAddress(s: Session, now: Ticks): void {
  s.flags &= ~MOVING
  for (let i: u32 = 0; i < last; i++) {
    const p = pairAt(i)
    if (!isOver(p, now) && sameAddress(oldOf(p), addressOf(s))) stay(p, now)
  }
}

/** The old or the new address of a pair answered. */
export function onMovePong(argument: u32, isNew: bool, now: Ticks): void {
  const p = pairAt(argument & (PAIRS - 1))
  if (((p.generation << 8) | (argument & (PAIRS - 1))) != argument || isOver(p, now)) return
  if (isNew) p.newAnswered = true
  else p.oldAnswered = true
  if (!isNew) stay(p, now)
  else if (p.state == ASKED) p.state = NEW_ANSWERED
  checkMoves(now)
}

/** The old address is alive: its sessions stay, or move back. */
function stay(p: Pair, now: Ticks): void {
  if (p.state == MOVED_PAIR) {
    if (now - p.dueAt > RETURN_TICKS) return
    moveAll(newOf(p), oldOf(p), true, p.oldAnswered, now)
  }
  p.state = STAYED
  p.endsAt = now + STAYED_TICKS
}

/** Moves the sessions of pairs that are due. */
export function checkMoves(now: Ticks): void {
  for (let i: u32 = 0; i < last; i++) {
    const p = pairAt(i)
    if (p.state != NEW_ANSWERED || ticksUntil(p.dueAt, now) != 0) continue
    p.state = MOVED_PAIR
    p.dueAt = now
    p.endsAt = now + MOVED_TICKS
    moveAll(oldOf(p), newOf(p), false, true, now)
  }
}

/** @returns ticks until `checkMoves` has something to do */
export function movesDeadline(now: Ticks): Ticks {
  let wanted = NEVER
  for (let i: u32 = 0; i < last; i++) {
    const p = pairAt(i)
    if (p.state == NEW_ANSWERED) wanted = min(wanted, ticksUntil(p.dueAt, now))
  }
  return wanted
}

/**
 * Moves the sessions at `from`.
 * @param onlyMoved only those that moved before
 * @param answered `to` answered a PING
 */
function moveAll(from: usize, to: usize, onlyMoved: bool, answered: bool, now: Ticks): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || !isLive(s) || s.state == CONNECT || !sameAddress(addressOf(s), from)) continue
    if (onlyMoved && !has(s, MOVED)) continue
    move(s, to, answered, now)
    reschedule(s, now)
  }
}

/** @param answered the new address answered a PING, so it needs no validation of its own */
function move(s: Session, address: usize, answered: bool, now: Ticks): void {
  if (find(address, s.conv) || isReplica(s)) return
  followPeer(addressOf(s), address)
  if (s.remote) moveRemote(s, address, answered)
  rekey(s, address)
  changePath(s, addressOf(s), now)
  s.flags = (s.flags & ~(MOVING | SEND_HELD)) | MOVED
  if (s.remote) {
    if (answered) onValidated(changetype<Remote>(s.remote), now)
    if (s.tcp != TCP_NONE) uncountHalfOpen(s)
  }
  if (s.tcp != TCP_GONE) queueEvent(s, EVENT_MIGRATED)
}

/**
 * @returns true if a session is not confirmed while another one has its conv: somebody may have replayed the first flight
 *   of that one, which is the one that the peer means
 */
function isReplica(s: Session): bool {
  if (s.confirm == 0) return false
  let other = firstOfConv(s.conv)
  while (other && (other == s || !isLive(other) || other.confirm != 0 || !sameKey(addressOf(s), addressOf(other))))
    other = nextOfConv(other)
  return other != null
}

function moveRemote(s: Session, address: usize, answered: bool): void {
  const next = joinRemote(address)
  if (!next) return
  const before = findRemote(addressOf(s))
  if (before && answered) inheritClock(changetype<Remote>(next), before)
  leaveRemote(s.remote)
  s.remote = next
}
