/*
 * Black hole detection (RFC 8899): large datagrams are lost while small ones pass, because the MTU of the path is below
 * `kcp.mtu` and no ICMP message arrives.
 *
 * When a segment is not delivered after several transmissions, a small datagram is sent for comparison: a KEEPALIVE, or
 * a PING whose PONG counts. If small ones are delivered, new segments and new conversations on that path become
 * smaller. Segments with a number cannot be split again, because the peer may have them; a conversation that is stuck
 * on one is ended, so that its application reconnects rather than waits.
 */

import { EVENT_MTU, REASON_MTU } from '../abi'
import { isAnsweredAfter } from '../control/keepalive'
import { limitPath, PeerPath, pathLimit, smallerThan } from '../kcp/peer_path'
import { diff, HEADER_BYTES } from '../kcp/segment'
import { entryOf, LEN, TRANSMISSIONS } from '../kcp/send_buffer'
import { sealBytes } from '../packet/datagram'
import { queueEndpointEvent } from '../session/events'
import { addressOf, has, INITIATOR, Session } from '../session/session'
import { endSession, sendKeepalive } from '../session/stream'
import { Ticks } from '../units'

/**
 * Transmissions of one segment after which a KEEPALIVE is sent, datagrams become smaller, and the conversation ends. With
 * 30 % loss in each direction 15 in a row fail once in 25 000 times, 9 once in 430.
 */
const TEST_TRANSMISSIONS: u32 = 3
const REDUCE_TRANSMISSIONS: u32 = 5
const END_TRANSMISSIONS: u32 = 15

/** To be called when a timer of a session expired or ACKs arrived for it. */
export function checkBlackhole(s: Session, now: Ticks): void {
  // a peer that dropped the segment for lack of memory reports it
  if (!s.peerPath || s.sndUna == s.sndNxt || s.isPeerOutOfMemory) return
  const entry = entryOf(s, s.sndUna)
  const transmissions = <u32>load<u8>(entry, TRANSMISSIONS)
  if (transmissions < TEST_TRANSMISSIONS) return
  const path = changetype<PeerPath>(s.peerPath)
  const smaller = smallerThan(path, HEADER_BYTES + <u32>load<u16>(entry, LEN), now)
  if (smaller == 0) return
  if (s.blackholeAt == 0 || s.blackholeSn != s.sndUna) {
    s.blackholeSn = s.sndUna
    s.blackholeAt = max<u32>(1, now)
    sendKeepalive(s, now)
  }
  if (transmissions < REDUCE_TRANSMISSIONS || !areSmallDatagramsAcked(s)) return
  const limit = pathLimit(addressOf(s), now)
  if (limit == 0 || smaller < limit) {
    limitPath(addressOf(s), smaller, now)
    queueEndpointEvent(EVENT_MTU, smaller + sealBytes())
  }
  s.pathMss = min(s.pathMss, smaller - HEADER_BYTES)
  if (transmissions >= END_TRANSMISSIONS) endSession(s, REASON_MTU)
}

/** @returns true if a small datagram sent since the suspicion was acknowledged */
function areSmallDatagramsAcked(s: Session): bool {
  if (s.hasRack && diff(s.rackSentAt, s.blackholeAt) >= 0) return true
  return has(s, INITIATOR) && isAnsweredAfter(s.blackholeAt)
}
