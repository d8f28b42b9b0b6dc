/*
 * The replay filter (protocol.md 3.6): remembers at least the last `capacity` nonces of authentic datagrams, at most
 * twice as many.
 *
 * Two generations of an open-addressing set of 32-bit fingerprints, filled to one half. A nonce is known if either
 * generation holds it; a full generation becomes the old one and the other is cleared. Slot and fingerprint take 21 +
 * 32 independent bits of the keyed hash of the nonce (nonce.ts) at the server's capacity of 2^20, so a fresh nonce is
 * taken for a replay about once in 2^31, and nobody who lacks the endpoint's secret can aim at collisions.
 */

import { elapsed } from '../clock'
import { allocUrgent, classOf, excludeFromUse, free, MAX_CLASS, usedBytes } from '../memory/slab'
import { ElapsedTicks } from '../units'

@unmanaged
export class ReplayFilter {
  capacity: u32
  mask: u32
  current: usize
  other: usize
  filled: u32
  // since when everything is remembered, and since when the current generation is filled
  since: ElapsedTicks
  currentSince: ElapsedTicks
}

const filter: usize = memory.data(48, 8)
const listenFilter: usize = memory.data(48, 8)
/** 256 KiB. At a LISTEN every 25 s from each of 100 services: more than an hour. */
const LISTEN_NONCES: u32 = 1 << 14

/** The filter of all datagrams. */
export function datagramFilter(): ReplayFilter {
  return changetype<ReplayFilter>(filter)
}

/** True for a LISTEN that was seen before, by the keyed hash of its nonce. The first one makes the filter. */
export function isReplayedListen(hash: u64): bool {
  const f = changetype<ReplayFilter>(listenFilter)
  if (f.capacity == 0) {
    const before = usedBytes()
    if (!openReplay(f, LISTEN_NONCES)) return false
    // of a bounded size and made once: it is no use of memory that a session would have
    excludeFromUse(usedBytes() - before)
  }
  return isReplay(f, hash)
}

/**
 * Makes an empty filter for at least `nonces` nonces (up to 2^20 - 1 rounded to slots of a power of two); 0 = none.
 * False when memory is short.
 */
export function openReplay(f: ReplayFilter, nonces: u32): bool {
  if (nonces == 0) return true
  const cls = classOf(nonces * 2 * 4)
  f.current = allocSet(cls)
  f.other = f.current ? allocSet(cls) : 0
  if (!f.other) {
    if (f.current && cls <= MAX_CLASS) free(f.current, cls)
    return false
  }
  f.capacity = nonces
  f.mask = (1 << (cls - 2)) - 1
  f.since = f.currentSince = elapsed()
  return true
}

/** A set of `1 << cls` zeroed bytes: neighbouring 4 MiB blocks come from fresh memory, which lies in one piece. */
function allocSet(cls: u32): usize {
  if (cls <= MAX_CLASS) {
    const set = allocUrgent(cls)
    if (set) memory.fill(set, 0, (<usize>1) << cls)
    return set
  }
  const first = allocUrgent(MAX_CLASS)
  let end = first + (1 << MAX_CLASS)
  for (let more = (1 << (cls - MAX_CLASS)) - 1; more > 0; more--) {
    const next = allocUrgent(MAX_CLASS)
    if (next != end) return 0
    end += 1 << MAX_CLASS
  }
  return first
}

/** Since when every datagram is remembered, in ticks since the start; u64 maximum without a filter. */
export function rememberedSince(f: ReplayFilter): ElapsedTicks {
  return f.capacity != 0 ? f.since : <u64>i64.MAX_VALUE
}

/**
 * To be called for all hashes of a batch before isReplay: brings their slots into the cache. Each of the two loads
 * misses on a busy server, and misses of different nonces overlap here, while in isReplay each waits for the one before.
 */
export function prepareReplay(f: ReplayFilter, hash: u64): void {
  if (f.capacity == 0) return
  const at = (<usize>(slotOf(hash) & f.mask)) << 2
  // a load may trap, so compilers keep it though nothing uses the result
  load<u32>(f.current + at)
  load<u32>(f.other + at)
}

function slotOf(hash: u64): u32 {
  return <u32>(hash >> 32)
}

/** Checks and remembers a nonce by its keyed hash. True if it was seen before. */
export function isReplay(f: ReplayFilter, hash: u64): bool {
  if (f.capacity == 0) return false
  const slot = slotOf(hash)
  const fingerprint = max<u32>(<u32>hash, 1)
  // a replay is not inserted: else an eavesdropper could push genuine nonces out of the filter with replays
  return contains(f.other, f.mask, slot, fingerprint) || insert(f, slot, fingerprint)
}

function contains(set: usize, mask: u32, slot: u32, fingerprint: u32): bool {
  let i = slot & mask
  while (true) {
    const found = load<u32>(set + ((<usize>i) << 2))
    if (found == fingerprint) return true
    if (found == 0) return false
    i = (i + 1) & mask
  }
}

/** True if the current generation had it already. */
function insert(f: ReplayFilter, slot: u32, fingerprint: u32): bool {
  const mask = f.mask
  for (let i = slot & mask; true; i = (i + 1) & mask) {
    const at = f.current + ((<usize>i) << 2)
    const found = load<u32>(at)
    if (found == fingerprint) return true
    if (found == 0) {
      store<u32>(at, fingerprint)
      break
    }
  }
  if (++f.filled == f.capacity) {
    const full = f.current
    f.current = f.other
    f.other = full
    memory.fill(f.current, 0, (<usize>(mask + 1)) << 2)
    f.filled = 0
    f.since = f.currentSince
    f.currentSince = elapsed()
  }
  return false
}
