/*
 * The receive window: a ring of payloads indexed by `sn & mask`, from the first unread segment to the last that may
 * arrive early.
 *
 *   entry (8 bytes): 0 payload address (0 = hole)  4 len  6 class of the block it lies in
 *
 * A payload that fills most of its datagram keeps the block it arrived in; others are copied to a block of their size.
 */

import { freeRing, growRing } from '../memory/ring'
import { alloc, allocUrgent, classOf, free, PACKET_CLASS } from '../memory/slab'
import { Conversation } from './conversation'
import { diff } from './segment'

const ENTRY_SHIFT: u32 = 3
const PAYLOAD: usize = 0
const LEN: usize = 4
const CLASS: usize = 6

const INITIAL_CAPACITY: u32 = 16
/** Most segments from the first unread to the last early one: two windows. */
const MAX_CAPACITY: u32 = 131072
/** A ring of up to so many entries stays with an idle session. */
const IDLE_CAPACITY: u32 = 128

/** Results of `storeSegment`. */
export const STORED: u32 = 0
/** Stored, and the block of the datagram now belongs to the window. */
export const STORED_BLOCK: u32 = 1
export const DUPLICATE: u32 = 2
export const NO_MEMORY: u32 = 3

export function recvEntry(c: Conversation, sn: u32): usize {
  return c.rcvRing + ((<usize>(sn & c.rcvMask)) << ENTRY_SHIFT)
}

/** Payload address of an in-order segment. */
export function recvPayload(c: Conversation, sn: u32): usize {
  return load<usize>(recvEntry(c, sn), PAYLOAD)
}

export function recvLen(c: Conversation, sn: u32): u32 {
  return load<u16>(recvEntry(c, sn), LEN)
}

/**
 * Keeps the payload of a PUSH with rcvNxt <= sn < rcvNxt + rcvWnd. `mayKeep` tells that the payload lies in a packet
 * block which the window may keep. The segment that moves rcvNxt may use reserved memory: it alone can lead to memory
 * being freed.
 */
export function storeSegment(c: Conversation, sn: u32, payload: usize, len: u32, mayKeep: bool): u32 {
  const used = sn - c.rcvRead
  if (!c.rcvRing || used > c.rcvMask) {
    if (used >= MAX_CAPACITY) return NO_MEMORY
    let capacity = c.rcvRing ? c.rcvMask + 1 : INITIAL_CAPACITY
    while (used >= capacity) capacity *= 2
    const ring = growRing(c.rcvRing, c.rcvMask, ENTRY_SHIFT, c.rcvRead, c.rcvTop, capacity)
    if (!ring) return NO_MEMORY
    c.rcvRing = ring
    c.rcvMask = capacity - 1
  }
  const entry = recvEntry(c, sn)
  if (load<usize>(entry, PAYLOAD)) return DUPLICATE
  const urgent = sn == c.rcvNxt
  let kept = STORED_BLOCK
  let at = payload
  let cls = PACKET_CLASS
  if (!mayKeep) {
    kept = STORED
    cls = classOf(max<u32>(len, 1))
    at = urgent ? allocUrgent(cls) : alloc(cls)
    if (!at) return NO_MEMORY
    memory.copy(at, payload, len)
  }
  store<usize>(entry, at, PAYLOAD)
  store<u32>(entry, len | (cls << 16), LEN)
  if (diff(sn, c.rcvTop) >= 0) c.rcvTop = sn + 1
  return kept
}

/** Moves rcvNxt over what is now in order, as long as the queue of unread segments has room (protocol.md 5.5). */
export function advanceRcvNxt(c: Conversation): void {
  let next = c.rcvNxt
  while (next != c.rcvTop && next - c.rcvRead < c.rcvWnd && load<usize>(recvEntry(c, next), PAYLOAD)) next++
  c.rcvNxt = next
}

/** Frees the first unread segment. */
export function dropFirst(c: Conversation): void {
  release(recvEntry(c, c.rcvRead))
  c.rcvRead++
}

function release(entry: usize): void {
  const cls = <u32>load<u8>(entry, CLASS)
  free(load<usize>(entry, PAYLOAD) & ~(((<usize>1) << cls) - 1), cls)
  store<usize>(entry, 0, PAYLOAD)
}

/** Frees the ring of a window that holds nothing, if it is more than a small one: idle sessions are to be cheap. */
export function freeIdleRecvRing(c: Conversation): void {
  if (c.rcvRead != c.rcvTop || c.rcvMask < IDLE_CAPACITY) return
  freeRing(c.rcvRing, c.rcvMask, ENTRY_SHIFT)
  c.rcvRing = 0
  c.rcvMask = 0
}

/** Frees everything the window holds. */
export function closeRecvWindow(c: Conversation): void {
  if (!c.rcvRing) return
  for (let sn = c.rcvRead; sn != c.rcvTop; sn++) {
    const entry = recvEntry(c, sn)
    if (load<usize>(entry, PAYLOAD)) release(entry)
  }
  freeRing(c.rcvRing, c.rcvMask, ENTRY_SHIFT)
  c.rcvRing = 0
  c.rcvTop = c.rcvNxt = c.rcvRead
}
