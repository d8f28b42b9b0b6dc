/*
 * TLV messages inside the byte stream of a conversation (protocol.md 6.1):
 *
 *   +------+--------+---------------------+
 *   | type | length | payload, length - 4 |     u16, u16, big-endian; length 4..14884
 *   +------+--------+---------------------+
 *
 * Written directly into send segments and read directly from received ones; a message may begin and end anywhere.
 * stream.ts interprets them.
 */
import { SPAN_BYTES, SPAN_LENGTH, SPAN_PTR, SPAN_SLOTS } from '../abi'
import { waitSnd } from '../kcp/conversation'
import { dropFirst, receivedLen, receivedPayload } from '../kcp/receive_buffer'
import { diff } from '../kcp/segment'
import {
  capacityOf,
  EMPTY,
  entryOf,
  LEN,
  payloadOf,
  reserveSegment,
  STATE,
  sendHeld,
  tailRoom,
  trimReserved,
} from '../kcp/send_buffer'
import { mayQueue } from '../memory/slab'
import { Session } from './session'

export const DIAL: i32 = 0
export const PUSH: i32 = 1
export const EOF: i32 = 2
export const KEEPALIVE: i32 = 3
/** Bytes of a message without payload. */
export const BARE_BYTES: u32 = 4
/** Result of `frontMessage`: incomplete. */
export const NONE: i32 = -1
/** Result of `frontMessage`: not a valid message. */
export const INVALID: i32 = -2

const TLV_BYTES: u32 = 4
const MAX_MESSAGE_BYTES: u32 = 14884
export const MAX_PAYLOAD_BYTES: u32 = MAX_MESSAGE_BYTES - TLV_BYTES

/** Spans for the host, `{u32 ptr, u32 len}` each. */
export const spans: usize = memory.data(SPAN_SLOTS * SPAN_BYTES, 8)

function addSpan(n: u32, ptr: usize, len: u32): u32 {
  const at = spans + <usize>(n * SPAN_BYTES)
  store<u32>(at, ptr, SPAN_PTR)
  store<u32>(at, len, SPAN_LENGTH)
  return n + 1
}

// ---- writing

/**
 * Queues a message without payload. Only EOF may use reserved memory.
 * @returns false when memory is scarce
 */
export function queueMessage(s: Session, type: i32): bool {
  trimReserved(s)
  let at: usize
  if (tailRoom(s) >= TLV_BYTES) {
    const entry = entryOf(s, s.sndEnd - 1)
    const len = <u32>load<u16>(entry, LEN)
    at = payloadOf(entry) + len
    store<u16>(entry, len + TLV_BYTES, LEN)
  } else {
    if (!reserveSegment(s, type == EOF)) return false
    const entry = entryOf(s, s.sndEnd++)
    at = payloadOf(entry)
    store<u16>(entry, TLV_BYTES, LEN)
  }
  store<u32>(at, bswap<u32>(((<u32>type) << 16) | TLV_BYTES))
  return true
}

/**
 * @returns payload bytes of the segment that holds the last KEEPALIVE, 0 once that is acknowledged. So at most one is
 *   in flight, however many are requested.
 */
export function keepaliveInFlight(s: Session): u32 {
  const sn = s.keepaliveEnd - 1
  if (s.keepaliveEnd == 0 || !s.sndRing || diff(sn, s.sndUna) < 0 || diff(sn, s.sndEnd) >= 0) return 0
  const entry = entryOf(s, sn)
  return load<u8>(entry, STATE) == EMPTY ? 0 : load<u16>(entry, LEN)
}

/**
 * Reserves space for one PUSH of up to `want` bytes in at most `segments` new segments and fills the spans. A header is
 * never split between two segments, so a tail with less room is left unused.
 * @returns number of spans
 */
