/*
 * What the conversations with one peer know together: the RTT floor, the probe that refreshes it, and the sum of their rates.
 *
 * A late flow would take the standing queue of the others for the floor, and nothing would ever drain; flows that share the floor share the link.
 */
import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, hashAddress, sameAddress } from '../packet/address'

/** A floor that nothing came near for so long is probed for. */
const FLOOR_AGE_TICKS: u32 = 10 * TICKS_PER_SECOND
const MIN_FLOOR_HOLD_TICKS: u32 = 50 * TICKS_PER_MS
/** Halves of the long memory of the floor. */
const LONG_HALF_TICKS: u32 = 30 * TICKS_PER_SECOND
const BUCKETS: u32 = 256
export const UNKNOWN: u32 = 0xffffffff

@unmanaged
export class Path {
  address0: u64
  address1: u64
  address2: u64
  next: usize
  users: u32
  // RTT floor in ticks; when a sample last came near it
  floor: u32
  floorAt: u32
  // probing for the floor: until when, and the least seen
  probeUntil: u32
  probing: u32
  probeLeast: u32
  // how often a probe found a clearly higher floor
  raised: u32
  // least RTT of this half minute and the one before
  longAt: u32
  longNow: u32
  longBefore: u32
  // rates of the flows that have data
  flows: u32
  rates: f64
}

const buckets: usize = memory.data(256 * 4)

function bucketOf(address: usize): usize {
  return buckets + ((<usize>(hashAddress(address, 0) & (BUCKETS - 1))) << 2)
}

/** The path to an address, shared by all who join it; 0 when memory is scarce. */
export function joinPath(address: usize, now: u32): usize {
  const bucket = bucketOf(address)
  for (let at = load<usize>(bucket); at; at = changetype<Path>(at).next) {
    if (!sameAddress(at, address)) continue
    changetype<Path>(at).users++
    return at
  }
  const cls = classOf(offsetof<Path>())
  const at = alloc(cls)
  if (!at) return 0
  memory.fill(at, 0, (<usize>1) << cls)
  const path = changetype<Path>(at)
  copyAddress(at, address)
  path.users = 1
  path.floor = path.longNow = path.longBefore = UNKNOWN
  path.floorAt = path.longAt = now
  path.next = load<usize>(bucket)
  store<usize>(bucket, at)
  return at
}

export function leavePath(at: usize): void {
  const path = changetype<Path>(at)
  if (--path.users) return
  const bucket = bucketOf(at)
  if (load<usize>(bucket) == at) {
    store<usize>(bucket, path.next)
  } else {
    let before = load<usize>(bucket)
    while (changetype<Path>(before).next != at) before = changetype<Path>(before).next
    changetype<Path>(before).next = path.next
  }
  free(at, classOf(offsetof<Path>()))
}

/** Takes in an RTT sample; ends a probe that is over. */
export function notePathRtt(path: Path, rtt: u32, now: u32): void {
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
export function probeFloor(path: Path, rtt: u32, now: u32): void {
  if (path.probing) return
  path.probing = 1
  path.probeLeast = rtt
  path.probeUntil = now + rtt + max(path.floor, MIN_FLOOR_HOLD_TICKS)
}

/** The least RTT of the last half to one minute. */
export function longFloor(path: Path): u32 {
  return min(path.longNow, path.longBefore)
}
