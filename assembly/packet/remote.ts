/*
 * Remote addresses of a server's sessions (docs/validation.md): whether an address is validated, bytes received from it
 * and sent to it before, and its clock, which shows that a first flight is recent.
 *
 * A hash table by keyed hash. Records outlive their sessions for some time; the oldest is replaced.
 */

import { TICKS_PER_SECOND } from '../abi'
import { elapsed, ticksUntil } from '../clock'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { alloc, classOf, excludeFromUse, free } from '../memory/slab'
import { Conv, ElapsedTicks, Sn, Ticks, Ts } from '../units'
import { copyAddress, hashAddress, keyOf, sameAddress } from './address'

/** The address answered. */
const VALIDATED: u32 = 1
/** `clockTs` was seen at `clockAt`. */
const HAS_CLOCK: u32 = 2
/** Something waits for the validation: output that is held, or a session counted as half-open. */
const HAS_WAITERS: u32 = 4
/** `markSn` of `markConv` was sent at `markedAt`. */
const MARKED: u32 = 8

/** Records without a session; the one that has been idle longest is replaced. */
const MAX_IDLE: u32 = 1024
/** A validation is valid this long without a session. */
const VALID_TICKS: ElapsedTicks = 600 * TICKS_PER_SECOND
/** Bytes that may be sent to any address before it is validated; beyond them, FACTOR times the bytes received. */
const FREE_BYTES: u64 = 4096
const FACTOR: u64 = 3
/** Budget for what exceeds that factor, of all addresses together: bytes per second, and burst. */
const BUDGET_RATE: u64 = 256 << 10
const BUDGET_BURST: u64 = 1 << 20
/** PINGs of a validation, and the interval after the first, which doubles. */
const MAX_PINGS: u32 = 5
const PING_PAUSE_TICKS: Ticks = TICKS_PER_SECOND / 4
/** A first flight is recent if its clock differs from the expected one by at most this, in either direction. */
const RECENT_TICKS: Ticks = 8 * TICKS_PER_SECOND
/** kcptun-libev's clock counts milliseconds. */
const TICKS_PER_LIBEV_TICK: u64 = 8
/** A clock is discarded after this time, because clocks drift. */
const CLOCK_TICKS: ElapsedTicks = 6 * 3600 * TICKS_PER_SECOND
/** Minimum interval between marks. */
const MARK_TICKS: ElapsedTicks = 2 * TICKS_PER_SECOND
/** Minimum interval between readings of a clock. */
const LEARN_TICKS: ElapsedTicks = TICKS_PER_SECOND
/** Connections that open at the same time may arrive in a different order. */
const CONV_REORDER: i32 = 64
const NEVER_SENT: i64 = i64.MIN_VALUE

@unmanaged
export class Remote {
  chained: usize
  hash: u32
  address0: u64
  address1: u64
  address2: u64
  received: u64
  sent: u64
  idleAt: ElapsedTicks
  clockAt: ElapsedTicks
  markedAt: ElapsedTicks
  markConv: Conv
  markSn: Sn
  clockTs: Ts
  clockError: Ticks
  newestConv: Conv
  older: usize
  younger: usize
  sessions: u32
  flags: u32
  pings: u32
  pingAt: Ticks
  pingValue: u32
}

const REMOTE_CLASS: u32 = classOf(offsetof<Remote>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))
/** Records without a session. */
const idleList: List = changetype<List>(memory.data(8, 8))
const IDLE_LINKS: usize = offsetof<Remote>('older')
let idleCount: u32 = 0

let budget: u64 = BUDGET_BURST
let budgetAt: ElapsedTicks = 0

function has(r: Remote, flag: u32): bool {
  return (r.flags & flag) != 0
}

function addressOf(r: Remote): usize {
  return changetype<usize>(r) + offsetof<Remote>('address0')
}

/** @returns the record of an address, null if there is none */
export function findRemote(address: usize): Remote | null {
  const hash = hashAddress(address, 0)
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    const r = changetype<Remote>(at)
    if (sameAddress(addressOf(r), address)) return r
  }
  return null
}

