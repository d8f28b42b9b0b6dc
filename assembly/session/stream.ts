/*
 * The TCP side of a session: operations of the host, and effects of the peer's messages (protocol.md 6.2-6.5).
 *
 * No byte is lost, and a failure is never reported as a clean end: EOF is reported only after every byte before it was
 * consumed, half-close works in both directions, and any other end is reported as ABORT.
 */

import {
  EVENT_ABORT,
  EVENT_DETACH,
  EVENT_DIAL,
  EVENT_EOF,
  EVENT_READABLE,
  EVENT_WRITABLE,
  REASON_PROTOCOL,
  REASON_RESET,
} from '../abi'
import { sendReset } from '../control/queue'
import { closeAcks } from '../kcp/ack_queue'
import { closeConfirm } from '../kcp/confirm'
import { closeCongestion, congestionWindow } from '../kcp/congestion'
import { MAX_WND, PROBE_ASK, PROBE_TELL } from '../kcp/conversation'
import { closeRecovery } from '../kcp/loss_detection'
import { announceWindow } from '../kcp/output'
import { advanceRcvNxt, closeReceiveBuffer } from '../kcp/receive_buffer'
import { HEADER_BYTES } from '../kcp/segment'
import { closeSendBuffer, sendHeld } from '../kcp/send_buffer'
import { mayQueue } from '../memory/slab'
import { keyOf } from '../packet/address'
import { tagBytes } from '../packet/datagram'
import { onKeyRead, onKeyWritten } from '../packet/keys'
import { leaveRemote } from '../packet/remote'
import {
  add,
  count,
  DISCARDED_BYTES,
  KEEPALIVES_SENT,
  SESSIONS_ABORTED,
  TCP_READ_BYTES,
  TCP_WRITTEN_BYTES,
} from '../stats'
import { Ticks } from '../units'
import { discardReceived } from './echo'
import { queueEvent, queueLastEvent } from './events'
import {
  BARE_BYTES,
  commitPush,
  consumePayload,
  DIAL,
  EOF,
  frontMessage,
  hasPayload,
  holdsEof,
  INVALID,
  KEEPALIVE,
  keepaliveInFlight,
  limitSpans,
  NONE,
  nextMessage,
  PUSH,
  peekPayload,
  queueMessage,
  queueRoom,
  reservePush,
  spanBytes,
} from './message'
import {
  closeRate,
  isCommitHeld,
  isDownloadLimited,
  isUploadLimited,
  mayCommit,
  mayConsume,
  onCommitted,
  onConsumed,
} from './rate'
import {
  addressOf,
  BLOCKED,
  DIALLED,
  DRAINING,
  ECHO_PENDING,
  EOF_PENDING,
  EOF_RECEIVED,
  EOF_SENT,
  ESTABLISHED,
  endAwait,
  has,
  INITIATOR,
  KEEPALIVE_PENDING,
  LINGER,
  MAX_UNSENT_LIMIT,
  READABLE_REPORTED,
  RESET_CHALLENGED,
  Session,
  STREAM_INVALID,
  setState,
  TCP_DIALING,
  TCP_GONE,
  TCP_NONE,
  TCP_OPEN,
  TIME_WAIT,
  UNSENT_SHIFT,
  uncountHalfOpen,
} from './session'

/**
 * Queue beyond the send window: half of the window, within these bounds, so that the window does not run empty before
 * the host reacts to WRITABLE.
 */
const MIN_SLACK_SEGMENTS: u32 = 64
const MAX_SLACK_SEGMENTS: u32 = 1024
const MIN_UNSENT_SEGMENTS: u32 = 128
/** Limit of bytes received for a closed TCP side; beyond it the session ends, and its peer receives RESET. */
const MAX_DISCARDED_BYTES: u32 = 262144
/** WRITABLE is reported when there is memory for this much. */
const WRITABLE_BYTES: u32 = 65536
const ALL: u32 = 0xffffffff
/** Maximum number of pending echoes, and of unacknowledged ones; further KEEPALIVEs are not echoed. */
const MAX_ECHOES: u32 = 1024

/**
 * @returns segments that may still be queued. A configured window limits all unacknowledged segments; an automatic one
 *   limits the unsent ones, because a hole may delay sent ones for several round trips.
 */
