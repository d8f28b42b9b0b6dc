/*
 * The send buffer: a ring of segments indexed by `sn & mask`, each with its own block for header and payload.
 *
 *   entry (64 bytes): 0 block  4 len  6 state  7 transmissions  8 time of the last one  12 previous sn  16 next sn
 *                     20 list  21 copies  22 cause of loss  23 class of the block  36 capacity: payload bytes that fit
 *                     24 delivered  28 delivered at  32 first sent at: snapshot of delivery_rate.ts at the transmission
 *                     38 how the last transmission left (endpoint/runs.ts)
 *   block:            [ headroom 64 ][ KCP header 24 ][ payload ][ room for padding ]
 *
 * A sent segment is in one of two doubly linked lists, in flight (ordered by time of transmission) or lost, so that
 * loss detection only reads list heads and an ACK unlinks its segment in O(1).
 */

import { freeRing, growRing } from '../memory/ring'
import { alloc, allocUrgent, classOf, countSent, free, HEADROOM_BYTES } from '../memory/slab'
import { Sn, Ticks } from '../units'
import { Conversation, FLIGHT, LOST, MAX_WND, SendBuffer } from './conversation'
import { segmentLimit } from './options'
import { diff, HEADER_BYTES } from './segment'

export const ENTRY_SHIFT: u32 = 6
export const BLOCK: usize = 0
export const LEN: usize = 4
export const STATE: usize = 6
export const TRANSMISSIONS: usize = 7
export const SENT_AT: usize = 8
const PREVIOUS: usize = 12
const NEXT: usize = 16
const LIST: usize = 20
/** Extra copies of the last transmission (output.ts). */
export const COPIES: usize = 21
const CAUSE: usize = 22
const CLASS: usize = 23
export const DELIVERED: usize = 24
export const DELIVERED_AT: usize = 28
export const FIRST_SENT_AT: usize = 32
const CAPACITY: usize = 36
export const RUN: usize = 38

/** States of an entry. */
export const EMPTY: u32 = 0
export const QUEUED: u32 = 1
export const SENT: u32 = 2

/** Values of RUN: joined to the datagram before; deliberately alone. Otherwise 0. */
export const JOINED: u32 = 1
export const LONE: u32 = 2

const INITIAL_CAPACITY: u32 = 16
/**
 * Maximum number of segments queued and in flight: the largest window, and one for a message such as EOF. 4 MiB of
 * entries.
 */
const MAX_CAPACITY: u32 = MAX_WND + 1
/** A ring of up to this many entries is kept by an idle session. */
const IDLE_CAPACITY: u32 = 64
/** Maximum padding (protocol.md 3.3). */
const MAX_PADDING_BYTES: u32 = 15

/** @returns address of the ring entry of `sn` */
export function entryOf(c: SendBuffer, sn: Sn): usize {
  return c.sndRing + ((<usize>(sn & c.sndMask)) << ENTRY_SHIFT)
}

/** @returns address of the KCP header of an entry; the payload follows it */
export function headerOf(entry: usize): usize {
  return load<usize>(entry, BLOCK) + HEADROOM_BYTES
}

/** @returns payload bytes that the block of a segment holds, which may be less than the current limit */
export function capacityOf(entry: usize): u32 {
  return load<u16>(entry, CAPACITY)
}

/**
 * Appends an empty queued segment at `sndReserved`, with room for as much as the path takes now.
 * @param urgent EOF: may use reserved memory and the last entry of the ring
 * @returns false when memory is scarce or the ring is at its maximum
 */