/**
 * A session begins at an address.
 * @returns the record of the address; 0 when memory is scarce
 */
export function joinRemote(address: usize): usize {
  const known = findRemote(address)
  if (known) {
    if (known.sessions++ == 0) {
      leaveIdle(known)
      if (elapsed() - known.idleAt >= VALID_TICKS) startValidation(known)
    }
    return changetype<usize>(known)
  }
  let at = alloc(REMOTE_CLASS)
  if (!at && idleList.oldest) {
    evict(changetype<Remote>(idleList.oldest))
    at = alloc(REMOTE_CLASS)
  }
  if (!at) return 0
  memory.fill(at, 0, (<usize>1) << REMOTE_CLASS)
  const r = changetype<Remote>(at)
  if (!link(chains, at, hashAddress(address, 0))) {
    free(at, REMOTE_CLASS)
    return 0
  }
  copyAddress(addressOf(r), address)
  r.sessions = 1
  return at
}

/** A session at the address of a record ended. */
export function leaveRemote(at: usize): void {
  const r = changetype<Remote>(at)
  if (--r.sessions) return
  r.idleAt = elapsed()
  appendEntry(idleList, at, IDLE_LINKS)
  excludeFromUse(1 << REMOTE_CLASS)
  if (++idleCount > MAX_IDLE) evict(changetype<Remote>(idleList.oldest))
}

function leaveIdle(r: Remote): void {
  unlinkEntry(idleList, changetype<usize>(r), IDLE_LINKS)
  excludeFromUse(-(1 << REMOTE_CLASS))
  idleCount--
}

function evict(r: Remote): void {
  const at = changetype<usize>(r)
  leaveIdle(r)
  unlink(chains, at)
  free(at, REMOTE_CLASS)
}

/** Removes the records without a session of peers with a key that is not accepted any more. */
export function evictIdleOf(key: u32): void {
  let at = idleList.oldest
  while (at) {
    const r = changetype<Remote>(at)
    at = r.younger
    if (keyOf(addressOf(r)) == key) evict(r)
  }
}

// ---- validation

function startValidation(r: Remote): void {
  r.flags &= ~VALIDATED
  r.received = r.sent = 0
  r.pings = 0
}

export function isValidated(r: Remote): bool {
  return has(r, VALIDATED)
}

/**
 * The address answered.
 * @returns true if something waited for that
 */
export function validate(r: Remote): bool {
  const isAwaited = has(r, HAS_WAITERS)
  r.flags = (r.flags | VALIDATED) & ~HAS_WAITERS
  return isAwaited
}

/** Something is to be done when the address is validated. */
export function awaitValidation(r: Remote): void {
  r.flags |= HAS_WAITERS
}

/** @returns ticks until the next PING of the validation is due; NEVER if none is */
export function validationPingDeadline(r: Remote, now: Ticks): Ticks {
  if (has(r, VALIDATED) || r.pings >= MAX_PINGS) return u32.MAX_VALUE
  return r.pings == 0 ? 0 : ticksUntil(r.pingAt, now)
}

/**
 * Starts a PING of the validation.
 * @param fresh an unpredictable number
 * @returns value of the PING, the same for all PINGs of a validation
 */
export function nextValidationPing(r: Remote, fresh: u32, now: Ticks): u32 {
  if (r.pings == 0) r.pingValue = fresh
  r.pingAt = now + (PING_PAUSE_TICKS << r.pings)
  r.pings++
  return r.pingValue
}

/** @returns true if a PONG with this value from the address answers its validation */
export function answersValidation(r: Remote, value: u32): bool {
  return !has(r, VALIDATED) && r.pings != 0 && r.pingValue == value
}

/** An authentic datagram of `bytes` arrived from the address. */
export function onReceivedFrom(r: Remote, bytes: u32): void {
  if (!has(r, VALIDATED)) r.received += bytes
}

