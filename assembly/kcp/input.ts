/*
 * Input of one opened datagram into its conversation (protocol.md 5.6). Parsing stops at a malformed segment; the
 * segments before it are accepted.
 *
 * All acknowledgements of a datagram are processed before losses are detected; the caller does that once per batch.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import {
  ACKS_RECEIVED,
  count,
  DROP_MALFORMED,
  DROP_MEMORY,
  DROP_WINDOW,
  SEGMENTS_DUPLICATE,
  SEGMENTS_RECEIVED,
} from '../stats'
import { Sn, Ticks, Ts } from '../units'
import { queueAck } from './ack_queue'
import { isIntervalFlushing } from './bbr_model'
import { isConfirmedBy } from './confirm'
import { onAckDatagram, onRtt } from './congestion'
import {
  Conversation,
  PEER_CLOCK_IGNORED,
  PEER_CLOCK_KNOWN,
  PEER_CLOCK_SHIFT,
  PEER_CLOCK_UNKNOWN,
  PROBE_DROPPED,
  PROBE_TELL,
} from './conversation'
import { onDelivered, startSample } from './delivery_rate'
import { onAckedTransmission, onAckForResend, onDeliveryProgress, scheduleProbe, updateRack } from './loss_detection'
import { segmentLimit } from './options'
import { onDatagramDelivered } from './path_size'
import { PeerPath } from './peer_path'
import { advanceRcvNxt, DUPLICATE, NO_MEMORY, STORED_BLOCK, storeSegment } from './receive_buffer'
import { updateRtt } from './rtt_estimator'
import {
  CMD_ACK,
  CMD_PUSH,
  CMD_WASK,
  CMD_WINS,
  diff,
  HEADER_BYTES,
  hashOfPayload,
  readCmd,
  readConv,
  readLen,
  readSn,
  readTs,
  readUna,
  readWnd,
} from './segment'
import {
  acknowledge,
  advanceUna,
  entryOf,
  JOINED,
  LEN,
  LONE,
  RUN,
  SENT,
  SENT_AT,
  STATE,
  TRANSMISSIONS,
} from './send_buffer'
import { fromWireClock } from './wire_clock'

/** Effects of a datagram, as bits. */
export const KEPT_BLOCK: u32 = 1
export const RECEIVED_STREAM: u32 = 2
export const ADVANCED_UNA: u32 = 4
/** Payload was acknowledged, or the peer's window grew because its application read data. */
export const MOVED_PAYLOAD: u32 = 8
/** An ACK named one of our transmissions with its exact ts: the peer received it recently. */
export const ANSWERED: u32 = 16
/** Such an ACK confirmed the conversation. */
export const CONFIRMED: u32 = 32
/** The peer lost the conversation and restarted it, or has received more of it than we sent. */
export const FORGOTTEN: u32 = 64
/** A segment that was joined to another datagram, or sent alone, was delivered (endpoint/runs.ts). */
export const RUN_PASSED: u32 = 128
export const LONE_PASSED: u32 = 256

/** A payload of at least this size keeps the block it arrived in; smaller ones are copied. */
const MIN_KEPT_BYTES: u32 = 700
/** Bytes of a message without payload: DIAL, EOF, KEEPALIVE. */
const BARE_MESSAGE_BYTES: u32 = 4
/** A KEEPALIVE as it is on the wire: type 3, length 4. */
const KEEPALIVE_MESSAGE: u32 = 0x04000300
/** An acknowledged segment is lost at the peer if una is below it this long after the last delivery, for so many units. */
const RENEGED_TICKS: Ticks = 10 * TICKS_PER_SECOND
const RENEGED_UNITS: u16 = 2
/** About one second. */
const RENEGED_UNIT_SHIFT: u32 = 13
/** Added to a ts that is not to be echoed: far in the future, so that no sender takes an RTT sample (protocol.md 5.6). */
const OTHER_TS: Ts = 0x40000000
/** Longest payload that is searched for KEEPALIVEs. */
const MAX_KEEPALIVES_BYTES: u32 = 64
/**
 * A peer that acknowledges promptly does not collect this many ACKs over some time, even if some datagrams are lost.
 */
const MANY_ACKS: u32 = 8
/** Minimum interval between reports of dropped segments. */
const DROP_PAUSE_TICKS: Ticks = 100 * TICKS_PER_MS
/** The time of the last report is stored in 16 bits, in this unit. */
const DROP_UNIT_SHIFT: u32 = 6

/** Larger steps of a clock of 32 bits are ambiguous. */
const MAX_CLOCK_STEP_TICKS: Ticks = 1 << 30
/** An echoed ts older than this is not ours. */
const MAX_RTT_TICKS: Ticks = 60 * TICKS_PER_SECOND

