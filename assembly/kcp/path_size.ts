/*
 * The largest datagram that a path takes (RFC 8899): what is known about it, and which size is to be tested next.
 * endpoint/path_search.ts sends the tests, endpoint/blackhole.ts notices that a path takes less than before.
 *
 * A search begins at the top, because most paths take all, and goes on halfway between the largest size that passed and
 * the smallest that did not. That random loss makes a size fail costs little: the next sizes are close to it.
 */

import { TICKS_PER_SECOND } from '../abi'
import { NEVER } from '../clock'
import { copyAddress, sameAddress } from '../packet/address'
import { Ticks } from '../units'
import { SendBuffer } from './conversation'
import { kcpMtu, searchMtu } from './options'
import { PeerPath, pathAddress } from './peer_path'
import { HEADER_BYTES } from './segment'

/** A datagram size counts as deliverable for this long. */
const PROVEN_TICKS: Ticks = 60 * TICKS_PER_SECOND
/** Sizes to fall back to, bytes of plaintext: about 1200, 1000, 800 and 576 with all headers. */
const SIZES: u32 = 4
const sizes: usize = memory.data<u32>([1132, 932, 732, 508])

/** A search starts when this many datagrams of about the present size were delivered, and while more are. */
const MIN_PROOFS: u32 = 32
const NEAR_BYTES: u32 = 128
const FILLED_TICKS: Ticks = 5 * TICKS_PER_SECOND
/** A size fails when this many tests of it are not answered (RFC 8899, MAX_PROBES). */
const MAX_TESTS: u32 = 3
/** The search ends when the sizes that passed and failed are this close. */
const PRECISION_BYTES: u32 = 4
/** Then it is repeated after this time, if there is traffic: the path may take more (RFC 8899, PMTU_RAISE_TIMER). */
const RAISE_TICKS: Ticks = 600 * TICKS_PER_SECOND

/** A datagram with `bytes` of plaintext was delivered to the peer. */
export function onDatagramDelivered(path: PeerPath, bytes: u32, now: Ticks): void {
  if (bytes < path.provenBytes && now - path.provenAt < PROVEN_TICKS) return
  path.proofs = bytes == path.provenBytes ? path.proofs + 1 : 1
  path.provenBytes = bytes
  path.provenAt = now
  path.comparisons = 0
}

/** @returns true if a datagram of `bytes` was delivered recently */
export function isProven(path: PeerPath, bytes: u32, now: Ticks): bool {
  return path.provenBytes >= bytes && now - path.provenAt < PROVEN_TICKS
}

/** @returns the next smaller size to try when datagrams of `bytes` are lost; 0 if no smaller size is left */
export function smallerThan(bytes: u32): u32 {
  if (searchMtu() != 0 && kcpMtu() < bytes) return kcpMtu()
  for (let i: u32 = 0; i < SIZES; i++) {
    const size = load<u32>(sizes + ((<usize>i) << 2))
    if (size < bytes) return size
  }
  return 0
}

// ---- the search

/** @returns bytes of plaintext of a full datagram on the path */
export function sizeOf(path: PeerPath): u32 {
  return path.size == 0 ? kcpMtu() : min(path.size, max(kcpMtu(), searchMtu()))
}

/** @returns true if a size is to be tested: the traffic fills datagrams, and the search is not over */
export function isSearching(path: PeerPath, now: Ticks): bool {
  if (path.isSearched) {
    if (now - path.searchedAt < RAISE_TICKS) return false
    path.isSearched = path.failedSize = 0
  }
  if (path.proofs < MIN_PROOFS || now - path.provenAt > FILLED_TICKS) return false
  return path.provenBytes + NEAR_BYTES >= sizeOf(path)
}

/** @returns the size to test next, 0 if the search is over */
export function nextTest(path: PeerPath, now: Ticks): u32 {
  const top = searchMtu()
  const low = sizeOf(path)
  const failed = path.failedSize
  if (low < top) {
    if (failed == 0) return top
    if (failed > low + PRECISION_BYTES) return min(top, low + (failed - low) / 2)
  }
  path.isSearched = 1
  path.searchedAt = now
  // what was found is in use, so it is still true
  if (path.size != 0) rememberSize(pathAddress(path), path.size, now)
  return 0
}

/** A test of `testSize` was not answered in time. */
export function onTestLost(path: PeerPath): void {
  path.testsLost++
  if (path.testsLost >= MAX_TESTS) {
    path.failedSize = path.testSize
    path.testsLost = 0
  }
  path.testSize = 0
}

/**
 * A test of `size` was answered.
 * @returns true if the path takes more than was known
 */
export function onTestPassed(path: PeerPath, size: u32): bool {
  if (size == path.testSize) path.testSize = path.testsLost = 0
  if (size <= sizeOf(path) || size > searchMtu()) return false
  // the answer was late
  if (path.failedSize <= size) path.failedSize = 0
  return true
}

/** Datagrams of `failed` bytes are lost: the path takes `size`, and what is between is searched. */
export function reduceSize(path: PeerPath, size: u32, failed: u32, now: Ticks): void {
  path.size = size
  path.failedSize = failed
  path.testSize = path.testsLost = 0
  path.isSearched = 0
  path.provenBytes = path.proofs = path.comparisons = 0
  path.reducedAt = now
}

/** Makes new segments of a conversation as large as its path takes. */
export function setPathMss(c: SendBuffer, size: u32): void {
  c.pathMss = size == 0 ? NEVER : size - HEADER_BYTES
}

// ---- known sizes: few and stored apart, because they outlive the conversations that found them

/** Number of paths of which a size is known; the oldest is replaced. */
const KNOWN: u32 = 64
const KNOWN_BYTES: u32 = 32
const SIZE: usize = 24
const SIZE_AT: usize = 28
/** A size applies for this long, so that a larger one is tried again. */
const KNOWN_TICKS: Ticks = 600 * TICKS_PER_SECOND
const known: usize = memory.data(64 * 32, 8)
let knownCount: u32 = 0

/** New conversations with `address` use datagrams of `bytes` of plaintext for some time. */
export function rememberSize(address: usize, bytes: u32, now: Ticks): void {
  const found = findSize(address)
  const at = found ? found : known + <usize>((knownCount++ % KNOWN) * KNOWN_BYTES)
  copyAddress(at, address)
  store<u32>(at, bytes, SIZE)
  store<u32>(at, now, SIZE_AT)
}

/** @returns size of the datagrams of new conversations; 0 if none is known, or not any more */
export function knownSize(address: usize, now: Ticks): u32 {
  const at = findSize(address)
  return at && now - load<u32>(at, SIZE_AT) < KNOWN_TICKS ? load<u32>(at, SIZE) : 0
}

function findSize(address: usize): usize {
  const n = min(knownCount, KNOWN)
  for (let i: u32 = 0; i < n; i++) {
    const at = known + <usize>(i * KNOWN_BYTES)
    if (sameAddress(at, address)) return at
  }
  return 0
}
