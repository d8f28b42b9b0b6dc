/*
 * The ACK queue: when ACKs are sent, and which. Each PUSH inside the window is acknowledged with its own sn and ts
 * (protocol.md 5.6), in order of arrival.
 *
 * Policy: immediately on a gap, on a duplicate, or when many are pending; otherwise two or more at most once a
 * millisecond, and a single one after a few milliseconds. Any datagram that is sent for another reason carries the
 * pending ACKs. `flush` 2 sends them with every received batch, `flush` 0 at the flush interval.
 *
 * The ACK of an out-of-order segment is repeated in the next datagram, because una does not cover it while a hole is
 * open: if it were lost, the peer would retransmit the segment. ACKs are repeated only to a peer whose clock is fresh:
 * kcptun-libev takes an RTT sample from every ACK, and a repeated one looks like a higher RTT.
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
/** Maximum number of queued ACKs; a receive batch does not exceed it in legitimate use. */
const MAX_PENDING: u32 = 8192
/** A ring of up to this many entries is kept while no ACK is pending. */
const IDLE_CAPACITY: u32 = 1024
/** This many are sent immediately: half a datagram, the other half is for repeated ACKs. */
const MANY: u32 = 20
const LONE_DELAY_TICKS: Ticks = 5 * TICKS_PER_MS
const PAIR_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
/**
 * A fresh clock shows more different ts than this among 32 PUSHes; kcptun-libev sends all segments of a flush with one
 * ts.
 */
const MIN_FRESH_CHANGES: u32 = 4
/**
 * On a fast link a fresh clock may show fewer changes, but in smaller steps than kcptun-libev, whose clock advances
 * once per interval of at least 10 ms.
 */
const MAX_FRESH_STEP: u32 = 8

/** @returns number of ACKs not sent yet */
export function pendingAcks(c: Conversation): u32 {
  return c.ackEnd - c.ackFirst
}

/**
 * Queues the ACK of a PUSH.
 * @param atOnce the PUSH opened or filled a gap, or was a duplicate
 */
export function queueAck(c: Conversation, sn: Sn, ts: Ts, atOnce: bool, now: Ticks): void {
  const step = ts - c.tsLast
  c.tsChanges = (c.tsChanges << 1) | (step != 0 ? 1 : 0)
  c.tsSteps = (c.tsSteps << 1) | (step != 0 && step < MAX_FRESH_STEP ? 1 : 0)
  c.tsLast = ts
  const held = c.ackEnd - c.ackRepeat
  if (!c.ackRing || held > c.ackMask) {
    const capacity = c.ackRing ? (c.ackMask + 1) * 2 : INITIAL_CAPACITY
    if (capacity > MAX_PENDING) return
    // without any ACK the peer could complete nothing, so the first ring may use reserved memory
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

/** @returns true when the pending ACKs must be sent now */
export function acksDue(c: Conversation, now: Ticks): bool {
  if (pendingAcks(c) == 0) return false
  return c.ackAtOnce != 0 || diff(c.ackDeadline, now) <= 0
}

/** Takes the oldest pending ACK and stores it in `lastSn` and `lastTs`. */
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

/**
 * Takes an ACK to repeat, of those sent before ACK number `end`, and stores it in `lastSn` and `lastTs`.
 * @returns false if there is none
 */
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

/** Frees a large ring while no ACK is pending. */
export function freeIdleAckRing(c: Conversation): void {
  if (c.ackMask < IDLE_CAPACITY || c.ackFirst != c.ackEnd) return
  closeAcks(c)
}

/** Frees the ring and discards its ACKs. */
export function closeAcks(c: Conversation): void {
  freeRing(c.ackRing, c.ackMask, ENTRY_SHIFT)
  c.ackRing = 0
  c.ackMask = 0
  c.ackRepeat = c.ackFirst = c.ackEnd = c.ackAtOnce = 0
}