/**
 * Handles the segments of a datagram.
 * @param mayKeep the datagram is in a packet block of its own, which may be kept instead of copied
 * @returns the effects above
 */
export function input(c: Conversation, at: usize, size: u32, mayKeep: bool, now: Ticks): u32 {
  if (size < HEADER_BYTES) {
    count(DROP_MALFORMED)
    return 0
  }
  let effects: u32 = 0
  let una = c.sndUna
  const unaBefore = una
  const end = at + size
  acks.acked = 0
  acks.timed = 0
  startSample(c)
  while (end - at >= HEADER_BYTES) {
    const cmd = readCmd(at)
    const len = readLen(at)
    if (readConv(at) != c.conv || len > <u32>(end - at) - HEADER_BYTES || cmd < CMD_PUSH || cmd > CMD_WINS) {
      count(DROP_MALFORMED)
      break
    }
    const segmentUna = readUna(at)
    if (isForgotten(c, at, cmd, segmentUna, now) || hasReneged(c, at, segmentUna, now)) return effects | FORGOTTEN
    if (diff(segmentUna, una) >= 0 && diff(segmentUna, c.sndNxt) <= 0) {
      una = segmentUna
      // an older una carries an outdated window
      const wnd = readWnd(at)
      if (wnd > c.rmtWnd) effects |= MOVED_PAYLOAD
      c.rmtWnd = wnd
      if (diff(segmentUna, c.peerUna) > 0) {
        c.peerUna = segmentUna
        c.unaAt = now
      }
    }
    const sn = readSn(at)
    const ts = readTs(at)
    if (cmd == CMD_ACK) {
      effects |= onAck(c, sn, fromWireClock(ts), now)
    } else if (cmd == CMD_PUSH) {
      if (hasOtherClock(c, ts, now) || hasBegunAgain(c, segmentUna, ts)) return effects | FORGOTTEN
      effects |= onPush(c, sn, ts, at + HEADER_BYTES, len, mayKeep && !(effects & KEPT_BLOCK), now)
    } else if (cmd == CMD_WASK) {
      c.wndProbes |= PROBE_TELL
    } else {
      onWins(c, sn, una, now)
    }
    at += HEADER_BYTES + len
  }
  // last: the ACKs in the same datagram carry the times of the segments that una covers
  if (diff(una, c.sndUna) > 0) effects |= onUna(c, una, now)
  if (acks.timed) {
    updateRtt(c, c.sampleRtt)
    onRtt(c, c.sampleRtt, now)
  }
  if (acks.acked) {
    if (c.hasSample) onAckForResend(c, acks.newestSentAt, acks.newestSn)
    onDeliveryProgress(c, now)
    onAckDatagram(c, acks.acked, acks.timed >= MANY_ACKS ? acks.newestSentAt - acks.oldestSentAt : 0, now)
  }
  if (c.sndUna != unaBefore) {
    c.isPeerOutOfMemory = 0
    effects |= ADVANCED_UNA
  }
  return effects
}

/**
 * Detects that the two sides do not mean the same conversation.
 *
 * An ACK sent after the peer announced una U cannot carry a smaller una, unless the peer lost its state: a restarted
 * kcptun-libev takes our segments for a new conversation and acknowledges them, although nothing reaches the target
 * (protocol.md 6.8). If the peer of an unconfirmed conversation has received more than we sent, it continues a
 * conversation with an earlier server.
 */
function isForgotten(c: Conversation, at: usize, cmd: u32, segmentUna: Sn, now: Ticks): bool {
  if (c.confirm) return diff(segmentUna, c.sndNxt) > 0
  if (cmd != CMD_ACK || diff(segmentUna, c.peerUna) >= 0) return false
  const sentAt = fromWireClock(readTs(at))
  return now - sentAt <= MAX_RTT_TICKS && diff(sentAt, c.unaAt) > 0
}

/** What the datagram being handled acknowledges. */
@unmanaged
class AckSummary {
  // segments acknowledged
  acked: u32
  // ACKs with a valid time, the newest and the oldest transmission they name
  timed: u32
  newestSentAt: Ticks
  newestSn: Sn
  oldestSentAt: Ticks
}

/**
 * Detects a peer that lost segments it has acknowledged out of order: it restarted in between, and waits for them for
 * ever. Its una stays below ours although it has room and nothing was delivered for a long time. A single datagram may
 * be an old one, which waited while this process did not run.
 */
function hasReneged(c: Conversation, at: usize, segmentUna: Sn, now: Ticks): bool {
  if (diff(segmentUna, c.sndUna) >= 0) {
    c.renegedAt = 0
    return false
  }
  if (readWnd(at) == 0 || now - c.deliveredAt < RENEGED_TICKS) return false
  const unit = max<u16>(<u16>(now >> RENEGED_UNIT_SHIFT), 1)
  if (c.renegedAt == 0) c.renegedAt = unit
  return <u16>(unit - c.renegedAt) >= RENEGED_UNITS
}

