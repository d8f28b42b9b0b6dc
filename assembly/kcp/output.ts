/*
 * Output of one conversation: builds its next datagram (protocol.md 5.7), ACKs first, then probes, then segments found lost, then new ones.
 *
 * A segment that leaves alone is sent from its own block: only the 24 bytes of its header are written. Everything else is assembled in the transmit block.
 */

import { TICKS_PER_MS } from '../abi'
import { ACKS_SENT, count, SEGMENTS_RETRANSMITTED, SEGMENTS_SENT } from '../stats'
import { acksDue, pendingAcks, takeAck } from './ack'
import { sendLimit } from './congestion'
import { Conversation, freeWnd, kcpMtu, LEVEL_LOST, PROBE_ASK, PROBE_TELL, wireClock } from './conversation'
import { CMD_ACK, CMD_PUSH, CMD_WASK, CMD_WINS, diff, HEADER_BYTES, writeHeader } from './segment'
import { entryOf, firstOf, headerOf, LEN, markSent, TRANSMISSIONS } from './send_window'

/** A lost window announcement must not stall for long: probes start early and back off (the original: 7 s to 120 s). */
const FIRST_PROBE_TICKS: u32 = 500 * TICKS_PER_MS
const MAX_PROBE_TICKS: u32 = 15000 * TICKS_PER_MS

/** Where the datagram built last begins. */
export let built: usize = 0

/** True when a segment may leave: a lost one, or a new one inside the windows. */
export function hasSegment(c: Conversation): bool {
  if (c.levels & (1 << LEVEL_LOST)) return true
  return diff(c.sndEnd, c.sndNxt) > 0 && diff(c.sndNxt, c.sndUna + sendLimit(c)) < 0
}

export function hasOutput(c: Conversation, now: u32): bool {
  return c.probe != 0 || acksDue(c, now) || hasSegment(c)
}

/** Keeps the zero-window probe going; sets PROBE_ASK when one is due. */
export function updateProbe(c: Conversation, now: u32): void {
  if (c.rmtWnd != 0) {
    c.probeWait = 0
  } else if (c.probeWait == 0) {
    c.probeWait = FIRST_PROBE_TICKS
    c.probeAt = now + c.probeWait
  } else if (diff(now, c.probeAt) >= 0) {
    c.probeWait = min((c.probeWait * 3) / 2, MAX_PROBE_TICKS)
    c.probeAt = now + c.probeWait
    c.probe |= PROBE_ASK
  }
}

/** Asks to tell the peer of a window that reopened after it was (nearly) shut. */
export function announceWindow(c: Conversation): void {
  const edge = c.rcvRead + c.rcvWnd
  const shut = diff(c.rcvEdge, c.rcvNxt) <= 0
  if (diff(edge, c.rcvEdge) >= <i32>(c.rcvWnd / 2) || (shut && diff(edge, c.rcvEdge) > 0)) c.probe |= PROBE_TELL
}

/** Builds one datagram of at most kcpMtu bytes; 0 = nothing to send. `block` is where one is assembled; the result begins at `built`. */
export function buildDatagram(c: Conversation, block: usize, now: u32): u32 {
  const wnd = freeWnd(c)
  const una = c.rcvNxt
  const limit = kcpMtu
  c.rcvEdge = una + wnd
  c.lastSn = c.lastTs = 0
  let len: u32 = 0
  while (pendingAcks(c) != 0 && len + HEADER_BYTES <= limit) {
    takeAck(c, now)
    writeHeader(block + len, c.conv, CMD_ACK, wnd, c.lastTs, c.lastSn, una, 0)
    len += HEADER_BYTES
    count(ACKS_SENT)
  }
  len = appendProbe(c, block, len, PROBE_ASK, CMD_WASK, wnd)
  len = appendProbe(c, block, len, PROBE_TELL, CMD_WINS, wnd)
  built = block
  while (hasSegment(c)) {
    const lost = (c.levels & (1 << LEVEL_LOST)) != 0
    const sn = lost ? firstOf(c, LEVEL_LOST) : c.sndNxt
    const entry = entryOf(c, sn)
    const size = HEADER_BYTES + <u32>load<u16>(entry, LEN)
    if (len + size > limit) break
    if (!lost) c.sndNxt++
    count(SEGMENTS_SENT)
    if (load<u8>(entry, TRANSMISSIONS)) {
      count(SEGMENTS_RETRANSMITTED)
      c.retransmissions++
    }
    markSent(c, sn, entry, now)
    const header = headerOf(entry)
    writeHeader(header, c.conv, CMD_PUSH, wnd, wireClock(now), sn, una, size - HEADER_BYTES)
    if (len == 0 && (!hasSegment(c) || size + HEADER_BYTES > limit)) {
      built = header
      return size
    }
    memory.copy(block + len, header, size)
    len += size
    if (limit - len < HEADER_BYTES) break
  }
  return len
}

function appendProbe(c: Conversation, block: usize, len: u32, flag: u32, cmd: u32, wnd: u32): u32 {
  if (!(c.probe & flag) || len + HEADER_BYTES > kcpMtu) return len
  c.probe &= ~flag
  writeHeader(block + len, c.conv, cmd, wnd, c.lastTs, c.lastSn, c.rcvNxt, 0)
  return len + HEADER_BYTES
}
