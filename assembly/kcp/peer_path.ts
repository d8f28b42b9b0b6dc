/*
 * State shared by the conversations with one peer: minimum RTT, the probe that refreshes it (PROBE_RTT), and the sum of
 * their bandwidths.
 *
 * Without it a new flow would take the standing queue of the others for the minimum RTT, and the queue would never
 * drain. Flows that share the minimum RTT share the link.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, hashAddress, sameAddress } from '../packet/address'
import { Ticks } from '../units'

/** A minimum RTT that no sample came near for this long is probed. */
const MIN_RTT_EXPIRY_TICKS: Ticks = 10 * TICKS_PER_SECOND
const MIN_PROBE_RTT_TICKS: Ticks = 50 * TICKS_PER_MS
/** The long-term minimum covers two periods of this length. */
const LONG_MIN_RTT_HALF_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** Share of the path's rate that duplicates of thin segments may take, and bytes that may be saved up. */
const DUPLICATES_SHARE: f64 = 0.1
const MAX_DUPLICATE_BYTES: f64 = 8192
/** A datagram size counts as deliverable for this long. */
const PROVEN_TICKS: Ticks = 60 * TICKS_PER_SECOND
/** A size limit applies for this long. */
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
  // minimum RTT in ticks; when a sample last came near it
  minRtt: Ticks
  minRttAt: Ticks
  // PROBE_RTT: its end, and the minimum seen
  probeRttUntil: Ticks
  isProbingRtt: u32
  probeRttMin: Ticks
  // largest datagram acknowledged recently, bytes of plaintext
  provenBytes: u32
  provenAt: Ticks
  // number of probes that found a clearly higher minimum RTT
  minRttRises: u32
  // minimum RTT of this half minute and the previous one
  longMinRttWindowAt: Ticks
  longMinRtt: Ticks
  longMinRttPrevious: Ticks
  // flows that have data, and the sum of their bandwidths
  flows: u32
  claimedBw: f64
  // their sum when the link limited them, when that was, and the base loss then
  capacityBw: f64
  capacityAt: Ticks
  baseLoss: f64
  // product of all reductions in favour of new flows; they apply to flows above `shareScaleMinBw`
  shareScale: f64
  shareScaleMinBw: f64
  // bytes that duplicates of thin segments may take, and when that was
  duplicateBytes: f64
  duplicatesAt: Ticks
}

const PEER_PATH_CLASS: u32 = classOf(offsetof<PeerPath>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))

function addressOf(path: PeerPath): usize {
  return changetype<usize>(path) + offsetof<PeerPath>('address0')
}

/**
 * Joins the path to an address.
 * @returns the record, shared by all conversations with that address; 0 when memory is scarce
 */
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
  path.minRttAt = path.longMinRttWindowAt = path.duplicatesAt = now
  path.duplicateBytes = MAX_DUPLICATE_BYTES
  return at
}

/** A conversation leaves its path; the last one frees the record. */
export function leavePeerPath(at: usize): void {
  if (--changetype<PeerPath>(at).references) return
  unlink(chains, at)
  free(at, PEER_PATH_CLASS)
}

/** Adds an RTT sample; ends PROBE_RTT when its time is over. */
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

/** Starts PROBE_RTT: the RTT stays high although the flows reduced their rates. */
export function startProbeRtt(path: PeerPath, rtt: Ticks, now: Ticks): void {
  if (path.isProbingRtt) return
  path.isProbingRtt = 1
  path.probeRttMin = rtt
  path.probeRttUntil = now + rtt + max(path.minRtt, MIN_PROBE_RTT_TICKS)
}

/** @returns minimum RTT of the last 30 to 60 seconds */
export function longMinRtt(path: PeerPath): Ticks {
  return min(path.longMinRtt, path.longMinRttPrevious)
}

/**
 * @param rate of the path, bytes per tick
 * @returns bytes that duplicates of thin segments may take now
 */
export function duplicateRoom(path: PeerPath, rate: f64, now: Ticks): f64 {
  const earned = <f64>(now - path.duplicatesAt) * DUPLICATES_SHARE * rate
  path.duplicatesAt = now
  path.duplicateBytes = min(MAX_DUPLICATE_BYTES, path.duplicateBytes + earned)
  return path.duplicateBytes
}

/** A datagram with `bytes` of plaintext was delivered to the peer. */
export function onDatagramDelivered(path: PeerPath, bytes: u32, now: Ticks): void {
  if (bytes < path.provenBytes && now - path.provenAt < PROVEN_TICKS) return
  path.provenBytes = bytes
  path.provenAt = now
}

/**
 * @returns the next smaller size to try when datagrams of `bytes` are lost; 0 if one of that size was delivered
 *   recently, or no smaller size is left
 */
export function smallerThan(path: PeerPath, bytes: u32, now: Ticks): u32 {
  if (path.provenBytes >= bytes && now - path.provenAt < PROVEN_TICKS) return 0
  for (let i: u32 = 0; i < SIZES; i++) {
    const size = load<u32>(sizes + ((<usize>i) << 2))
    if (size < bytes) return size
  }
  return 0
}

// ---- size limits: few and stored apart, because they outlive the conversations that found them

/** Number of paths with a limit; the oldest is replaced. */
const LIMITS: u32 = 16
const LIMIT_BYTES: u32 = 32
const LIMIT: usize = 24
const LIMIT_AT: usize = 28
const limits: usize = memory.data(16 * 32, 8)
let limitCount: u32 = 0

/** Limits new conversations with `address` to `bytes` of plaintext for some time. */
export function limitPath(address: usize, bytes: u32, now: Ticks): void {
  const known = findLimit(address)
  const at = known ? known : limits + <usize>((limitCount++ % LIMITS) * LIMIT_BYTES)
  copyAddress(at, address)
  store<u32>(at, bytes, LIMIT)
  store<u32>(at, now, LIMIT_AT)
}

/**
 * @returns limit of new conversations, 0 if there is none; it expires after some minutes, so that a larger size is
 *   tried again
 */
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