let clockTolerance: Ticks = 0

/** Sets by how much the clock of a server may differ from ours: one of the two may have been suspended for that long. */
export function setClockTolerance(tolerance: Ticks): void {
  clockTolerance = min(tolerance, MAX_CLOCK_STEP_TICKS)
}

/**
 * Detects that a server restarted in the middle of a stream: its segments carry another clock, which starts at random
 * (kcptun-libev: with the machine). What the earlier process sent would be joined with what this one sends.
 */
function hasOtherClock(c: Conversation, ts: Ts, now: Ticks): bool {
  if (c.peerClock == PEER_CLOCK_IGNORED) return false
  const clock = ts >> PEER_CLOCK_SHIFT
  const step = <i32>((clock - (c.peerClock & ~PEER_CLOCK_KNOWN)) << PEER_CLOCK_SHIFT)
  const elapsed = now - c.ackLastSentAt
  const isFirst = c.peerClock == PEER_CLOCK_UNKNOWN || elapsed > MAX_CLOCK_STEP_TICKS
  if (isFirst || step > 0) c.peerClock = <u16>clock | PEER_CLOCK_KNOWN
  if (isFirst) return false
  return step < -(<i32>clockTolerance) || (step > 0 && <u32>step > elapsed + clockTolerance)
}

/**
 * Detects that a server which had ended the conversation opened it again: from a segment in the middle of it, at another
 * address or when nothing was left of the first one. It counts from 0 and acknowledges nothing, although an earlier PUSH
 * did. Its segments would fill the holes that lost segments of the first one left.
 */
function hasBegunAgain(c: Conversation, una: Sn, ts: Ts): bool {
  if (c.peerClock == PEER_CLOCK_IGNORED) return false
  const isNewer = c.ackingTs == 0 || diff(ts, c.ackingTs) > 0
  // una is 0 again after 2^32 segments, too
  if (una == 0) return isNewer && c.ackingTs != 0 && <i32>c.peerUna > 0
  if (isNewer) c.ackingTs = max<Ts>(ts, 1)
  return false
}

const acks: AckSummary = changetype<AckSummary>(memory.data(20, 8))

/** An ACK of the transmission of `sn` at `sentAt`. */
function onAck(c: Conversation, sn: Sn, sentAt: Ticks, now: Ticks): u32 {
  count(ACKS_RECEIVED)
  // a ts that is not ours carries no time
  const isKnown = now - sentAt <= MAX_RTT_TICKS
  if (diff(sn, c.sndNxt) >= 0) return 0
  const confirmed: u32 = c.confirm && isConfirmedBy(c, sn, sentAt) ? CONFIRMED | ANSWERED : 0
  const entry = entryOf(c, sn)
  if (diff(sn, c.sndUna) < 0 || load<u8>(entry, STATE) != SENT) {
    // una of an earlier datagram covered it, but without its time
    if (isKnown && isIntervalFlushing(c) && updateRack(c, sn, sentAt, now)) onSentTime(c, sn, sentAt, now)
    return confirmed
  }
  const answered: u32 = load<u32>(entry, SENT_AT) == sentAt ? ANSWERED | passedBy(entry) : 0
  if (isKnown) {
    onAckedTransmission(c, sn, entry, sentAt, now)
    onDelivered(c, entry, true, now)
    onSentTime(c, sn, sentAt, now)
  } else {
    onDelivered(c, entry, false, now)
  }
  return onAcknowledged(c, sn, entry, now) | answered | confirmed
}

function passedBy(entry: usize): u32 {
  const run = <u32>load<u8>(entry, RUN)
  return run == JOINED ? RUN_PASSED : run == LONE ? LONE_PASSED : 0
}

/** Updates the RTT sample of the datagram, which is that of the most recently sent transmission. */
function onSentTime(c: Conversation, sn: Sn, sentAt: Ticks, now: Ticks): void {
  const newer = diff(sentAt, acks.newestSentAt)
  if (acks.timed == 0 || newer > 0 || (newer == 0 && diff(sn, acks.newestSn) > 0)) {
    acks.newestSentAt = sentAt
    acks.newestSn = sn
    c.sampleRtt = now - sentAt
  }
  if (acks.timed == 0 || diff(sentAt, acks.oldestSentAt) < 0) acks.oldestSentAt = sentAt
  acks.timed++
}

