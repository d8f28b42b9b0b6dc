/*
 * What the conversations with one peer know together: the RTT floor, the probe that refreshes it, and the sum of their
 * rates.
 *
 * A late flow would take the standing queue of the others for the floor, and nothing would ever drain; flows that share
 * the floor share the link.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, hashAddress, sameAddress } from '../packet/address'
import { Ticks } from '../units'

/** A floor that nothing came near for so long is probed for. */
const MIN_RTT_EXPIRY_TICKS: Ticks = 10 * TICKS_PER_SECOND
const MIN_PROBE_RTT_TICKS: Ticks = 50 * TICKS_PER_MS
/** Halves of the long memory of the floor. */
const LONG_MIN_RTT_HALF_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** A size of datagrams counts as passing for so long. */
const PROVEN_TICKS: Ticks = 60 * TICKS_PER_SECOND
/** A limit holds so long. */
const LIMIT_TICKS: Ticks = 600 * TICKS_PER_SECOND
/** Sizes to fall back to, bytes of plaintext: about 1200, 1000, 800 and 576 with all headers. */
const SIZES: u32 = 4
const sizes: usize = memory.data<u32>([1132, 932, 732, 508])
export const UNKNOWN: u32 = 0xffffffff

@unmanaged
export class PeerPath {
  chained: usize
  hash: u32
  address0: u64
  address1: u64
  address2: u64
  references: u32
  // RTT floor in ticks; when a sample last came near it
  minRtt: Ticks
  minRttAt: Ticks
  // probing for the floor: until when, and the least seen
  probeRttUntil: Ticks
  isProbingRtt: u32
  probeRttMin: Ticks
  // largest datagram that was acknowledged lately, in bytes of plaintext
  provenBytes: u32
  provenAt: Ticks
  // how often a probe found a clearly higher floor
  minRttRises: u32
  // least RTT of this half minute and the one before
  longMinRttWindowAt: Ticks
  longMinRtt: Ticks
  longMinRttPrevious: Ticks
  // rates of the flows that have data
  flows: u32
  claimedBw: f64
  // what they carried together when the link was what limited them, when that was, and the base loss then
  capacityBw: f64
  capacityAt: Ticks
  baseLoss: f64
  // product of all that flows left to late ones; only flows of more than this are asked
  shareScale: f64
  shareScaleMinBw: f64
}

const PEER_PATH_CLASS: u32 = classOf(offsetof<PeerPath>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))

function addressOf(path: PeerPath): usize {
  return changetype<usize>(path) + offsetof<PeerPath>('address0')
}

/** The path to an address, shared by all who join it; 0 when memory is scarce. */
export function joinPeerPath(address: usize, now: Ticks): usize {
  const hash = hashAddress(address, 0)
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    if (!sameAddress(addressOf(changetype<PeerPath>(at)), address)) continue
    changetype<PeerPath>(at).references++
    return at
  }
  const at = alloc(PEER_PATH_CLASS)
  if (!at) return 0
  memory.fill(at, 0, (<usize>1) << PEER_PATH_CLASS)
  if (!link(chains, at, hash)) {
    free(at, PEER_PATH_CLASS)
    return 0
  }
  const path = changetype<PeerPath>(at)
  copyAddress(addressOf(path), address)
  path.references = 1
  path.shareScale = 1
  path.minRtt = path.longMinRtt = path.longMinRttPrevious = UNKNOWN
  path.minRttAt = path.longMinRttWindowAt = now
  return at
}

export function leavePeerPath(at: usize): void {
  if (--changetype<PeerPath>(at).references) return
  unlink(chains, at)
  free(at, PEER_PATH_CLASS)
}

/** Takes in an RTT sample; ends a probe that is over. */
export function onPathRtt(path: PeerPath, rtt: Ticks, now: Ticks): void {
  if (now - path.longMinRttWindowAt >= LONG_MIN_RTT_HALF_TICKS) {
    path.longMinRttPrevious = path.longMinRtt
    path.longMinRtt = UNKNOWN
    path.longMinRttWindowAt = now
  }
  path.longMinRtt = min(path.longMinRtt, rtt)
  if (path.isProbingRtt) {
    path.probeRttMin = min(path.probeRttMin, rtt)
    if (<i32>(now - path.probeRttUntil) >= 0) {
      path.isProbingRtt = 0
      if (path.probeRttMin > path.minRtt + path.minRtt / 4) path.minRttRises++
      path.minRtt = path.probeRttMin
      path.minRttAt = now
    }
  }
  if (rtt <= path.minRtt + path.minRtt / 50) {
    path.minRtt = min(path.minRtt, rtt)
    path.minRttAt = now
  } else if (!path.isProbingRtt && now - path.minRttAt >= MIN_RTT_EXPIRY_TICKS) {
    startProbeRtt(path, rtt, now)
  }
}

/** Starts looking for the floor anew: the RTT stays up whatever the flows do. */
export function startProbeRtt(path: PeerPath, rtt: Ticks, now: Ticks): void {
  if (path.isProbingRtt) return
  path.isProbingRtt = 1
  path.probeRttMin = rtt
  path.probeRttUntil = now + rtt + max(path.minRtt, MIN_PROBE_RTT_TICKS)
}

/** The least RTT of the last half to one minute. */
export function longMinRtt(path: PeerPath): Ticks {
  return min(path.longMinRtt, path.longMinRttPrevious)
}

/** A datagram with `bytes` of plaintext arrived at the peer. */
export function onDatagramDelivered(path: PeerPath, bytes: u32, now: Ticks): void {
  if (bytes < path.provenBytes && now - path.provenAt < PROVEN_TICKS) return
  path.provenBytes = bytes
  path.provenAt = now
}

/**
 * The next smaller size to try when datagrams of `bytes` vanish; 0 if some of that size arrived lately, or none smaller
 * is left.
 */
export function smallerThan(path: PeerPath, bytes: u32, now: Ticks): u32 {
  if (path.provenBytes >= bytes && now - path.provenAt < PROVEN_TICKS) return 0
  for (let i: u32 = 0; i < SIZES; i++) {
    const size = load<u32>(sizes + ((<usize>i) << 2))
    if (size < bytes) return size
  }
  return 0
}

// ---- limits of size: few and kept apart, since they outlive the conversations that found them

/** Paths with a limit; the oldest is forgotten for the next. */
const LIMITS: u32 = 16
const LIMIT_BYTES: u32 = 32
const LIMIT: usize = 24
const LIMIT_AT: usize = 28
const limits: usize = memory.data(16 * 32, 8)
let limitCount: u32 = 0

/** Holds new conversations with `address` to `bytes` of plaintext for a while. */
export function limitPath(address: usize, bytes: u32, now: Ticks): void {
  const known = findLimit(address)
  const at = known ? known : limits + <usize>((limitCount++ % LIMITS) * LIMIT_BYTES)
  copyAddress(at, address)
  store<u32>(at, bytes, LIMIT)
  store<u32>(at, now, LIMIT_AT)
}

/** The limit of new conversations, 0 if there is none; after some minutes it is tried again whether more passes. */
export function pathLimit(address: usize, now: Ticks): u32 {
  const at = findLimit(address)
  return at && now - load<u32>(at, LIMIT_AT) < LIMIT_TICKS ? load<u32>(at, LIMIT) : 0
}

function findLimit(address: usize): usize {
  const n = min(limitCount, LIMITS)
  for (let i: u32 = 0; i < n; i++) {
    const at = limits + <usize>(i * LIMIT_BYTES)
    if (sameAddress(at, address)) return at
  }
  return 0
}