export function reservePush(s: Session, want: u32, segments: u32): u32 {
  trimReserved(s)
  let left = min(want, MAX_PAYLOAD_BYTES)
  let n: u32 = 0
  const room = tailRoom(s)
  s.reservedTail = 0
  if (room > TLV_BYTES) {
    const entry = entryOf(s, s.sndEnd - 1)
    const at = payloadOf(entry) + load<u16>(entry, LEN)
    s.reservedTail = <u16>room
    const take = min(left, room - TLV_BYTES)
    s.reservedHeader = at
    n = addSpan(n, at + TLV_BYTES, take)
    left -= take
  }
  while (left != 0 && segments != 0 && n < SPAN_SLOTS && mayQueue(sendHeld(s)) && reserveSegment(s, false)) {
    const entry = entryOf(s, s.sndReserved - 1)
    const at = payloadOf(entry)
    const skip = n == 0 ? TLV_BYTES : 0
    if (n == 0) s.reservedHeader = at
    const take = min(left, capacityOf(entry) - skip)
    n = addSpan(n, at + skip, take)
    left -= take
    segments--
  }
  return n
}

/**
 * Queues the first `bytes` payload bytes written to the spans of `reservePush`.
 * @returns false if fewer bytes were reserved, or if the spans are invalid because their first segment was sent or
 *   another message was queued
 */
export function commitPush(s: Session, bytes: u32): bool {
  if (bytes == 0 || bytes > MAX_PAYLOAD_BYTES || !isReserved(s)) {
    trimReserved(s)
    return bytes == 0
  }
  const tail = min(bytes + TLV_BYTES, <u32>s.reservedTail)
  let left = bytes + TLV_BYTES - tail
  let end = s.sndEnd
  for (; left != 0 && end != s.sndReserved; end++) {
    const entry = entryOf(s, end)
    const take = min(left, capacityOf(entry))
    store<u16>(entry, take, LEN)
    left -= take
  }
  if (left == 0) {
    store<u32>(s.reservedHeader, bswap<u32>(((<u32>PUSH) << 16) | (bytes + TLV_BYTES)))
    if (tail) {
      const entry = entryOf(s, s.sndEnd - 1)
      store<u16>(entry, <u32>load<u16>(entry, LEN) + tail, LEN)
    }
    s.sndEnd = end
  }
  trimReserved(s)
  return left == 0
}

/** @returns true if the reserved message still begins at the end of the stream */
function isReserved(s: Session): bool {
  if (s.reservedTail) {
    if (diff(s.sndEnd, s.sndNxt) <= 0) return false
    const entry = entryOf(s, s.sndEnd - 1)
    return s.reservedHeader == payloadOf(entry) + load<u16>(entry, LEN)
  }
  return s.sndReserved != s.sndEnd && s.reservedHeader == payloadOf(entryOf(s, s.sndEnd))
}

/** @returns segments that may still be queued under `limit` */
export function queueRoom(s: Session, limit: u32): u32 {
  const waiting = waitSnd(s)
  return waiting < limit ? limit - waiting : 0
}

// ---- reading

/**
 * Skips to the next unread byte.
 * @returns false if there is none in order
 */
function toNextByte(s: Session): bool {
  while (s.rcvRead != s.rcvNxt) {
    if (<u32>s.readOffset < receivedLen(s, s.rcvRead)) return true
    dropFirst(s)
    s.readOffset = 0
  }
  return false
}

/**
 * Reads the header of the message at the front of the stream. A PUSH stays at the front until its payload is consumed,
 * empty ones are skipped; any other message stays until `nextMessage`.
 * @returns its type, NONE or INVALID
 */
export function frontMessage(s: Session): i32 {
  while (true) {
    while (s.headLen < TLV_BYTES) {
      if (!toNextByte(s)) return NONE
      s.head = (s.head << 8) | <u32>load<u8>(receivedPayload(s, s.rcvRead) + s.readOffset)
      s.readOffset++
      if (++s.headLen == TLV_BYTES) s.messageLeft = (s.head & 0xffff) - TLV_BYTES
    }
    const type = <i32>(s.head >> 16)
    if (!isValid(s.head)) return INVALID
    if (type != PUSH || s.messageLeft != 0) {
      // frees a segment whose last byte was this header
      toNextByte(s)
      return type
    }
    nextMessage(s)
  }
}