export function reserveSegment(c: SendBuffer, urgent: bool): bool {
  const used = c.sndReserved - c.sndUna
  if (!c.sndRing || used + (urgent ? 0 : 1) > c.sndMask) {
    const capacity = c.sndRing ? (c.sndMask + 1) * 2 : INITIAL_CAPACITY
    if (capacity > MAX_CAPACITY) return false
    const ring = growRing(c.sndRing, c.sndMask, ENTRY_SHIFT, c.sndUna, c.sndReserved, capacity, urgent)
    if (!ring) return false
    c.sndRing = ring
    c.sndMask = capacity - 1
  }
  const limit = segmentLimit(c)
  const cls = classFor(limit)
  const block = urgent ? allocUrgent(cls) : alloc(cls)
  if (!block) return false
  countSent(1 << cls)
  const entry = entryOf(c, c.sndReserved)
  store<usize>(entry, block, BLOCK)
  store<u32>(entry, QUEUED << 16, LEN)
  store<u32>(entry, cls << 24, LIST)
  store<u16>(entry, limit, CAPACITY)
  c.sndReserved++
  return true
}

/** @returns bytes of the blocks of the window, as if all had the current size and none was acknowledged out of order */
export function sendHeld(c: SendBuffer): u32 {
  return (c.sndReserved - c.sndUna) << classFor(segmentLimit(c))
}

/** @returns class of a block for `bytes` of payload */
function classFor(bytes: u32): u32 {
  return classOf(HEADROOM_BYTES + HEADER_BYTES + bytes + MAX_PADDING_BYTES)
}

/** Frees reserved segments that were not used. */
export function trimReserved(c: SendBuffer): void {
  while (c.sndReserved != c.sndEnd) {
    c.sndReserved--
    release(entryOf(c, c.sndReserved))
  }
}

/** @returns bytes that fit into the last queued segment, 0 if it was sent */
export function tailRoom(c: SendBuffer): u32 {
  if (diff(c.sndEnd, c.sndNxt) <= 0) return 0
  const entry = entryOf(c, c.sndEnd - 1)
  const len = <u32>load<u16>(entry, LEN)
  const most = min(capacityOf(entry), segmentLimit(c))
  return len < most ? most - len : 0
}

/**
 * Removes an acknowledged segment.
 * @returns true if `sn` was in flight or lost, and not acknowledged before
 */
export function acknowledge(c: Conversation, sn: Sn, entry: usize): bool {
  if (load<u8>(entry, STATE) != SENT) return false
  // its block is about to be reused
  if (sn == c.copySn) c.copies = 0
  unlink(c, sn, entry)
  release(entry)
  return true
}

/** Advances sndUna over acknowledged segments. */
export function advanceUna(c: SendBuffer): void {
  let una = c.sndUna
  while (una != c.sndNxt && load<u8>(entryOf(c, una), STATE) == EMPTY) una++
  c.sndUna = una
}

function release(entry: usize): void {
  const cls = <u32>load<u8>(entry, CLASS)
  countSent(-(1 << cls))
  free(load<usize>(entry, BLOCK), cls)
  store<u8>(entry, EMPTY, STATE)
}

/** @returns first sn of a list that is not empty */
export function firstOf(c: SendBuffer, list: u32): Sn {
  return load<u32>(changetype<usize>(c) + ((<usize>list) << 2), offsetof<SendBuffer>('firstFlight'))
}

function lengthOf(c: SendBuffer, list: u32): u32 {
  return load<u32>(changetype<usize>(c) + ((<usize>list) << 2), offsetof<SendBuffer>('flight'))
}

function setLength(c: SendBuffer, list: u32, n: u32): void {
  store<u32>(changetype<usize>(c) + ((<usize>list) << 2), n, offsetof<SendBuffer>('flight'))
}

/** Appends a segment to a list. */
function link(c: SendBuffer, sn: Sn, entry: usize, list: u32): void {
  const at = changetype<usize>(c) + ((<usize>list) << 2)
  const length = lengthOf(c, list)
  store<u8>(entry, list, LIST)
  if (length) {
    const last = load<u32>(at, offsetof<SendBuffer>('lastFlight'))
    store<u32>(entryOf(c, last), sn, NEXT)
    store<u32>(entry, last, PREVIOUS)
  } else {
    store<u32>(at, sn, offsetof<SendBuffer>('firstFlight'))
    store<u32>(entry, sn, PREVIOUS)
  }
  store<u32>(entry, sn, NEXT)
  store<u32>(at, sn, offsetof<SendBuffer>('lastFlight'))
  setLength(c, list, length + 1)
}

