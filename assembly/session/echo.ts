/*
 * A session that only asks for an echo: the accepting side returns KEEPALIVEs, even before DIAL (protocol.md 6.1), in
 * datagrams as long as it makes them. So a client learns which datagrams arrive, and nothing is dialled.
 */

import { EVENT_ECHO } from '../abi'
import { recordDelivery } from '../kcp/delivery_rate'
import { restartProbeTimer } from '../kcp/loss_detection'
import { setPathMss } from '../kcp/path_size'
import { dropFirst, receivedLen } from '../kcp/receive_buffer'
import { HEADER_BYTES } from '../kcp/segment'
import { entryOf, markSent } from '../kcp/send_buffer'
import { Ticks } from '../units'
import { queueEvent } from './events'
import { BARE_BYTES, KEEPALIVE, queueMessage } from './message'
import { ECHO_ASKED, has, Session, STREAM_INVALID } from './session'

/** Payload of a segment of the question: small enough for any path. */
const CHUNK_BYTES: u32 = 200

/**
 * Queues the question.
 * @param bytes a multiple of BARE_BYTES
 * @returns false when memory is scarce
 */
export function queueEcho(s: Session, bytes: u32, now: Ticks): bool {
  // what arrives is counted, but is no stream of a connection
  s.flags |= ECHO_ASKED | STREAM_INVALID
  s.queuedAt = now
  setPathMss(s, CHUNK_BYTES + HEADER_BYTES)
  for (let i: u32 = 0; i < bytes; i += BARE_BYTES) if (!queueMessage(s, KEEPALIVE)) return false
  if (s.sndEnd - s.sndNxt > 1) withholdFirst(s, now)
  return true
}

/**
 * The first segment counts as sent and is not: it is sent again when a later one arrived. So the peer reads the whole
 * question at once, and its answer is not cut where ours was.
 */
function withholdFirst(s: Session, now: Ticks): void {
  const entry = entryOf(s, s.sndNxt)
  recordDelivery(s, entry, now)
  markSent(s, s.sndNxt, entry, now)
  s.sndNxt++
  restartProbeTimer(s, now)
}

/** Drops what arrived in order, after counting what belongs to an echo. */
export function discardReceived(s: Session): void {
  while (s.rcvRead != s.rcvNxt) {
    if (has(s, ECHO_ASKED)) onEcho(s, receivedLen(s, s.rcvRead))
    dropFirst(s)
  }
}

function onEcho(s: Session, bytes: u32): void {
  // a server may ask first whether we are alive, with a KEEPALIVE of its own
  if (s.rcvRead == 0 && bytes == BARE_BYTES) return
  s.tcpWritten += bytes
  s.discarded = max(s.discarded, bytes)
  queueEvent(s, EVENT_ECHO)
}