/** @returns bytes that may be sent to the address now; u32 maximum once it is validated */
export function sendRoom(r: Remote): u32 {
  if (has(r, VALIDATED)) return u32.MAX_VALUE
  const earned = r.received * FACTOR
  if (earned >= FREE_BYTES) return earned > r.sent ? <u32>min<u64>(earned - r.sent, u32.MAX_VALUE - 1) : 0
  const own = earned > r.sent ? earned - r.sent : 0
  const free = FREE_BYTES > r.sent ? FREE_BYTES - max(r.sent, earned) : 0
  return <u32>(own + min(free, refillBudget()))
}

/** `bytes` were sent to the address. */
export function onSentTo(r: Remote, bytes: u32): void {
  if (has(r, VALIDATED)) return
  const earned = r.received * FACTOR
  const before = max(r.sent, earned)
  r.sent += bytes
  if (r.sent > before) budget -= min(budget, r.sent - before)
}

function refillBudget(): u64 {
  budget = min(BUDGET_BURST, budget + ((elapsed() - budgetAt) * BUDGET_RATE) / TICKS_PER_SECOND)
  budgetAt = elapsed()
  return budget
}

// ---- clock of the address

/**
 * A new segment of a conversation was sent to the address. A datagram that acknowledges it was sent later than now,
 * which dates the clock in that datagram.
 */
export function markSent(r: Remote, conv: Conv, sn: Sn): void {
  if (has(r, MARKED) && elapsed() - r.markedAt < MARK_TICKS) return
  r.flags |= MARKED
  r.markedAt = elapsed()
  r.markConv = conv
  r.markSn = sn
}

/** @returns true if a datagram of this conversation may carry a new reading of the clock */
export function needsClock(r: Remote, conv: Conv): bool {
  return has(r, MARKED) && conv == r.markConv && !(has(r, HAS_CLOCK) && elapsed() - r.clockAt < LEARN_TICKS)
}

/**
 * A segment of a conversation at the address carried this clock and una. A recorded segment is too old to acknowledge
 * the mark.
 */
export function learnClock(r: Remote, conv: Conv, ts: Ts, una: Sn): void {
  if (<i32>(una - r.markSn) <= 0 || elapsed() - r.markedAt > <u64>RECENT_TICKS) return
  // a different clock means a different process, whose convs start elsewhere
  if (!isClockPlausible(r, ts) || <i32>(conv - r.newestConv) > 0) r.newestConv = conv
  r.flags |= HAS_CLOCK
  r.clockTs = ts
  r.clockAt = elapsed()
  // upper bound of the time it was in flight
  r.clockError = <u32>(elapsed() - r.markedAt)
}

/** @returns true if `ts` is about the current time by the clock of the address */
function isClockPlausible(r: Remote, ts: Ts): bool {
  return sentAt(r, ts) != NEVER_SENT
}

/**
 * @returns the earliest time at which a segment with this clock was sent, in ticks since the start; NEVER_SENT if the
 *   clock clearly differs from the current time
 */
function sentAt(r: Remote, ts: Ts): i64 {
  const age = elapsed() - r.clockAt
  if (!has(r, HAS_CLOCK) || age >= CLOCK_TICKS) return NEVER_SENT
  const passed = <i64>(<i32>(ts - r.clockTs))
  const shown = <i64>(r.clockAt - <u64>r.clockError)
  if (abs(passed - <i64>age) <= <i64>RECENT_TICKS) return shown + passed
  const libevPassed = passed * <i64>TICKS_PER_LIBEV_TICK
  return abs(libevPassed - <i64>age) <= <i64>RECENT_TICKS ? shown + libevPassed : NEVER_SENT
}

/** @returns true if a first flight with this clock and conv was sent within the last seconds, and after `since` */
export function isRecent(r: Remote, ts: Ts, conv: Conv, since: ElapsedTicks): bool {
  return sentAt(r, ts) > <i64>since && <i32>(conv - r.newestConv) >= -CONV_REORDER
}

/** Sessions move from one address to another, which answered: copies the clock. */
export function inheritClock(r: Remote, from: Remote): void {
  if (!has(from, HAS_CLOCK) || has(r, HAS_CLOCK)) return
  r.flags |= HAS_CLOCK
  r.clockTs = from.clockTs
  r.clockAt = from.clockAt
  r.clockError = from.clockError
  r.newestConv = from.newestConv
}
