/*
 * Output of one conversation: builds its next datagram (protocol.md 5.7): ACKs, then probes, then lost segments, then
 * new ones.
 *
 * A segment that is alone in its datagram is sent from its own block: only the 24 bytes of its header are written.
 * Everything else is assembled in the transmit block.
 */

import { TICKS_PER_MS } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { mayReceive } from '../memory/slab'
import { ACKS_SENT, count, SEGMENTS_REDUNDANT, SEGMENTS_RETRANSMITTED, SEGMENTS_SENT } from '../stats'
import { Sn, Ticks } from '../units'
import { acksDue, pendingAcks, takeAck, takeRepeatedAck } from './ack_queue'
import { hasStandingQueue, peerPathOf } from './bbr_model'
import { onLastSent } from './bulk'
import { onUnconfirmedSent } from './confirm'
import { congestionWindow, maySend, onDrained, onSent, pacingDeadline, pathRate, sendLimit } from './congestion'
import { Conversation, LOST, PROBE_ASK, PROBE_DROPPED, PROBE_TELL } from './conversation'
import { onAppLimited, recordDelivery } from './delivery_rate'
import { restartProbeTimer } from './loss_detection'
import { mayBeRedundant, segmentLimit } from './options'
import { duplicateRoom } from './peer_path'
import { advertise, isWindowLimited, promisedWnd, receiveWindow } from './receive_window'
import { CMD_ACK, CMD_PUSH, CMD_WASK, CMD_WINS, diff, HEADER_BYTES, writeHeader } from './segment'
import {
  COPIES,
  entryOf,
  firstOf,
  headerOf,
  isLost,
  LEN,
  markSent,
  SENT,
  SENT_AT,
  STATE,
  TRANSMISSIONS,
} from './send_buffer'
import { wireClock } from './wire_clock'

/**
 * A lost window announcement must not stall the connection: probes start early and back off (kcptun-libev: 7 s to 120
 * s).
 */
const FIRST_PROBE_TICKS: Ticks = 500 * TICKS_PER_MS
/** ACKs per datagram: pure ACKs are not retransmitted, so they must fit where full datagrams are dropped. */
const MAX_ACK_BYTES: u32 = 984
/** What a datagram costs beside its plaintext: IP and UDP headers, nonce and tag. */
const DATAGRAM_COST: u32 = 72
/** Segments of up to this many bytes of payload are thin. */
const THIN_BYTES: u32 = 200
const THIN_DELAY_TICKS: Ticks = 5 * TICKS_PER_MS
const MAX_THIN_FLIGHT: u32 = 16
/** Maximum number of older thin segments appended to a new one, and how far back they may be. */
const MAX_BUNDLED: u32 = 2
const BUNDLE_REACH: u32 = 8
/** Loss in percent above which retransmissions are not duplicated, and below which two copies are allowed. */
const MAX_LOST_PERCENT: u32 = 30
const FEW_LOST_PERCENT: u32 = 15
const MAX_PROBE_TICKS: Ticks = 15000 * TICKS_PER_MS

/** A datagram: what `buildDatagram` returns. */
@unmanaged
export class Datagram {
  start: usize
  /** 0 = nothing to send */
  bytes: u32
  /** entry of the last segment in it; 0: it has none, or that one is a copy */
  lastSegment: usize
  /** it is a segment that the path does not take any more, and that cannot be cut because the peer may have it */
  isOversized: bool
}

/** The only one: valid until the next call of `buildDatagram`. */
const built: Datagram = changetype<Datagram>(memory.data(offsetof<Datagram>(), 8))

function finish(start: usize, bytes: u32): Datagram {
  built.start = start
  built.bytes = bytes
  return built
}

/**
 * @returns true when a segment may be sent: a lost one or its copy, or a new one inside the windows, if pacing allows
 *   it
 */
export function hasSegment(c: Conversation, now: Ticks): bool {
  if (c.lost != 0 || c.copies != 0) return maySend(c, now)
  if (c.sndEnd == c.sndNxt) return isThinDue(c, now)
  if (diff(c.sndNxt, c.sndUna + sendLimit(c)) >= 0) {
    c.blockedAt = now
    c.wasBlocked = 1
    return false
  }
  return maySend(c, now)
}

/** @returns true if `buildDatagram` has something to send now */
export function hasOutput(c: Conversation, now: Ticks): bool {
  return c.wndProbes != 0 || acksDue(c, now) || hasSegment(c, now)
}

