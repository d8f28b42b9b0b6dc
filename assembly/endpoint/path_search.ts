/*
 * The search for the largest datagram that a path takes (RFC 8899, docs/protocol.md 4.1): PINGs with padding are sent
 * beside the segments, and a PONG shows that such a datagram arrived. Nothing else raises the size: what the system, or a
 * router by ICMP, says about the path can be forged.
 *
 * There is no timer: the ACKs of segments that fill datagrams drive the search. So it runs while it can be of use, while
 * the peer answers, and wakes nobody up.
 */

import { TICKS_PER_MS } from '../abi'
import { SIZE_PING, sendPing } from '../control/pings'
import { searchMtu } from '../kcp/options'
import { isSearching, nextTest, onTestLost, onTestPassed, rememberSize, setPathMss } from '../kcp/path_size'
import { findPeerPath, PeerPath, pathAddress } from '../kcp/peer_path'
import { sealBytes } from '../packet/datagram'
import { isValidated, Remote } from '../packet/remote'
import { Session } from '../session/session'
import { sessionAt, slotsInUse } from '../session/table'
import { count, PATH_BYTES, SIZE_TESTS_ANSWERED, SIZE_TESTS_SENT, set } from '../stats'
import { Ticks } from '../units'

/** A test without an answer is lost after two round trips, and at least this long. */
const MIN_TEST_TICKS: Ticks = 500 * TICKS_PER_MS
/** Minimum interval between two small PINGs on a path. */
const COMPARE_TICKS: Ticks = 100 * TICKS_PER_MS

/** To be called when a datagram of the session arrived: tests the next size if it is time. */
export function searchPath(s: Session, now: Ticks): void {
  if (searchMtu() == 0 || !s.peerPath) return
  const path = changetype<PeerPath>(s.peerPath)
  if (path.testSize != 0) {
    if (now - path.testedAt < max<Ticks>(2 * s.srtt, MIN_TEST_TICKS)) return
    onTestLost(path)
  }
  if (!isSearching(path, now) || !mayPing(s)) return
  const size = nextTest(path, now)
  if (size == 0 || !sendTest(path, size, now)) return
  path.testSize = size
  path.testedAt = now
}

/** An address that is not validated is sent nothing that it did not request. */
function mayPing(s: Session): bool {
  return !s.remote || isValidated(changetype<Remote>(s.remote))
}

function sendTest(path: PeerPath, size: u32, now: Ticks): bool {
  if (!sendPing(SIZE_PING, size, pathAddress(path), now, size)) return false
  count(SIZE_TESTS_SENT)
  return true
}

/**
 * Sends a small PING on the path of a session whose large datagrams are lost: if it is answered, not everything is. A
 * segment would not do, because it waits behind the large ones.
 */
export function compareSmall(s: Session, now: Ticks): void {
  const path = changetype<PeerPath>(s.peerPath)
  if (now - path.comparedAt < COMPARE_TICKS || !mayPing(s)) return
  if (sendTest(path, 0, now)) path.comparedAt = now
}

/** A test of `size`, 0 for a small one, was answered by `address`. */
export function onSizePong(size: u32, sentAt: Ticks, address: usize, now: Ticks): void {
  const path = findPeerPath(address)
  if (!path) return
  count(SIZE_TESTS_ANSWERED)
  if (size == 0) path.comparisons++
  else if (<i32>(sentAt - path.reducedAt) > 0 && onTestPassed(path, size)) applySize(path, size, now)
}

/** The path takes datagrams of `size` bytes of plaintext: all its conversations make new segments for that. */
export function applySize(path: PeerPath, size: u32, now: Ticks): void {
  path.size = size
  rememberSize(pathAddress(path), size, now)
  set(PATH_BYTES, size + sealBytes())
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (s && s.peerPath == changetype<usize>(path)) setPathMss(s, size)
  }
}