function isValid(head: u32): bool {
  const type = head >> 16
  const length = head & 0xffff
  if (length < TLV_BYTES || length > MAX_MESSAGE_BYTES || type > <u32>KEEPALIVE) return false
  return type == <u32>PUSH || length == TLV_BYTES
}

/** Removes the message at the front. */
export function nextMessage(s: Session): void {
  s.headLen = 0
  s.head = 0
}

/** @returns true if payload bytes of the PUSH at the front are in order */
export function hasPayload(s: Session): bool {
  return frontMessage(s) == PUSH && s.rcvRead != s.rcvNxt
}

/**
 * Fills the spans with in-order payload, across messages, up to the first message that is not a PUSH.
 * @returns number of spans
 */
export function peekPayload(s: Session): u32 {
  if (!hasPayload(s)) return 0
  let n: u32 = 0
  let sn = s.rcvRead
  let offset = <u32>s.readOffset
  let left = s.messageLeft
  let head: u32 = 0
  let headLen: u32 = TLV_BYTES
  while (sn != s.rcvNxt && n < SPAN_SLOTS) {
    const len = receivedLen(s, sn)
    const payload = receivedPayload(s, sn)
    while (offset < len && n < SPAN_SLOTS) {
      if (left) {
        const take = min(left, len - offset)
        n = addSpan(n, payload + offset, take)
        offset += take
        left -= take
        if (left == 0) headLen = 0
      } else {
        head = (head << 8) | <u32>load<u8>(payload + offset)
        offset++
        if (++headLen == TLV_BYTES) {
          if (head >> 16 != <u32>PUSH || !isValid(head)) return n
          left = (head & 0xffff) - TLV_BYTES
          if (left == 0) headLen = 0
          head = 0
        }
      }
    }
    sn++
    offset = 0
  }
  return n
}

/**
 * Shortens the spans of `peekPayload` to `bytes` altogether.
 * @returns number of spans left
 */
export function limitSpans(n: u32, bytes: u32): u32 {
  let left = bytes
  for (let i: u32 = 0; i < n; i++) {
    if (left == 0) return i
    const at = spans + <usize>(i * SPAN_BYTES)
    const len = load<u32>(at, SPAN_LENGTH)
    if (len > left) store<u32>(at, left, SPAN_LENGTH)
    left -= min(left, len)
  }
  return n
}

/** @returns bytes of `n` spans */
export function spanBytes(n: u32): u32 {
  let bytes: u32 = 0
  for (let i: u32 = 0; i < n; i++) bytes += load<u32>(spans + <usize>(i * SPAN_BYTES), SPAN_LENGTH)
  return bytes
}

/**
 * Consumes up to `bytes` payload bytes from the front.
 * @returns number of bytes consumed
 */
export function consumePayload(s: Session, bytes: u32): u32 {
  let taken: u32 = 0
  while (taken < bytes && hasPayload(s)) {
    const take = min(min(bytes - taken, s.messageLeft), receivedLen(s, s.rcvRead) - s.readOffset)
    s.readOffset += <u16>take
    s.messageLeft -= take
    taken += take
    if (s.messageLeft == 0) nextMessage(s)
    toNextByte(s)
  }
  return taken
}

/** @returns true if the in-order bytes contain an EOF */
export function holdsEof(s: Session): bool {
  let sn = s.rcvRead
  let offset = <u32>s.readOffset
  let left = s.headLen == TLV_BYTES ? s.messageLeft : 0
  let head = s.headLen == TLV_BYTES ? 0 : s.head
  let headLen: u32 = s.headLen == TLV_BYTES ? 0 : s.headLen
  while (sn != s.rcvNxt) {
    const len = receivedLen(s, sn)
    while (offset < len) {
      if (left) {
        const take = min(left, len - offset)
        offset += take
        left -= take
        continue
      }
      head = (head << 8) | <u32>load<u8>(receivedPayload(s, sn) + offset)
      offset++
      if (++headLen == TLV_BYTES) {
        if (!isValid(head)) return false
        if (head >> 16 == <u32>EOF) return true
        left = (head & 0xffff) - TLV_BYTES
        head = headLen = 0
      }
    }
    sn++
    offset = 0
  }
  return false
}
