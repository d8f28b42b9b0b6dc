/*
 * Transmitted datagrams: control messages first, then sessions with output in turn.
 */

import { E_ENTROPY, MAX_DATAGRAM_BYTES, TX_SLOTS } from '../abi'
import { buildControl } from '../control/control'
import { onDatagramSent } from '../control/keepalive'
import { isControlWaiting, isFromProbe, limitOf, RECEIVER, shiftEntry, testBytesOf } from '../control/queue'
import { kcpMtu, segmentLimit } from '../kcp/options'
import { buildDatagram, Datagram, fillDatagram, hasOutput } from '../kcp/output'
import { HEADER_BYTES } from '../kcp/segment'
import { familyOf, IPV6, keyOf } from '../packet/address'
import {
  canSeal,
  describeTx,
  markJoined,
  markMayFragment,
  markSizeTest,
  sealBytes,
  sendFromProbe,
  tagBytes,
  txBlock,
} from '../packet/datagram'
import { onKeySent } from '../packet/keys'
import { markSent, onSentTo, Remote, sendRoom } from '../packet/remote'
import { addressOf, Session } from '../session/session'
import { add, count, KCP_SENT_BYTES, PKT_SENT, PKT_SENT_BYTES, SEGMENTS_OVERSIZED } from '../stats'
import { Ticks } from '../units'
import { packetOverhead } from './obfs'
import { endRun, joinRun } from './runs'
import { dequeueReady, hasReady, hold, isLive, readySession } from './schedule'

/** Datagrams that a session may send per turn. */
const TURN: u32 = 16
const NO_LIMIT: u32 = u32.MAX_VALUE

/**
 * Fills up to `limit` transmit descriptors.
 * @returns their number, or E_ENTROPY
 */
export function transmit(limit: u32, now: Ticks): i32 {
  const slots = min(limit, TX_SLOTS)
  let n: u32 = 0
  let turn: u32 = 0
  while (n < slots && (isControlWaiting() || hasReady())) {
    if (!canSeal()) return n ? n : E_ENTROPY
    if (isControlWaiting()) {
      transmitControl(n++, now)
      continue
    }
    const s = readySession()
    const len = isLive(s) && hasOutput(s, now) ? transmitSession(s, n, now) : 0
    if (len) {
      n++
      turn++
    }
    const more = len != 0 && hasOutput(s, now)
    if (!more || turn >= TURN) {
      dequeueReady(s, more, now)
      turn = 0
    }
  }
  return n
}

function transmitControl(i: u32, now: Ticks): void {
  const entry = shiftEntry()
  const block = txBlock(i)
  endRun()
  const len = buildControl(entry, block)
  const receiver = entry + RECEIVER
  if (testBytesOf(entry)) {
    // it is expected to be lost, so nothing waits for its answer
    countDatagram(describeTx(i, block, len, len, receiver, 0), receiver)
    markSizeTest(i)
    return
  }
  const most = limitOf(entry)
  const limit = most ? min(most, kcpMtu()) : kcpMtu()
  onDatagramBuilt(describeTx(i, block, len, limit, receiver, 0), receiver, now)
  if (isFromProbe(entry)) sendFromProbe(i)
}

/**
 * Builds a datagram of a session.
 * @returns its bytes of plaintext; 0 if its receiver may not be sent it yet
 */
function transmitSession(s: Session, i: u32, now: Ticks): u32 {
  if (!s.remote) {
    const datagram = buildDatagram(s, txBlock(i), NO_LIMIT, now)
    if (datagram.bytes) describe(s, i, datagram, NO_LIMIT, now)
    return datagram.bytes
  }
  const remote = changetype<Remote>(s.remote)
  const overhead = sealBytes()
  const room = sendRoom(remote)
  const most = room == NO_LIMIT ? NO_LIMIT : room > overhead ? room - overhead : 0
  const next = s.sndNxt
  const datagram = buildDatagram(s, txBlock(i), most, now)
  if (datagram.bytes == 0) {
    if (most != NO_LIMIT) hold(s)
    return 0
  }
  if (s.sndNxt != next) markSent(remote, s.conv, next)
  onSentTo(remote, describe(s, i, datagram, most, now))
  return datagram.bytes
}

/**
 * Fills a descriptor. Padding makes no datagram larger than `most`, or than what the path is known to take.
 * @returns bytes on the socket
 */
function describe(s: Session, i: u32, datagram: Datagram, most: u32, now: Ticks): u32 {
  const isLong = datagram.isOversized && familyOf(addressOf(s)) == IPV6
  const start = isLong ? txBlock(i) : datagram.start
  const len = isLong ? lengthen(s, datagram, start, most, now) : datagram.bytes
  add(KCP_SENT_BYTES, len)
  const limit = tagBytes() ? min(segmentLimit(s) + HEADER_BYTES, most) : 0
  const bytes = describeTx(i, start, len, limit, addressOf(s), s.handle)
  if (datagram.isOversized) {
    endRun()
    markMayFragment(i)
    count(SEGMENTS_OVERSIZED)
  } else if (joinRun(s, datagram.lastSegment, bytes, now)) {
    markJoined(i)
  }
  onDatagramBuilt(bytes, addressOf(s), now)
  return bytes
}

/**
 * Copies a datagram to `block` and makes it as long as a receiver accepts. Over IPv6 only the sender fragments, and Linux
 * does that only with what is longer than the MTU of the interface.
 * @returns its bytes
 */
function lengthen(s: Session, datagram: Datagram, block: usize, most: u32, now: Ticks): u32 {
  memory.copy(block, datagram.start, datagram.bytes)
  return fillDatagram(s, block, datagram.bytes, min(MAX_DATAGRAM_BYTES - sealBytes(), most), now)
}

function onDatagramBuilt(bytes: u32, address: usize, now: Ticks): void {
  onDatagramSent(now)
  countDatagram(bytes, address)
}

function countDatagram(bytes: u32, address: usize): void {
  count(PKT_SENT)
  onKeySent(keyOf(address))
  add(PKT_SENT_BYTES, bytes + packetOverhead(address))
}
