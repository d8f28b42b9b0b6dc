/*
 * When and which ACKs leave. Each PUSH inside the window is acknowledged with its own sn and ts (protocol.md 5.6), in
 * order of arrival.
 *
 * Policy: at once on a gap, a duplicate, or many; otherwise a pair or more not oftener than once a millisecond, a lone
 * one after some ms; and with any datagram that leaves anyway. Set by the user, `flush` 2 sends them with every
 * received batch and 0 leaves them to the interval's tick.
 *
 * An ACK of something early is said again in the next datagram, since una cannot repeat it while a hole is open: a lost
 * one would make the peer resend for nothing. Only to a peer whose clock is fresh: an original takes an RTT sample from
 * every ACK, and a repeated one looks like a slow path.
 */

import { TICKS_PER_MS } from '../abi'
import { freeRing, growRing } from '../memory/ring'
import { Sn, Ticks, Ts } from '../units'
import { Conversation } from './conversation'
import { FLUSH_AT_ONCE } from './options'
import { diff } from './segment'

/** An entry is sn and ts of a PUSH. */
const ENTRY_SHIFT: u32 = 3
const ENTRY_TS: usize = 4
const INITIAL_CAPACITY: u32 = 16
/** Most ACKs that wait; a receive batch cannot hold more in honest use. */
const MAX_PENDING: u32 = 8192
/** A ring of up to so many entries stays when no ACK waits. */
const IDLE_CAPACITY: u32 = 1024
/** So many leave at once: half a datagram, the other half is for those said again. */
const MANY: u32 = 20
const LONE_DELAY_TICKS: Ticks = 5 * TICKS_PER_MS
const PAIR_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
/** A fresh clock shows more different ts than this among 32 PUSHes; an original sends a whole flush with one. */
const MIN_FRESH_CHANGES: u32 = 4
/**
 * On a fast link a fresh clock may show less, but in steps smaller than an original's: its clock advances once an
 * interval of at least 10 ms.
 */
const MAX_FRESH_STEP: u32 = 8

export function pendingAcks(c: Conversation): u32 {
  return c.ackEnd - c.ackFirst
}

/** Notes a PUSH to acknowledge. `atOnce`: it opened or filled a gap, or was a duplicate. */
export function queueAck(c: Conversation, sn: Sn, ts: Ts, atOnce: bool, now: Ticks): void {
  const step = ts - c.tsLast
  c.tsChanges = (c.tsChanges << 1) | (step != 0 ? 1 : 0)
  c.tsSteps = (c.tsSteps << 1) | (step != 0 && step < MAX_FRESH_STEP ? 1 : 0)
  c.tsLast = ts
  const held = c.ackEnd - c.ackRepeat
  if (!c.ackRing || held > c.ackMask) {
    const capacity = c.ackRing ? (c.ackMask + 1) * 2 : INITIAL_CAPACITY
    if (capacity > MAX_PENDING) return
    // without any ACK nothing of the peer's would ever be done with: the first ring is part of the segment it answers
    const ring = growRing(c.ackRing, c.ackMask, ENTRY_SHIFT, c.ackRepeat, c.ackEnd, capacity, c.ackRing == 0)
    if (!ring) return
    c.ackRing = ring
    c.ackMask = capacity - 1
  }
  const pending = pendingAcks(c)
  const at = ackAt(c, c.ackEnd++)
  store<u32>(at, sn)
  store<u32>(at, ts, ENTRY_TS)
  if (pending == 0) c.ackDeadline = now + LONE_DELAY_TICKS
  if (atOnce || pending + 1 >= MANY || c.flushMode == FLUSH_AT_ONCE) c.ackAtOnce = 1
  else if (pending == 1 && diff(c.ackLastSentAt + PAIR_DELAY_TICKS, c.ackDeadline) < 0)
    c.ackDeadline = c.ackLastSentAt + PAIR_DELAY_TICKS
}

function ackAt(c: Conversation, n: u32): usize {
  return c.ackRing + ((<usize>(n & c.ackMask)) << ENTRY_SHIFT)
}

/** True when the pending ACKs must leave now. */
export function acksDue(c: Conversation, now: Ticks): bool {
  if (pendingAcks(c) == 0) return false
  return c.ackAtOnce != 0 || diff(c.ackDeadline, now) <= 0
}

/** Takes the oldest pending ACK; `lastSn` and `lastTs` of the conversation then hold it. */
export function takeAck(c: Conversation, now: Ticks): void {
  const at = ackAt(c, c.ackFirst)
  c.lastSn = load<u32>(at)
  c.lastTs = load<u32>(at, ENTRY_TS)
  c.ackFirst++
  if (c.ackFirst == c.ackEnd) {
    c.ackAtOnce = 0
    c.ackLastSentAt = now
  }
}

/** Takes an ACK that is to be said again, of those said before number `until`. False if there is none. */
export function takeRepeatedAck(c: Conversation, end: u32): bool {
  const isFresh = popcnt(c.tsChanges) > MIN_FRESH_CHANGES || c.tsSteps != 0
  while (c.ackRepeat != end) {
    const at = ackAt(c, c.ackRepeat++)
    if (!isFresh || diff(load<u32>(at), c.rcvNxt) < 0) continue
    c.lastSn = load<u32>(at)
    c.lastTs = load<u32>(at, ENTRY_TS)
    return true
  }
  return false
}

/** Frees the ring of a burst that is over. */
export function freeIdleAckRing(c: Conversation): void {
  if (c.ackMask < IDLE_CAPACITY || c.ackFirst != c.ackEnd) return
  closeAcks(c)
}

export function closeAcks(c: Conversation): void {
  freeRing(c.ackRing, c.ackMask, ENTRY_SHIFT)
  c.ackRing = 0
  c.ackMask = 0
  c.ackRepeat = c.ackFirst = c.ackEnd = c.ackAtOnce = 0
}
