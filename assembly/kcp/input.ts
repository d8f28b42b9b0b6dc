/*
 * Input of one opened datagram into its conversation (protocol.md 5.6). Segments before a bad one count; parsing stops there.
 *
 * Everything a datagram acknowledges is taken in before losses are looked for: that is the caller's next step, once a batch.
 */
import {
  ACKS_RECEIVED,
  count,
  DROP_MALFORMED,
  DROP_MEMORY,
  DROP_WINDOW,
  SEGMENTS_DUPLICATE,
  SEGMENTS_RECEIVED,
} from '../stats'
import { noteAck } from './ack'
import { onUnaAdvanced } from './congestion'
import { Conversation, fromWireClock, PROBE_TELL } from './conversation'
import { noteAckDatagram } from './recovery'
import { advanceRcvNxt, DUPLICATE, NO_MEMORY, STORED_BLOCK, storeSegment } from './recv_window'
import { updateRtt } from './rtt'
import {
  CMD_ACK,
  CMD_PUSH,
  CMD_WASK,
  CMD_WINS,
  diff,
  HEADER_BYTES,
  readCmd,
  readConv,
  readLen,
  readSn,
  readTs,
  readUna,
  readWnd,
} from './segment'
import { acknowledge, advanceUna, entryOf, LEN } from './send_window'

/** What a datagram did, as bits. */
export const KEPT_BLOCK: u32 = 1
export const RECEIVED_STREAM: u32 = 2
export const ADVANCED_UNA: u32 = 4
/** Payload was acknowledged, or the peer's window grew: its reader took some. */
export const MOVED_PAYLOAD: u32 = 8

/** A payload of at least this part of its block keeps the block, smaller ones are copied. */
const MIN_KEPT_BYTES: u32 = 700
/** A message without payload: DIAL, EOF, KEEPALIVE. */
const BARE_MESSAGE_BYTES: u32 = 4

/** `mayKeep`: the datagram lies in a packet block of its own, which may be kept instead of copied. Result: the bits above. */
export function input(c: Conversation, at: usize, size: u32, mayKeep: bool, now: u32): u32 {
  if (size < HEADER_BYTES) {
    count(DROP_MALFORMED)
    return 0
  }
  let did: u32 = 0
  let haveAck = false
  let newestTs: u32 = 0
  let newestSn: u32 = 0
  const una0 = c.sndUna
  const end = at + size
  while (end - at >= HEADER_BYTES) {
    const cmd = readCmd(at)
    const len = readLen(at)
    if (readConv(at) != c.conv || len > <u32>(end - at) - HEADER_BYTES || cmd < CMD_PUSH || cmd > CMD_WINS) {
      count(DROP_MALFORMED)
      break
    }
    const una = readUna(at)
    if (diff(una, c.sndUna) >= 0 && diff(una, c.sndNxt) <= 0) {
      if (una != c.sndUna) did |= takeUna(c, una)
      // an older una would carry an outdated window
      const wnd = readWnd(at)
      if (wnd > c.rmtWnd) did |= MOVED_PAYLOAD
      c.rmtWnd = wnd
    }
    const sn = readSn(at)
    const ts = readTs(at)
    if (cmd == CMD_ACK) {
      count(ACKS_RECEIVED)
      if (diff(sn, c.sndUna) >= 0 && diff(sn, c.sndNxt) < 0) {
        const len = load<u16>(entryOf(c, sn), LEN)
        if (acknowledge(c, sn)) {
          if (len > BARE_MESSAGE_BYTES) did |= MOVED_PAYLOAD
          if (sn == c.sndUna) advanceUna(c)
        }
      }
      // also the ACK of a segment that this datagram's una covered tells which transmission arrived
      const sentAt = fromWireClock(ts)
      if (diff(now, sentAt) >= 0 && diff(sn, una0) >= 0 && diff(sn, c.sndNxt) < 0) {
        const newer = diff(sentAt, newestTs)
        if (!haveAck || newer > 0 || (newer == 0 && diff(sn, newestSn) > 0)) {
          haveAck = true
          newestTs = sentAt
          newestSn = sn
        }
      }
    } else if (cmd == CMD_PUSH) {
      did |= takePush(c, sn, ts, at + HEADER_BYTES, len, mayKeep && !(did & KEPT_BLOCK), now)
    } else if (cmd == CMD_WASK) {
      c.probe |= PROBE_TELL
    }
    at += HEADER_BYTES + len
  }
  if (haveAck) {
    updateRtt(c, now - newestTs)
    noteAckDatagram(c, newestTs, newestSn)
  }
  if (c.sndUna != una0) {
    did |= ADVANCED_UNA
    onUnaAdvanced(c)
  }
  return did
}

/** Everything below una is received. */
function takeUna(c: Conversation, una: u32): u32 {
  let did: u32 = 0
  for (let sn = c.sndUna; sn != una; sn++) {
    const len = load<u16>(entryOf(c, sn), LEN)
    if (acknowledge(c, sn) && len > BARE_MESSAGE_BYTES) did = MOVED_PAYLOAD
  }
  c.sndUna = una
  advanceUna(c)
  return did
}

function takePush(c: Conversation, sn: u32, ts: u32, payload: usize, len: u32, mayKeep: bool, now: u32): u32 {
  count(SEGMENTS_RECEIVED)
  const early = diff(sn, c.rcvNxt)
  if (early >= <i32>c.rcvWnd) {
    count(DROP_WINDOW)
    return 0
  }
  if (early < 0) {
    count(SEGMENTS_DUPLICATE)
    noteAck(c, sn, ts, true, now)
    return 0
  }
  const hadHole = c.rcvTop != c.rcvNxt
  const stored = storeSegment(c, sn, payload, len, mayKeep && len >= MIN_KEPT_BYTES)
  if (stored == NO_MEMORY) {
    count(DROP_MEMORY)
    return 0
  }
  if (stored == DUPLICATE) count(SEGMENTS_DUPLICATE)
  // a gap opened or filled, or a duplicate: the sender is waiting to hear of it
  noteAck(c, sn, ts, early > 0 || hadHole, now)
  let did: u32 = stored == STORED_BLOCK ? KEPT_BLOCK : 0
  if (early == 0) {
    advanceRcvNxt(c)
    did |= RECEIVED_STREAM
  }
  return did
}