function sendRoom(s: Session): u32 {
  const room = queueRoom(s, min(s.sndWnd + slack(s.sndWnd), MAX_WND))
  const set = s.flags >>> UNSENT_SHIFT
  if (s.isSndWndSet && set == 0) return room
  const unsent = s.sndEnd - s.sndNxt
  const limit = set == 0 ? max(congestionWindow(s), MIN_UNSENT_SEGMENTS) : set
  return min(room, unsent < limit ? limit - unsent : 0)
}

function slack(window: u32): u32 {
  return min(max(window / 2, MIN_SLACK_SEGMENTS), MAX_SLACK_SEGMENTS)
}

// ---- from TCP

/**
 * Limits what is committed and not sent to `segments`, 0 = automatic: bytes that are soon of no use must not wait here.
 */
export function limitUnsent(s: Session, segments: u32): void {
  s.flags = (s.flags & ((1 << UNSENT_SHIFT) - 1)) | (min(segments, MAX_UNSENT_LIMIT) << UNSENT_SHIFT)
}

/**
 * Reserves space for up to `want` bytes from TCP.
 * @returns number of spans; 0 = full, WRITABLE will be reported
 */
export function reserve(s: Session, want: u32): u32 {
  if (s.tcp != TCP_OPEN || has(s, EOF_SENT)) return 0
  const room = sendRoom(s)
  const allowed = isUploadLimited() ? mayCommit(s, want) : want
  const n = room != 0 && allowed != 0 ? reservePush(s, allowed, room) : 0
  if (n == 0) s.flags |= BLOCKED
  return n
}

/** @returns false if more is committed than was reserved */
export function commit(s: Session, bytes: u32, now: Ticks): bool {
  if (s.tcp != TCP_OPEN || has(s, EOF_SENT) || !commitPush(s, bytes)) return false
  if (bytes == 0) return true
  s.tcpRead += bytes
  add(TCP_READ_BYTES, bytes)
  onCommitted(s, bytes)
  onKeyRead(keyOf(addressOf(s)), bytes)
  s.payloadAt = now
  onQueued(s, now)
  return true
}

/** Reports WRITABLE when there is room for a reasonable amount. */
export function unblock(s: Session): void {
  if (!has(s, BLOCKED) || isCommitHeld(s)) return
  const set = s.flags >>> UNSENT_SHIFT
  if (sendRoom(s) < (set == 0 ? MIN_SLACK_SEGMENTS / 2 : (set + 1) / 2)) return
  const held = sendHeld(s)
  // enough to be worth an event, but always when nothing is queued
  if (!mayQueue(held + min(held, WRITABLE_BYTES))) return
  s.flags &= ~BLOCKED
  if (s.tcp == TCP_OPEN) queueEvent(s, EVENT_WRITABLE)
}

function onQueued(s: Session, now: Ticks): void {
  s.queuedAt = now
  s.flags &= ~KEEPALIVE_PENDING
}

function queue(s: Session, type: i32, now: Ticks): bool {
  s.queuedAt = now
  if (!queueMessage(s, type)) return false
  onQueued(s, now)
  return true
}

/** @returns false when memory is scarce */
export function queueDial(s: Session, now: Ticks): bool {
  return queue(s, DIAL, now)
}

/** Queues a KEEPALIVE, unless one that is alone in its segment is in flight, which has the same effect. */
export function sendKeepalive(s: Session, now: Ticks): void {
  if (keepaliveInFlight(s) == BARE_BYTES) s.queuedAt = now
  else if (queueKeepalive(s, now)) count(KEEPALIVES_SENT)
}

function queueKeepalive(s: Session, now: Ticks): bool {
  if (!queue(s, KEEPALIVE, now)) return false
  s.keepaliveEnd = s.sndEnd
  return true
}

function sendEof(s: Session, now: Ticks): void {
  if (has(s, EOF_SENT)) return
  s.flags |= EOF_SENT | EOF_PENDING
  queuePending(s, now)
  enterLinger(s)
}

/** Queues pending messages: an EOF that was delayed for lack of memory, echoes of KEEPALIVEs. */
export function queuePending(s: Session, now: Ticks): void {
  if (!has(s, ECHO_PENDING | EOF_PENDING)) return
  if (has(s, ECHO_PENDING)) {
    if (keepaliveInFlight(s) == 0) s.echoesQueued = 0
    while (s.echoes != 0 && <u32>s.echoesQueued < MAX_ECHOES && queueKeepalive(s, now)) {
      s.echoes--
      s.echoesQueued++
    }
    if (s.echoes == 0) s.flags &= ~ECHO_PENDING
  }
  if (has(s, EOF_PENDING) && queue(s, EOF, now)) s.flags &= ~EOF_PENDING
}