/**
 * @returns ticks until a segment that is pacing-limited, or the duplicate of a thin one, may be sent; NEVER if none
 *   waits
 */
export function segmentDeadline(c: Conversation, now: Ticks): Ticks {
  if (c.lost == 0 && c.copies == 0) {
    if (c.sndEnd == c.sndNxt) return isThinWaiting(c) ? ticksUntil(c.thinAt, now) : NEVER
    if (diff(c.sndNxt, c.sndUna + sendLimit(c)) >= 0) return NEVER
  }
  return c.flight < congestionWindow(c) ? pacingDeadline(c, now) : NEVER
}

/**
 * To be called when a conversation sent everything it may: whether it was application-limited determines what its rate
 * samples mean.
 */
export function onOutputDrained(c: Conversation, now: Ticks): void {
  onDrained(c, now)
  if (c.sndEnd != c.sndNxt || c.lost != 0) return
  if (c.flight < congestionWindow(c)) onAppLimited(c)
}

/** Runs the zero-window probe timer; sets PROBE_ASK when a probe is due. */
export function updateProbe(c: Conversation, now: Ticks): void {
  if (c.rmtWnd != 0) {
    c.wndProbeInterval = 0
  } else if (c.wndProbeInterval == 0) {
    c.wndProbeInterval = FIRST_PROBE_TICKS
    c.wndProbeAt = now + c.wndProbeInterval
  } else if (diff(now, c.wndProbeAt) >= 0) {
    c.wndProbeInterval = min((c.wndProbeInterval * 3) / 2, MAX_PROBE_TICKS)
    c.wndProbeAt = now + c.wndProbeInterval
    c.wndProbes |= PROBE_ASK
  }
}

/**
 * Requests a WINS when the window reopened after it was (nearly) closed, or when there is memory again for segments
 * that were dropped.
 */
export function announceWindow(c: Conversation): void {
  // common case: even the full window would not move the edge far
  const full = receiveWindow(c)
  const most = diff(c.rcvRead + full, c.rcvEdge)
  const part: u32 = isWindowLimited() ? 4 : 2
  if (!c.hasDropped && most < <i32>(full / part) && diff(c.rcvEdge, c.rcvNxt) > 0) return
  const wnd = promisedWnd(c)
  const moves = diff(c.rcvRead + wnd, c.rcvEdge)
  // under a rate limit the window is always nearly shut, and what is unread lasts until the peer has sent more
  const isShut = diff(c.rcvEdge, c.rcvNxt) <= 0 && (!isWindowLimited() || c.rcvRead == c.rcvNxt)
  if (moves > 0 && (isShut || moves >= <i32>(wnd / part))) c.wndProbes |= PROBE_TELL
  if (c.hasDropped && (c.rcvRead == c.rcvNxt || mayReceive(2 * c.rcvHeldBytes, false))) {
    c.hasDropped = 0
    c.wndProbes |= PROBE_TELL
  }
}

/**
 * Builds one datagram of at most kcpMtu bytes, fewer if the path requires it.
 * @param block transmit block in which a datagram is assembled
 * @param most maximum number of bytes that may be sent to the receiver now; a larger segment waits
 * @returns the datagram, valid until the next call
 */
export function buildDatagram(c: Conversation, block: usize, most: u32, now: Ticks): Datagram {
  const wnd = advertise(c)
  const limit = min(segmentLimit(c) + HEADER_BYTES, most)
  c.lastSn = c.lastTs = 0
  built.lastSegment = 0
  built.isOversized = false
  let len: u32 = 0
  const repeatEnd = c.ackFirst
  while (pendingAcks(c) != 0 && len + HEADER_BYTES <= min(limit, MAX_ACK_BYTES)) {
    takeAck(c, now)
    len += writeAck(c, block + len, wnd)
  }
  while (len != 0 && len + HEADER_BYTES <= min(limit, MAX_ACK_BYTES) && takeRepeatedAck(c, repeatEnd))
    len += writeAck(c, block + len, wnd)
  if (c.wndProbes) len = appendProbes(c, block, len, wnd, limit, now)
  while (hasSegment(c, now)) {
    const sn = nextSegment(c)
    const entry = entryOf(c, sn)
    const size = HEADER_BYTES + <u32>load<u16>(entry, LEN)
    // a segment made before the limit was lowered is sent alone
    if (len + size > most || (len + size > limit && len != 0)) break
    const header = headerOf(entry)
    built.isOversized = size - HEADER_BYTES > segmentLimit(c)
    sendSegment(c, sn, entry, header, size, wnd, now)
    const isSoleFlow = len == 0 && (size + HEADER_BYTES > limit || !hasSegment(c, now))
    if (isSoleFlow && !(isThin(size) && c.model)) {
      return finish(header, size)
    }
    memory.copy(block + len, header, size)
    len += size
    if (isThin(size)) len = appendThin(c, block, len, sn, wnd, limit, now)
    if (limit - len < HEADER_BYTES) break
  }
  return finish(block, len)
}

