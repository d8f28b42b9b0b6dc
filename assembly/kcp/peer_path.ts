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
/** While the RTT is raised, the minimum RTT is probed after this time. */
const CONTEST_TICKS: Ticks = 5 * TICKS_PER_SECOND
const MIN_PROBE_RTT_TICKS: Ticks = 50 * TICKS_PER_MS
/** The long-term minimum covers two periods of this length. */
const LONG_MIN_RTT_HALF_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** Share of the path's rate that duplicates of thin segments may take, and bytes that may be saved up. */
const DUPLICATES_SHARE: f64 = 0.1
const MAX_DUPLICATE_BYTES: f64 = 8192
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
  // largest datagram acknowledged recently, bytes of plaintext; when the last of that size was, and how many were
  provenBytes: u32
  provenAt: Ticks
  proofs: u32
  // search for the largest datagram (path_size.ts), bytes of plaintext: the size of new datagrams, 0 = kcpMtu; the
  // smallest size that failed, 0 = none
  size: u32
  failedSize: u32
  // the size being tested, 0 = none; when its last PING was sent, and how many were lost
  testSize: u32
  testedAt: Ticks
  testsLost: u32
  // whether the search is over, and since when
  isSearched: u32
  searchedAt: Ticks
  // when the size was reduced, and the last small PING was sent; answers to these since a datagram of provenBytes arrived
  reducedAt: Ticks
  comparedAt: Ticks
  comparisons: u32
  // number of probes that found a clearly higher minimum RTT
  minRttRises: u32
  // contest (updateContest): whether other traffic keeps the queue full; when a raised RTT was found last; the minimum RTT
  // before, 0 = it is not raised
  isContested: u32
  contestedAt: Ticks
  baseRtt: Ticks
  // minimum RTT of this half minute and the previous one
  longMinRttWindowAt: Ticks
  longMinRtt: Ticks
  longMinRttPrevious: Ticks
  // flows that have data, and the sum of their bandwidths
  flows: u32
  claimedBw: f64
  // those of them that are not app-limited
  bulkFlows: u32
  bulkBw: f64
  // their sum when the link limited them, when that was, and the base loss then
  capacityBw: f64
  capacityAt: Ticks
  baseLoss: f64
  // product of all reductions in favour of new flows; they apply to flows above `shareScaleMinBw`
  shareScale: f64
  shareScaleMinBw: f64
  // joint probe of its flows (joint_probe.ts): whether one is under way; its high part, its low part and the end of it,
  // and their length; segments of each that were acknowledged and lost
  isProbing: u32
  highAt: Ticks
  lowAt: Ticks
  lowEndAt: Ticks
  probePart: Ticks
  highAcked: u32
  highLost: u32
  lowAcked: u32
  lowLost: u32
  // when the next one is due, and the pause that was chosen; losses since the last one
  nextProbeAt: Ticks
  probePause: u32
  lostSinceProbe: u32
  // the flows overrun a queue that the RTT does not show; pacing gain of the high part
  isOverrun: u32
  highGain: f64
  // round of all flows: its start, segments acknowledged and lost, those of flows that are not app-limited; the highest
  // rate and the smallest loss of STARTUP, rounds without growth, overruns
  roundAt: Ticks
  roundAcked: u32
  roundLost: u32
  roundBulk: u32
  fullRate: f64
  leastLoss: f64
  flatRounds: u32
  overruns: u32
  // bytes that duplicates of thin segments may take, and when that was
  duplicateBytes: f64
  duplicatesAt: Ticks
}

const PEER_PATH_CLASS: u32 = classOf(offsetof<PeerPath>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))

/** @returns the address record of a path */
export function pathAddress(path: PeerPath): usize {
  return changetype<usize>(path) + offsetof<PeerPath>('address0')
}

/** @returns the path to an address with which there are conversations; null if there are none */
export function findPeerPath(address: usize): PeerPath | null {
  const hash = hashAddress(address, 0)
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    if (sameAddress(pathAddress(changetype<PeerPath>(at)), address)) return changetype<PeerPath>(at)
  }
  return null
}

/**
 * Joins the path to an address.
 * @returns the record, shared by all conversations with that address; 0 when memory is scarce
 */
export function joinPeerPath(address: usize, now: Ticks): usize {
  const known = findPeerPath(address)
  if (known) {
    known.references++
    return changetype<usize>(known)
  }
  const at = alloc(PEER_PATH_CLASS)
  if (!at) return 0
  memory.fill(at, 0, (<usize>1) << PEER_PATH_CLASS)
  if (!link(chains, at, hashAddress(address, 0))) {
    free(at, PEER_PATH_CLASS)
    return 0
  }
  const path = changetype<PeerPath>(at)
  copyAddress(pathAddress(path), address)
  path.references = 1
  path.shareScale = 1
  path.minRtt = path.longMinRtt = path.longMinRttPrevious = UNKNOWN
  path.minRttAt =
    path.longMinRttWindowAt =
    path.duplicatesAt =
    path.nextProbeAt =
    path.lowAt =
    path.lowEndAt =
    path.roundAt =
      now
  path.leastLoss = 1
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
      updateContest(path, now)
      path.minRtt = path.probeRttMin
      path.minRttAt = now
    }
  }
  if (path.baseRtt != 0) {
    if (rtt <= path.baseRtt + path.baseRtt / 8) endContest(path)
    else if (now - path.contestedAt >= CONTEST_TICKS) startProbeRtt(path, rtt, now)
  }
  if (rtt <= path.minRtt + path.minRtt / 50) {
    path.minRtt = min(path.minRtt, rtt)
    path.minRttAt = now
  } else if (!path.isProbingRtt && now - path.minRttAt >= MIN_RTT_EXPIRY_TICKS) {
    startProbeRtt(path, rtt, now)
  }
}

/**
 * PROBE_RTT ended. If it found a high RTT twice, although the flows of this path kept the link half empty, other traffic
 * keeps the queue full, and what yields to that queue gets nothing (cf. the mode switch of Copa). If it found the same
 * RTT again, the path itself has become longer.
 */
function updateContest(path: PeerPath, now: Ticks): void {
  const isSame = path.probeRttMin > path.minRtt - path.minRtt / 25 && path.probeRttMin < path.minRtt + path.minRtt / 25
  const base = path.baseRtt != 0 ? path.baseRtt : path.minRtt
  if (path.probeRttMin <= base + base / 4 || (isSame && path.isContested)) {
    endContest(path)
    return
  }
  if (path.baseRtt != 0) path.isContested = 1
  path.baseRtt = base
  path.contestedAt = now
}

function endContest(path: PeerPath): void {
  path.baseRtt = path.isContested = 0
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