function enterLinger(s: Session): void {
  if (has(s, EOF_SENT) && has(s, EOF_RECEIVED) && s.state != TIME_WAIT) setState(s, LINGER)
}

/** TCP closed its direction. */
export function shutdown(s: Session, now: Ticks): void {
  if (has(s, EOF_SENT)) return
  sendEof(s, now)
  if (has(s, EOF_RECEIVED)) detach(s)
}

/** TCP failed: sends EOF to the peer (protocol.md 6.5) and discards what it still sends. */
export function abort(s: Session, now: Ticks): void {
  s.tcp = TCP_GONE
  s.events = 0
  sendEof(s, now)
  if (s.state != TIME_WAIT) advance(s, now)
}

/** The application gave up. Later segments of the peer are answered by RESET, so the first one may get lost. */
export function resetSession(s: Session): void {
  s.tcp = TCP_GONE
  s.events = 0
  if (s.state == TIME_WAIT) return
  sendReset(s.conv, addressOf(s), HEADER_BYTES)
  endSession(s, REASON_RESET)
}

/** Result of the connection to the target. */
export function connected(s: Session, ok: bool, now: Ticks): void {
  if (!ok) {
    abort(s, now)
    return
  }
  s.tcp = TCP_OPEN
  advance(s, now)
  // it arrived before there was a connection to end
  if (has(s, EOF_RECEIVED)) queueEvent(s, EVENT_EOF)
}

// ---- to TCP

/**
 * Fills the spans with payload for TCP.
 * @returns number of spans
 */
export function peek(s: Session): u32 {
  if (s.tcp != TCP_OPEN) return 0
  const n = peekPayload(s)
  return n != 0 && isDownloadLimited() ? limitSpans(n, mayConsume(s, spanBytes(n))) : n
}

/** TCP took `bytes` of the peeked payload. */
export function consume(s: Session, bytes: u32, now: Ticks): void {
  const taken = consumePayload(s, bytes)
  s.tcpWritten += taken
  add(TCP_WRITTEN_BYTES, taken)
  onConsumed(s, taken)
  onKeyWritten(keyOf(addressOf(s)), taken)
  if (taken) {
    s.payloadAt = now
    s.flags |= KEEPALIVE_PENDING
  }
  if (!hasPayload(s)) s.flags &= ~READABLE_REPORTED
  advance(s, now)
}

/** Handles messages at the front of the stream, until it is payload for TCP or empty. */
export function advance(s: Session, now: Ticks): void {
  while (true) {
    advanceRcvNxt(s)
    if (has(s, STREAM_INVALID)) {
      discardReceived(s)
      break
    }
    const type = frontMessage(s)
    if (type == NONE) {
      advanceRcvNxt(s)
      if (s.rcvRead == s.rcvNxt) break
    } else if (type == PUSH) {
      if (!onPush(s, now)) break
    } else if (type == INVALID || type == DIAL) {
      // the first flight may be a replay: the target is not dialled before the conversation is confirmed
      if (type == DIAL && s.confirm) break
      if (type == DIAL && s.tcp == TCP_NONE && !has(s, EOF_RECEIVED)) {
        nextMessage(s)
        s.tcp = TCP_DIALING
        s.flags |= DIALLED
        endAwait(s)
        uncountHalfOpen(s)
        queueEvent(s, EVENT_DIAL)
      } else {
        fail(s, now)
      }
    } else if (type == EOF) {
      nextMessage(s)
      onEof(s, now)
    } else {
      nextMessage(s)
      // the accepting side echoes, in every state (protocol.md 6.1)
      if (!has(s, INITIATOR)) {
        s.flags |= ECHO_PENDING
        s.echoes = <u16>min<u32>(<u32>s.echoes + 1, MAX_ECHOES)
      }
      // a server that checks whether this session is alive learns our clock from the answer, for the next session
      else if (tagBytes() != 0 && s.rcvNxt == 1) s.wndProbes |= PROBE_TELL
    }
    if (s.state == TIME_WAIT) return
  }
  queuePending(s, now)
  announceWindow(s)
}

/**
 * Handles a PUSH at the front.
 * @returns true if it was consumed
 */
