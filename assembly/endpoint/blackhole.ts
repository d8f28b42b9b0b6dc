/*
 * Black hole detection (RFC 8899): large datagrams are lost while small ones pass, because the path takes less than was
 * found before, or than `kcp.mtu`, and no ICMP message arrives.
 *
 * When a segment is not delivered after several transmissions, small PINGs are sent for comparison. If they are answered,
 * new segments and new conversations on that path become smaller. Segments with a number cannot be split again, because
 * the peer may have them: they are sent again in datagrams that may be fragmented, if the host can do that. A conversation
 * that remains stuck is ended, so that its application reconnects rather than waits.
 */

import { EVENT_MTU, REASON_MTU, TICKS_PER_SECOND } from '../abi'
import { scheduleProbe } from '../kcp/loss_detection'
import { searchMtu } from '../kcp/options'
import { isProven, knownSize, reduceSize, rememberSize, smallerThan } from '../kcp/path_size'
import { PeerPath } from '../kcp/peer_path'
import { diff, HEADER_BYTES } from '../kcp/segment'
import { entryOf, isLost, LEN, TRANSMISSIONS } from '../kcp/send_buffer'
import { sealBytes } from '../packet/datagram'
import { queueEndpointEvent } from '../session/events'
import { addressOf, Session } from '../session/session'
import { endSession } from '../session/stream'
import { PATH_BYTES, set } from '../stats'
import { Ticks } from '../units'
import { applySize, compareSmall } from './path_search'

/**
 * Transmissions of one segment after which a small PING is sent, datagrams become smaller, and the conversation ends. With
 * 30 % loss in each direction 15 in a row fail once in 25 000 times, 9 once in 430.
 */
const TEST_TRANSMISSIONS: u32 = 3
const REDUCE_TRANSMISSIONS: u32 = 5
const END_TRANSMISSIONS: u32 = 15
/** The same if datagrams of that size were delivered not long ago. */
const REDUCE_PROVEN_TRANSMISSIONS: u32 = 8
/** Small PINGs that must have been answered. */
const MIN_ANSWERS: u32 = 3
/** Time for fragments to arrive before a conversation ends. */
const FRAGMENTS_TICKS: Ticks = 10 * TICKS_PER_SECOND

/** To be called when a timer of a session expired or ACKs arrived for it. */
export function checkBlackhole(s: Session, now: Ticks): void {
  // a peer that dropped the segment for lack of memory reports it
  if (!s.peerPath || s.sndUna == s.sndNxt || s.isPeerOutOfMemory) return
  const entry = entryOf(s, s.sndUna)
  // the segment may wait behind many others that are lost: probe timeouts without any delivery count, too
  const transmissions = max<u32>(<u32>load<u8>(entry, TRANSMISSIONS), s.ptoCount)
  if (transmissions < TEST_TRANSMISSIONS) return
  const path = changetype<PeerPath>(s.peerPath)
  const bytes = HEADER_BYTES + <u32>load<u16>(entry, LEN)
  const smaller = smallerThan(bytes)
  const proven = isProven(path, bytes, now)
  // without a search the size is that of the configuration, and was right a moment ago
  if (smaller == 0 || (proven && searchMtu() == 0)) return
  if (s.blackholeAt == 0 || s.blackholeSn != s.sndUna) {
    s.blackholeSn = s.sndUna
    s.blackholeAt = max<u32>(1, now)
    if (!proven) path.comparisons = 0
  }
  // a PING beside each transmission: a late answer to the segment is not mistaken for its loss
  if (!isLost(entry)) return
  compareSmall(s, now)
  const least = proven ? REDUCE_PROVEN_TRANSMISSIONS : REDUCE_TRANSMISSIONS
  if (transmissions < least) return
  if (path.comparisons < MIN_ANSWERS && (proven || !areSmallSegmentsAcked(s))) return
  if (s.pathMss > smaller - HEADER_BYTES) reduce(s, path, smaller, bytes, now)
  if (transmissions >= END_TRANSMISSIONS && isHopeless(path, now)) endSession(s, REASON_MTU)
}

/** Reduces the size of new datagrams to `size`, if it is larger; `failed` bytes do not pass. */
function reduce(s: Session, path: PeerPath, size: u32, failed: u32, now: Ticks): void {
  if (searchMtu() != 0) {
    reduceSize(path, size, failed, now)
    applySize(path, size, now)
    queueEndpointEvent(EVENT_MTU, size + sealBytes())
    // the segments that are too large leave now
    scheduleProbe(s, now)
    return
  }
  const limit = knownSize(addressOf(s), now)
  if (limit == 0 || size < limit) {
    rememberSize(addressOf(s), size, now)
    set(PATH_BYTES, size + sealBytes())
    queueEndpointEvent(EVENT_MTU, size + sealBytes())
  }
  s.pathMss = size - HEADER_BYTES
}

/** @returns true if another segment, sent since the suspicion, was acknowledged */
function areSmallSegmentsAcked(s: Session): bool {
  return s.hasRack != 0 && diff(s.rackSentAt, s.blackholeAt) >= 0
}

/** @returns true if what is too large for the path is not delivered in fragments either, or cannot be sent so */
function isHopeless(path: PeerPath, now: Ticks): bool {
  return searchMtu() == 0 || (path.comparisons >= MIN_ANSWERS && now - path.reducedAt >= FRAGMENTS_TICKS)
}
