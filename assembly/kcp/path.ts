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
const FLOOR_AGE_TICKS: Ticks = 10 * TICKS_PER_SECOND
const MIN_FLOOR_HOLD_TICKS: Ticks = 50 * TICKS_PER_MS
/** Halves of the long memory of the floor. */
const LONG_HALF_TICKS: Ticks = 30 * TICKS_PER_SECOND
/** A size of datagrams counts as passing for so long. */
const PROVEN_TICKS: Ticks = 60 * TICKS_PER_SECOND
/** A limit holds so long. */
const LIMIT_TICKS: Ticks = 600 * TICKS_PER_SECOND
/** Sizes to fall back to, bytes of plaintext: about 1200, 1000, 800 and 576 with all headers. */
const SIZES: u32 = 4
const sizes: usize = memory.data<u32>([1132, 932, 732, 508])
export const UNKNOWN: u32 = 0xffffffff

@unmanaged
export class Path {
  chained: usize
  hash: u32
  address0: u64
  address1: u64
  address2: u64
  users: u32
  // RTT floor in ticks; when a sample last came near it
  floor: Ticks
  floorAt: Ticks
  // probing for the floor: until when, and the least seen
  probeUntil: Ticks
  probing: u32
  probeLeast: Ticks
  // largest datagram that was acknowledged lately, in bytes of plaintext
  proven: u32
  provenAt: Ticks
  // how often a probe found a clearly higher floor
  raised: u32
  // least RTT of this half minute and the one before
  longAt: Ticks
  longNow: Ticks
  longBefore: Ticks
  // rates of the flows that have data
  flows: u32
  rates: f64
  // what they carried together when the link was what limited them, when that was, and the base loss then
  known: f64
  knownAt: Ticks
  loss: f64
  // product of all that flows left to late ones; only flows of more than this are asked
  cut: f64
  cutAbove: f64
}

const PATH_CLASS: u32 = classOf(offsetof<Path>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))

function addressOf(path: Path): usize {
  return changetype<usize>(path) + offsetof<Path>('address0')
}

/** The path to an address, shared by all who join it; 0 when memory is scarce. */
export function joinPath(address: usize, now: Ticks): usize {
  const hash = hashAddress(address, 0)
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    if (!sameAddress(addressOf(changetype<Path>(at)), address)) continue
    changetype<Path>(at).users++
    return at
  }
  const at = alloc(PATH_CLASS)
  if (!at) return 0
  memory.fill(at, 0, (<usize>1) << PATH_CLASS)
  if (!link(chains, at, hash)) {
    free(at, PATH_CLASS)
    return 0
  }
  const path = changetype<Path>(at)
  copyAddress(addressOf(path), address)
  path.users = 1
  path.cut = 1
  path.floor = path.longNow = path.longBefore = UNKNOWN
  path.floorAt = path.longAt = now
  return at
}

export function leavePath(at: usize): void {
  if (--changetype<Path>(at).users) return
  unlink(chains, at)
  free(at, PATH_CLASS)
}

/** Takes in an RTT sample; ends a probe that is over. */
export function notePathRtt(path: Path, rtt: Ticks, now: Ticks): void {
  if (now - path.longAt >= LONG_HALF_TICKS) {
    path.longBefore = path.longNow
    path.longNow = UNKNOWN
    path.longAt = now
  }
  path.longNow = min(path.longNow, rtt)
  if (path.probing) {
    path.probeLeast = min(path.probeLeast, rtt)
    if (<i32>(now - path.probeUntil) >= 0) {
      path.probing = 0
      if (path.probeLeast > path.floor + path.floor / 4) path.raised++
      path.floor = path.probeLeast
      path.floorAt = now
    }
  }
  if (rtt <= path.floor + path.floor / 50) {
    path.floor = min(path.floor, rtt)
    path.floorAt = now
  } else if (!path.probing && now - path.floorAt >= FLOOR_AGE_TICKS) {
    probeFloor(path, rtt, now)
  }
}

/** Starts looking for the floor anew: the RTT stays up whatever the flows do. */
export function probeFloor(path: Path, rtt: Ticks, now: Ticks): void {
  if (path.probing) return
  path.probing = 1
  path.probeLeast = rtt
  path.probeUntil = now + rtt + max(path.floor, MIN_FLOOR_HOLD_TICKS)
}

/** The least RTT of the last half to one minute. */
export function longFloor(path: Path): Ticks {
  return min(path.longNow, path.longBefore)
}

/** A datagram with `bytes` of plaintext arrived at the peer. */
export function notePassed(path: Path, bytes: u32, now: Ticks): void {
  if (bytes < path.proven && now - path.provenAt < PROVEN_TICKS) return
  path.proven = bytes
  path.provenAt = now
}

/**
 * The next smaller size to try when datagrams of `bytes` vanish; 0 if some of that size arrived lately, or none smaller
 * is left.
 */
export function smallerThan(path: Path, bytes: u32, now: Ticks): u32 {
  if (path.proven >= bytes && now - path.provenAt < PROVEN_TICKS) return 0
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