/** All segments below una were received. */
function onUna(c: Conversation, una: Sn, now: Ticks): u32 {
  let effects: u32 = 0
  for (let sn = c.sndUna; sn != una; sn++) {
    const entry = entryOf(c, sn)
    if (load<u8>(entry, STATE) != SENT) continue
    onDelivered(c, entry, false, now)
    // of several transmissions an earlier one may have arrived
    if (load<u8>(entry, TRANSMISSIONS) == 1) effects |= passedBy(entry) & RUN_PASSED
    effects |= onAcknowledged(c, sn, entry, now)
  }
  return effects
}

/** A larger segment than the path takes may have been fragmented, which shows nothing about the path. */
function onSegmentDelivered(c: Conversation, entry: usize, now: Ticks): void {
  const len = <u32>load<u16>(entry, LEN)
  if (c.peerPath && len <= segmentLimit(c))
    onDatagramDelivered(changetype<PeerPath>(c.peerPath), HEADER_BYTES + len, now)
}

function onAcknowledged(c: Conversation, sn: Sn, entry: usize, now: Ticks): u32 {
  const effects = <u32>load<u16>(entry, LEN) > BARE_MESSAGE_BYTES ? MOVED_PAYLOAD : 0
  onSegmentDelivered(c, entry, now)
  acknowledge(c, sn, entry)
  acks.acked++
  if (sn == c.sndUna) advanceUna(c)
  return effects
}

/**
 * A window announcement. If sn names one of our unacknowledged segments, that segment arrived and was dropped for lack
 * of memory, which is no sign of a black hole. When the window is announced again, a probe is sent at once. In any
 * other WINS sn is that of an ACK in the same datagram, or 0.
 */
function onWins(c: Conversation, sn: Sn, una: Sn, now: Ticks): void {
  if (sn != 0 && diff(sn, una) >= 0 && diff(sn, c.sndNxt) < 0) {
    const entry = entryOf(c, sn)
    if (load<u8>(entry, STATE) == SENT) {
      c.isPeerOutOfMemory = 1
      onSegmentDelivered(c, entry, now)
      return
    }
  }
  if (!c.isPeerOutOfMemory) return
  c.isPeerOutOfMemory = 0
  scheduleProbe(c, now)
}

/** A PUSH was dropped for lack of memory: reports it, so that the peer does not suspect the path. */
function onPushDropped(c: Conversation, sn: Sn, now: Ticks): void {
  count(DROP_MEMORY)
  const unit = <u16>(now >> DROP_UNIT_SHIFT)
  c.hasDropped = 1
  if (<u32>(<u16>(unit - c.dropAt)) < DROP_PAUSE_TICKS >> DROP_UNIT_SHIFT) return
  c.dropAt = unit
  c.dropSn = sn
  c.wndProbes |= PROBE_DROPPED
}

/** @returns what is added to the ts of an ACK: nothing, but for KEEPALIVEs that are not to be confirmed (`hasStream`) */
function otherTs(c: Conversation, payload: usize, len: u32): Ts {
  return c.hasStream && isKeepalives(payload, len) ? OTHER_TS : 0
}

/** @returns true for a payload of KEEPALIVE messages alone */
function isKeepalives(payload: usize, len: u32): bool {
  if (len == 0 || len > MAX_KEEPALIVES_BYTES || len % BARE_MESSAGE_BYTES != 0) return false
  for (let i: u32 = 0; i < len; i += BARE_MESSAGE_BYTES) if (load<u32>(payload + i) != KEEPALIVE_MESSAGE) return false
  return true
}

function onPush(c: Conversation, sn: Sn, ts: Ts, payload: usize, len: u32, mayKeep: bool, now: Ticks): u32 {
  count(SEGMENTS_RECEIVED)
  const early = diff(sn, c.rcvNxt)
  if (early >= <i32>c.rcvWnd) {
    count(DROP_WINDOW)
    return 0
  }
  if (early < 0) {
    count(SEGMENTS_DUPLICATE)
    queueAck(c, sn, ts + otherTs(c, payload, len), true, now)
    return 0
  }
  const hadHole = c.rcvTop != c.rcvNxt
  const stored = storeSegment(c, sn, payload, len, mayKeep && len >= MIN_KEPT_BYTES)
  if (stored == NO_MEMORY) {
    onPushDropped(c, sn, now)
    return 0
  }
  if (stored == DUPLICATE) count(SEGMENTS_DUPLICATE)
  if (sn == 0) c.firstHash = hashOfPayload(payload, len)
  // a gap opened or filled, or a duplicate: the sender needs the ACK now
  queueAck(c, sn, ts + otherTs(c, payload, len), early > 0 || hadHole, now)
  let effects: u32 = stored == STORED_BLOCK ? KEPT_BLOCK : 0
  if (early == 0) {
    advanceRcvNxt(c)
    effects |= RECEIVED_STREAM
  }
  return effects
}
