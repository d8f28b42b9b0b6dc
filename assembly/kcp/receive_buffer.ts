/*
 * The receive buffer: a ring of payloads indexed by `sn & mask`, from the first unread segment to the last that arrived
 * out of order.
 *
 *   entry (8 bytes): 0 payload address (0 = hole)  4 len  6 class of its block
 *
 * A payload that fills most of its datagram keeps the block it arrived in; others are copied to a block of their size.
 */

import { freeRing, growRing } from '../memory/ring'
import { alloc, allocUrgent, classOf, countReceived, free, mayReceive, PACKET_CLASS } from '../memory/slab'
import { Sn } from '../units'
import { INITIAL_RMTWND, ReceiveBuffer } from './conversation'
import { diff } from './segment'

const ENTRY_SHIFT: u32 = 3
const PAYLOAD: usize = 0
const LEN: usize = 4
const CLASS: usize = 6

const INITIAL_CAPACITY: u32 = 16
/** Maximum distance from the first unread segment to the last one received: two windows. */
const MAX_CAPACITY: u32 = 131072
/** See isNear. */
const FIRST_NEAR: u32 = 16
/** A ring of up to this many entries is kept by an idle session. */
const IDLE_CAPACITY: u32 = 128

/** Results of `storeSegment`. */
export const STORED: u32 = 0
/** Stored, and the buffer now owns the block of the datagram. */
export const STORED_BLOCK: u32 = 1
export const DUPLICATE: u32 = 2
export const NO_MEMORY: u32 = 3

/** @returns address of the ring entry of `sn` */
export function receiveEntry(c: ReceiveBuffer, sn: Sn): usize {
  return c.rcvRing + ((<usize>(sn & c.rcvMask)) << ENTRY_SHIFT)
}

/** @returns payload address of an in-order segment */
export function receivedPayload(c: ReceiveBuffer, sn: Sn): usize {
  return load<usize>(receiveEntry(c, sn), PAYLOAD)
}

/** @returns payload bytes of an in-order segment */
export function receivedLen(c: ReceiveBuffer, sn: Sn): u32 {
  return load<u16>(receiveEntry(c, sn), LEN)
}

/**
 * Stores the payload of a PUSH with rcvNxt <= sn < rcvNxt + rcvWnd. The segment that the reader waits for may use
 * reserved memory, since only it leads to memory being freed. The next in-order segment behind unread ones may not: a
 * reader that stops would consume all of it.
 * @param mayKeep the payload is in a packet block that the buffer may keep
 */
export function storeSegment(c: ReceiveBuffer, sn: Sn, payload: usize, len: u32, mayKeep: bool): u32 {
  const used = sn - c.rcvRead
  const fits = c.rcvRing != 0 && used <= c.rcvMask
  if (fits && load<usize>(receiveEntry(c, sn), PAYLOAD)) return DUPLICATE
  const urgent = used == 0
  if (urgent) c.isPrompt = 1
  else if (!mayReceive(c.rcvHeldBytes, isNear(c, used))) return NO_MEMORY
  if (!fits && !growTo(c, used, urgent)) return NO_MEMORY
  const entry = receiveEntry(c, sn)
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
  hold(c, 1 << cls)
  store<usize>(entry, at, PAYLOAD)
  store<u32>(entry, len | (cls << 16), LEN)
  if (diff(sn, c.rcvTop) >= 0) c.rcvTop = sn + 1
  return kept
}

/**
 * @returns true if the reader is expected to take segment number `used` after the first unread one when the batch is
 *   handled, because everything before the batch was read. The limit is what a peer may send without an announcement,
 *   lower before the first read.
 */
function isNear(c: ReceiveBuffer, used: u32): bool {
  return c.isPrompt != 0 && used < (c.rcvRead < FIRST_NEAR ? FIRST_NEAR : INITIAL_RMTWND)
}

function hold(c: ReceiveBuffer, bytes: i32): void {
  c.rcvHeldBytes += bytes
  countReceived(bytes)
}

function ringBytes(capacity: u32): u32 {
  return capacity << ENTRY_SHIFT
}

/**
 * Grows the ring to hold entry number `used`.
 * @returns false when memory is scarce
 */
function growTo(c: ReceiveBuffer, used: u32, urgent: bool): bool {
  if (used >= MAX_CAPACITY) return false
  const before = c.rcvRing ? c.rcvMask + 1 : 0
  let capacity = before ? before : INITIAL_CAPACITY
  while (used >= capacity) capacity *= 2
  if (!urgent && !mayReceive(c.rcvHeldBytes + ringBytes(capacity), isNear(c, used))) return false
  const ring = growRing(c.rcvRing, c.rcvMask, ENTRY_SHIFT, c.rcvRead, c.rcvTop, capacity, urgent)
  if (!ring) return false
  hold(c, ringBytes(capacity) - ringBytes(before))
  c.rcvRing = ring
  c.rcvMask = capacity - 1
  return true
}

function dropRing(c: ReceiveBuffer): void {
  freeRing(c.rcvRing, c.rcvMask, ENTRY_SHIFT)
  hold(c, -(<i32>ringBytes(c.rcvMask + 1)))
  c.rcvRing = 0
  c.rcvMask = 0
}

/**
 * Advances rcvNxt over segments that are now in order, as far as the queue of unread segments has room (protocol.md
 * 5.5).
 */
export function advanceRcvNxt(c: ReceiveBuffer): void {
  let next = c.rcvNxt
  while (next != c.rcvTop && next - c.rcvRead < c.rcvWnd && load<usize>(receiveEntry(c, next), PAYLOAD)) next++
  c.rcvNxt = next
}

/** Frees the first unread segment. */
export function dropFirst(c: ReceiveBuffer): void {
  release(c, receiveEntry(c, c.rcvRead))
  c.rcvRead++
}

function release(c: ReceiveBuffer, entry: usize): void {
  const cls = <u32>load<u8>(entry, CLASS)
  hold(c, -(1 << cls))
  free(load<usize>(entry, PAYLOAD) & ~(((<usize>1) << cls) - 1), cls)
  store<usize>(entry, 0, PAYLOAD)
}

/** Frees a large ring that holds nothing, because idle sessions must be small. */
export function freeIdleReceiveRing(c: ReceiveBuffer): void {
  if (c.rcvRead == c.rcvTop && c.rcvMask >= IDLE_CAPACITY) dropRing(c)
}

/** Frees everything the buffer holds. */
export function closeReceiveBuffer(c: ReceiveBuffer): void {
  if (!c.rcvRing) return
  for (let sn = c.rcvRead; sn != c.rcvTop; sn++) {
    const entry = receiveEntry(c, sn)
    if (load<usize>(entry, PAYLOAD)) release(c, entry)
  }
  dropRing(c)
  c.rcvTop = c.rcvNxt = c.rcvRead
}
