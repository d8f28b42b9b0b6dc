/*
 * When and which ACKs leave. Each PUSH inside the window is acknowledged with its own sn and ts (protocol.md 5.6), in order of arrival.
 *
 * Policy: at once on a gap, a duplicate, or many; otherwise a pair or more not oftener than once a millisecond, a lone one after some ms; and with any datagram that
 * leaves anyway. Set by the user, `flush` 2 sends them with every received batch and 0 leaves them to the interval's tick.
 */
import { TICKS_PER_MS } from '../abi'
import { freeRing, growRing } from '../memory/ring'
import { Conversation, flushMode } from './conversation'

const ENTRY_SHIFT: u32 = 3
const INITIAL_CAPACITY: u32 = 16
/** Most ACKs that wait; a receive batch cannot hold more in honest use. */
const MAX_PENDING: u32 = 8192
/** So many leave at once: half a datagram. */
const MANY: u32 = 24
const LONE_DELAY_TICKS: u32 = 5 * TICKS_PER_MS
const PAIR_DELAY_TICKS: u32 = 1 * TICKS_PER_MS

export function pendingAcks(c: Conversation): u32 {
  return c.ackEnd - c.ackFirst
}

/** Notes a PUSH to acknowledge. `atOnce`: it opened or filled a gap, or was a duplicate. */
export function noteAck(c: Conversation, sn: u32, ts: u32, atOnce: bool, now: u32): void {
  const pending = pendingAcks(c)
  if (!c.ackRing || pending > c.ackMask) {
    const capacity = c.ackRing ? (c.ackMask + 1) * 2 : INITIAL_CAPACITY
    if (capacity > MAX_PENDING) return
    const ring = growRing(c.ackRing, c.ackMask, ENTRY_SHIFT, c.ackFirst, c.ackEnd, capacity)
    if (!ring) return
    c.ackRing = ring
    c.ackMask = capacity - 1
  }
  const at = c.ackRing + ((<usize>(c.ackEnd & c.ackMask)) << ENTRY_SHIFT)
  store<u32>(at, sn)
  store<u32>(at, ts, 4)
  c.ackEnd++
  if (pending == 0) c.ackDue = now + LONE_DELAY_TICKS
  if (atOnce || pending + 1 >= MANY || flushMode == 2) c.ackAtOnce = 1
  else if (pending == 1 && <i32>(c.ackLast + PAIR_DELAY_TICKS - c.ackDue) < 0) c.ackDue = c.ackLast + PAIR_DELAY_TICKS
}

/** True when the pending ACKs must leave now. */
export function acksDue(c: Conversation, now: u32): bool {
  if (pendingAcks(c) == 0) return false
  return c.ackAtOnce != 0 || <i32>(c.ackDue - now) <= 0
}

/** Takes the oldest pending ACK; `lastSn` and `lastTs` of the conversation then hold it. */
export function takeAck(c: Conversation, now: u32): void {
  const at = c.ackRing + ((<usize>(c.ackFirst & c.ackMask)) << ENTRY_SHIFT)
  c.lastSn = load<u32>(at)
  c.lastTs = load<u32>(at, 4)
  c.ackFirst++
  if (c.ackFirst == c.ackEnd) {
    c.ackAtOnce = 0
    c.ackLast = now
  }
}

export function closeAcks(c: Conversation): void {
  freeRing(c.ackRing, c.ackMask, ENTRY_SHIFT)
  c.ackRing = 0
  c.ackFirst = c.ackEnd = c.ackAtOnce = 0
}