/**
 * Appends window announcements, which are the only segments that change nothing.
 * @returns bytes of the datagram, at most `limit`
 */
export function fillDatagram(c: Conversation, at: usize, len: u32, limit: u32, now: Ticks): u32 {
  const wnd = advertise(c)
  while (len + HEADER_BYTES <= limit) {
    writeHeader(at + len, c.conv, CMD_WINS, wnd, wireClock(now), 0, c.rcvNxt, 0)
    len += HEADER_BYTES
  }
  return len
}

function writeAck(c: Conversation, at: usize, wnd: u32): u32 {
  writeHeader(at, c.conv, CMD_ACK, wnd, c.lastTs, c.lastSn, c.rcvNxt, 0)
  count(ACKS_SENT)
  return HEADER_BYTES
}

/**
 * @returns the segment to send next: copy of a retransmission, lost, thin duplicate, new. `hasSegment` must be true.
 */
function nextSegment(c: Conversation): Sn {
  if (c.copies) return c.copySn
  if (c.lost) return firstOf(c, LOST)
  return c.sndEnd == c.sndNxt ? c.thinSn : c.sndNxt
}

/** Writes the header of a segment and records its transmission. */
function sendSegment(c: Conversation, sn: Sn, entry: usize, header: usize, size: u32, wnd: u32, now: Ticks): void {
  const isNew = sn == c.sndNxt
  const isCopy = !isNew && !isLost(entry)
  built.lastSegment = isCopy ? 0 : entry
  let sentAt = now
  count(SEGMENTS_SENT)
  if (isCopy) {
    count(SEGMENTS_REDUNDANT)
    if (c.copies) {
      // copies of one transmission have the same ts
      sentAt = load<u32>(entry, SENT_AT)
      c.copies--
    } else {
      c.thinAt = 0
      payDuplicate(c, size + DATAGRAM_COST)
    }
  } else {
    recordDelivery(c, entry, now)
    markSent(c, sn, entry, now)
    if (isNew) {
      c.sndNxt++
      if (c.sndEnd == c.sndNxt) onLastSent(c, size - HEADER_BYTES, now)
      if (c.model) onThinSent(c, sn, size, now)
    } else {
      count(SEGMENTS_RETRANSMITTED)
      c.retransmissions++
      planCopies(c, sn, entry, now)
    }
  }
  onSent(c, now)
  restartProbeTimer(c, now)
  if (c.confirm) onUnconfirmedSent(c, sn, sentAt)
  writeHeader(header, c.conv, CMD_PUSH, wnd, wireClock(sentAt), sn, c.rcvNxt, size - HEADER_BYTES)
}

/**
 * Decides how many copies of a retransmission are sent. While `sndUna` does not advance because a retransmission was
 * lost, the whole window waits, and a copy is cheap by comparison. No copies when the path has a standing queue or high
 * loss.
 */
function planCopies(c: Conversation, sn: Sn, entry: usize, now: Ticks): void {
  if (!c.model || !mayBeRedundant() || hasStandingQueue(c)) return
  const inWindow = c.sndNxt - c.sndUna
  const wasSentAgain = load<u8>(entry, TRANSMISSIONS) > 2
  let copies: u32 = 0
  if (c.lost * 100 > inWindow * MAX_LOST_PERCENT) return
  const isBlocked = c.wasBlocked && now - c.blockedAt <= c.srtt
  if (isBlocked && c.lost * 100 < inWindow * FEW_LOST_PERCENT) copies = wasSentAgain ? 2 : 1
  else if (inWindow > c.rmtWnd / 2 && wasSentAgain) copies = 1
  c.copySn = sn
  c.copies = copies
  store<u8>(entry, copies, COPIES)
}

