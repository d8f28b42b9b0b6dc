/*
 * The replay filter (protocol.md 3.6): remembers at least the last `capacity` nonces of authentic datagrams, at most
 * twice as many.
 *
 * Two generations of an open-addressing set of 32-bit fingerprints, at most half full. A nonce is known if either
 * generation contains it; a full generation becomes the old one and the other is cleared. Slot and fingerprint take 21
 * + 32 independent bits of the keyed hash of the nonce (nonce.ts) at the server's capacity of 2^20, so a fresh nonce is
 * taken for a replay with probability 2^-31, and collisions cannot be constructed without the endpoint's secret.
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
  // since when all nonces are remembered; start of the current generation
  since: ElapsedTicks
  currentSince: ElapsedTicks
}

const filter: usize = memory.data(48, 8)
const listenFilter: usize = memory.data(48, 8)
/** 256 KiB. With a LISTEN every 25 s from each of 100 services: more than an hour. */
const LISTEN_NONCES: u32 = 1 << 14

/** @returns the filter of all datagrams */
export function datagramFilter(): ReplayFilter {
  return changetype<ReplayFilter>(filter)
}

/**
 * Checks and remembers a LISTEN by the keyed hash of its nonce. The first call allocates the filter.
 * @returns true for a replay
 */
export function isReplayedListen(hash: u64): bool {
  const f = changetype<ReplayFilter>(listenFilter)
  if (f.capacity == 0) {
    const before = usedBytes()
    if (!openReplay(f, LISTEN_NONCES)) return false
    // bounded and allocated once: it does not count as use, which would take memory from sessions
    excludeFromUse(usedBytes() - before)
  }
  return isReplay(f, hash)
}

/**
 * Creates an empty filter for at least `nonces` nonces (up to 2^20; the number of slots is a power of two); 0 = none.
 * @returns false when memory is scarce
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

/**
 * Allocates a set of `1 << cls` zeroed bytes. Several 4 MiB blocks are contiguous because they are taken from fresh
 * memory.
 */
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

/** @returns since when all datagrams are remembered, in ticks since the start; the maximum of i64 without a filter */
export function rememberedSince(f: ReplayFilter): ElapsedTicks {
  return f.capacity != 0 ? f.since : <u64>i64.MAX_VALUE
}

/**
 * To be called for all hashes of a batch before `isReplay`: brings their slots into the cache. Each of the two loads
 * misses on a busy server; here misses of different nonces overlap, while in `isReplay` each waits for the previous
 * one.
 */
export function prepareReplay(f: ReplayFilter, hash: u64): void {
  if (f.capacity == 0) return
  const at = (<usize>(slotOf(hash) & f.mask)) << 2
  // a load may trap, so compilers do not remove it although its result is unused
  load<u32>(f.current + at)
  load<u32>(f.other + at)
}

function slotOf(hash: u64): u32 {
  return <u32>(hash >> 32)
}

/**
 * Checks and remembers a nonce by its keyed hash.
 * @returns true for a replay
 */
export function isReplay(f: ReplayFilter, hash: u64): bool {
  if (f.capacity == 0) return false
  const slot = slotOf(hash)
  const fingerprint = max<u32>(<u32>hash, 1)
  // a replay is not inserted: otherwise an attacker could displace genuine nonces by replays
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

/** @returns true if the current generation contained it already */
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