/** Removes a segment from its list. The ends of a list point to themselves. */
function unlink(c: SendBuffer, sn: Sn, entry: usize): void {
  const list = <u32>load<u8>(entry, LIST)
  const at = changetype<usize>(c) + ((<usize>list) << 2)
  const previous = load<u32>(entry, PREVIOUS)
  const next = load<u32>(entry, NEXT)
  setLength(c, list, lengthOf(c, list) - 1)
  if (previous == sn) {
    if (next == sn) return
    store<u32>(at, next, offsetof<SendBuffer>('firstFlight'))
    store<u32>(entryOf(c, next), next, PREVIOUS)
  } else if (next == sn) {
    store<u32>(at, previous, offsetof<SendBuffer>('lastFlight'))
    store<u32>(entryOf(c, previous), previous, NEXT)
  } else {
    store<u32>(entryOf(c, previous), next, NEXT)
    store<u32>(entryOf(c, next), previous, PREVIOUS)
  }
}

/** Records a transmission at `now`: the segment becomes the last one in flight. */
export function markSent(c: SendBuffer, sn: Sn, entry: usize, now: Ticks): void {
  const transmissions = min<u32>(<u32>load<u8>(entry, TRANSMISSIONS) + 1, 255)
  if (load<u8>(entry, STATE) == SENT) unlink(c, sn, entry)
  store<u8>(entry, SENT, STATE)
  store<u8>(entry, transmissions, TRANSMISSIONS)
  store<u8>(entry, 0, COPIES)
  store<u8>(entry, 0, RUN)
  store<u32>(entry, now, SENT_AT)
  link(c, sn, entry, FLIGHT)
}

/** Cause of a loss: later segments were delivered, or the probe timeout expired. */
export const BY_ORDER: u32 = 1
export const BY_PROBE: u32 = 2

/** Moves a segment in flight to the list of lost ones. */
export function markLost(c: SendBuffer, sn: Sn, entry: usize, cause: u32): void {
  store<u8>(entry, cause, CAUSE)
  unlink(c, sn, entry)
  link(c, sn, entry, LOST)
}

/** @returns true for a sent segment that is marked lost */
export function isLost(entry: usize): bool {
  return load<u8>(entry, STATE) == SENT && load<u8>(entry, LIST) == LOST
}

/** @returns true if it was marked lost because later ones were delivered */
export function wasLostByOrder(entry: usize): bool {
  return load<u8>(entry, CAUSE) == BY_ORDER
}

/** Frees everything the buffer holds. */
export function closeSendBuffer(c: Conversation): void {
  if (!c.sndRing) return
  for (let sn = c.sndUna; sn != c.sndReserved; sn++) {
    const entry = entryOf(c, sn)
    if (load<u8>(entry, STATE) != EMPTY) release(entry)
  }
  freeRing(c.sndRing, c.sndMask, ENTRY_SHIFT)
  c.sndRing = 0
  c.sndUna = c.sndNxt = c.sndEnd = c.sndReserved = 0
  c.flight = c.lost = c.copies = c.thinAt = 0
}

/** Frees a large ring that holds nothing, because idle sessions must be small. */
export function freeIdleSendRing(c: SendBuffer): void {
  if (c.sndUna != c.sndReserved || c.sndMask < IDLE_CAPACITY) return
  freeRing(c.sndRing, c.sndMask, ENTRY_SHIFT)
  c.sndRing = 0
  c.sndMask = 0
}

/** @returns address of the payload of a segment */
export function payloadOf(entry: usize): usize {
  return headerOf(entry) + HEADER_BYTES
}