// ---- thin streams

function isThin(size: u32): bool {
  return size < THIN_BYTES + HEADER_BYTES
}

/** Schedules a duplicate of a small write that nothing follows: its loss would cost a round trip and more. */
function onThinSent(c: Conversation, sn: Sn, size: u32, now: Ticks): void {
  c.thinAt = 0
  if (!isThin(size) || !mayBeRedundant() || c.sndEnd != c.sndNxt || c.flight > MAX_THIN_FLIGHT || hasStandingQueue(c))
    return
  c.thinSn = sn
  c.thinAt = max<u32>(1, now + THIN_DELAY_TICKS)
}

/**
 * To be called when no segment is queued.
 * @returns true while the duplicate of a thin segment, which is the last one sent, is scheduled
 */
function isThinWaiting(c: Conversation): bool {
  if (c.thinAt == 0) return false
  if (diff(c.thinSn, c.sndUna) >= 0 && load<u8>(entryOf(c, c.thinSn), STATE) == SENT) return true
  c.thinAt = 0
  return false
}

function isThinDue(c: Conversation, now: Ticks): bool {
  if (!isThinWaiting(c) || ticksUntil(c.thinAt, now) != 0) return false
  const size = HEADER_BYTES + <u32>load<u16>(entryOf(c, c.thinSn), LEN)
  if (mayDuplicate(c, size + DATAGRAM_COST, now)) return true
  c.thinAt = 0
  return false
}

/** @returns true if the bound of the path leaves room for as many bytes of duplicates */
function mayDuplicate(c: Conversation, bytes: u32, now: Ticks): bool {
  const rate = pathRate(c, now) * <f64>(segmentLimit(c) + HEADER_BYTES)
  return duplicateRoom(peerPathOf(c), rate, now) >= <f64>bytes
}

function payDuplicate(c: Conversation, bytes: u32): void {
  peerPathOf(c).duplicateBytes -= <f64>bytes
}

/** Appends up to two older unacknowledged thin segments to a new one: they need no datagram of their own. */
function appendThin(c: Conversation, block: usize, len: u32, sn: Sn, wnd: u32, limit: u32, now: Ticks): u32 {
  if (!c.model || !mayBeRedundant()) return len
  let room: u32 = MAX_BUNDLED
  for (let back: u32 = 1; back <= BUNDLE_REACH && room != 0; back++) {
    const older = sn - back
    if (diff(older, c.sndUna) < 0) break
    const entry = entryOf(c, older)
    const size = HEADER_BYTES + <u32>load<u16>(entry, LEN)
    if (load<u8>(entry, STATE) != SENT || !isThin(size) || len + size > limit) continue
    if (!mayDuplicate(c, size, now)) break
    payDuplicate(c, size)
    const header = headerOf(entry)
    writeHeader(header, c.conv, CMD_PUSH, wnd, wireClock(now), older, c.rcvNxt, size - HEADER_BYTES)
    memory.copy(block + len, header, size)
    len += size
    room--
    count(SEGMENTS_SENT)
    count(SEGMENTS_REDUNDANT)
  }
  return len
}

/** Appends requested WASK and WINS. The peer ignores their ts, but a server learns our clock from it (remote.ts). */
function appendProbes(c: Conversation, block: usize, len: u32, wnd: u32, limit: u32, now: Ticks): u32 {
  len = appendProbe(c, block, len, PROBE_ASK, CMD_WASK, wnd, limit, now)
  const acked = c.lastSn
  c.lastSn = c.dropSn
  len = appendProbe(c, block, len, PROBE_DROPPED, CMD_WINS, wnd, limit, now)
  c.lastSn = acked
  return appendProbe(c, block, len, PROBE_TELL, CMD_WINS, wnd, limit, now)
}

function appendProbe(
  c: Conversation,
  block: usize,
  len: u32,
  flag: u32,
  cmd: u32,
  wnd: u32,
  limit: u32,
  now: Ticks,
): u32 {
  if (!(c.wndProbes & flag) || len + HEADER_BYTES > limit) return len
  c.wndProbes &= ~flag
  writeHeader(block + len, c.conv, cmd, wnd, wireClock(now), c.lastSn, c.rcvNxt, 0)
  return len + HEADER_BYTES
}