function onPush(s: Session, _now: u32): bool {
  noteStream(s)
  if (s.tcp == TCP_NONE) {
    // payload before DIAL: the rest of the stream is invalid
    s.flags |= STREAM_INVALID
    return true
  }
  if (s.tcp == TCP_GONE || has(s, EOF_RECEIVED)) {
    const n = consumePayload(s, ALL)
    if (n == 0) return false
    add(DISCARDED_BYTES, n)
    s.tcpWritten += n
    s.discarded += n
    if (s.discarded > MAX_DISCARDED_BYTES) endSession(s, 0)
    return true
  }
  if (s.tcp == TCP_OPEN && !has(s, READABLE_REPORTED) && hasPayload(s)) {
    s.flags |= READABLE_REPORTED | KEEPALIVE_PENDING
    queueEvent(s, EVENT_READABLE)
  }
  return false
}

/** The server has connected to the target: it needs no confirmation any more. */
function noteStream(s: Session): void {
  if (has(s, INITIATOR)) s.hasStream = 1
}

function onEof(s: Session, now: Ticks): void {
  if (has(s, EOF_RECEIVED)) return
  noteStream(s)
  s.flags |= EOF_RECEIVED
  if (s.tcp == TCP_NONE) {
    s.tcp = TCP_GONE
    uncountHalfOpen(s)
    sendEof(s, now)
  } else if (s.tcp == TCP_OPEN) {
    if (has(s, EOF_SENT)) detach(s)
    else queueEvent(s, EVENT_EOF)
  }
  enterLinger(s)
}

/** Both directions ended: the host closes TCP normally. */
function detach(s: Session): void {
  s.tcp = TCP_GONE
  queueLastEvent(s, EVENT_DETACH, 0)
}

/**
 * An invalid message (protocol.md 6.1): TCP is reset, the peer receives EOF, and the conversation continues until a
 * timeout.
 */
function fail(s: Session, now: Ticks): void {
  s.flags |= STREAM_INVALID
  const open = s.tcp == TCP_OPEN || s.tcp == TCP_DIALING
  s.tcp = TCP_GONE
  if (open) queueLastEvent(s, EVENT_ABORT, REASON_PROTOCOL)
  sendEof(s, now)
}

// ---- end

/** Frees the buffers; the record remains. */
export function closeConversation(s: Session): void {
  closeSendBuffer(s)
  closeReceiveBuffer(s)
  closeAcks(s)
  closeRecovery(s)
  closeCongestion(s)
  closeConfirm(s)
  closeRate(s)
  s.wndProbes = s.wndProbeInterval = 0
  s.flags &= ~(EOF_PENDING | ECHO_PENDING)
}

/** Ends a session: aborts TCP unless it is closed, and enters TIME_WAIT. Nothing is sent. */
export function endSession(s: Session, reason: u32): void {
  if (s.state == TIME_WAIT) return
  if (s.tcp == TCP_OPEN || s.tcp == TCP_DIALING) {
    count(SESSIONS_ABORTED)
    queueLastEvent(s, EVENT_ABORT, reason)
  }
  s.tcp = TCP_GONE
  if (s.remote) leaveRemote(s.remote)
  s.remote = 0
  uncountHalfOpen(s)
  closeConversation(s)
  setState(s, TIME_WAIT)
}

/**
 * A RESET for the session arrived. An attacker can cause one: a recorded datagram, sent to another endpoint with the
 * same key, is answered by RESET. So the peer is asked (WASK), and the session ends unless a segment of it arrives in
 * time.
 */
export function challengeReset(s: Session, now: Ticks): void {
  if (has(s, RESET_CHALLENGED)) return
  s.flags |= RESET_CHALLENGED
  s.resetAt = now
  s.wndProbes |= PROBE_ASK
}

/** The peer showed that the RESET was not genuine. */
export function dismissReset(s: Session): void {
  s.flags &= ~RESET_CHALLENGED
}

/**
 * The peer has no such conversation. If its EOF was received, everything before it is still written to TCP:
 * kcptun-libev may drop a session too early (protocol.md 6.7), which must not truncate a complete answer.
 */
export function resetByPeer(s: Session, reason: u32): void {
  if (s.state == ESTABLISHED && s.tcp == TCP_OPEN && !has(s, EOF_RECEIVED) && holdsEof(s)) {
    closeSendBuffer(s)
    closeAcks(s)
    s.wndProbes = s.wndProbeInterval = 0
    s.flags = (s.flags & ~(EOF_PENDING | ECHO_PENDING)) | EOF_SENT | DRAINING
    return
  }
  endSession(s, reason)
}
