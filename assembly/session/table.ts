/*
 * The session table: finds a session by (peer address, conv), by conv alone, or by handle. Open addressing by a hash of
 * the conv, at most half full, linear probing, deletion by backward shift. Clients count convs from a random number, so
 * the same conv from two addresses is rare, unless a peer has moved. A handle is generation << 16 | slot, so a stale one
 * is detected.
 */

import { E_MEMORY, E_SESSIONS } from '../abi'
import { growRing, newRing } from '../memory/ring'
import { alloc, classOf, free } from '../memory/slab'
import { copyAddress, hashConv, sameAddress } from '../packet/address'
import { Conv } from '../units'
import { addressOf, SESSION_BYTES, Session } from './session'
import { ensureTimers } from './timer'

const POINTER_SHIFT: u32 = 2
/** Slot: session pointer (0 = free), generation, and number of the next free slot + 1. */
const SLOT_SHIFT: u32 = 4
const SLOT_GENERATION: usize = 4
const SLOT_NEXT: usize = 8
const INITIAL_CAPACITY: u32 = 64
const MAX_GENERATION: u32 = 0x7fff

let buckets: usize = 0
let bucketMask: u32 = 0
let slots: usize = 0
let slotCapacity: u32 = 0
let slotCount: u32 = 0
/** Free slots, first in first out: a handle is reused as late as possible. */
let firstFree: u32 = 0
let lastFree: u32 = 0
let live: u32 = 0
let maxSessions: u32 = 65535
let lastFound: usize = 0

export function setMaxSessions(n: u32): void {
  maxSessions = n
}

/** @returns number of slots that may hold a session */
export function slotsInUse(): u32 {
  return slotCount
}

/** @returns the session of a slot, null if it is free */
export function sessionAt(slot: u32): Session | null {
  if (slot >= slotCount) return null
  return changetype<Session | null>(load<usize>(slots + ((<usize>slot) << SLOT_SHIFT)))
}

/** @returns the session of a handle, null if it is gone */
export function sessionOf(handle: u32): Session | null {
  const s = sessionAt(handle & 0xffff)
  return s && s.handle == handle ? s : null
}

/** @returns the session of a peer address and conv, null if there is none */
export function find(address: usize, conv: Conv): Session | null {
  if (!buckets) return null
  // datagrams of one session come in runs: these skip the hash
  if (lastFound) {
    const s = changetype<Session>(lastFound)
    if (s.conv == conv && sameAddress(addressOf(s), address)) return s
  }
  let s = firstOfConv(conv)
  while (s && !sameAddress(addressOf(s), address)) s = nextOfConv(s)
  if (s) lastFound = changetype<usize>(s)
  return s
}

/** @returns the first session of a conv, whatever its address, null if there is none */
export function firstOfConv(conv: Conv): Session | null {
  return buckets ? ofConvFrom(homeOf(conv), conv) : null
}

/** @returns the session of the same conv that follows `s`, null if there is none */
export function nextOfConv(s: Session): Session | null {
  let i = homeOf(s.conv)
  while (load<usize>(buckets + ((<usize>i) << POINTER_SHIFT)) != changetype<usize>(s)) i = (i + 1) & bucketMask
  return ofConvFrom((i + 1) & bucketMask, s.conv)
}

/** @returns the first bucket of a conv */
function homeOf(conv: Conv): u32 {
  return hashConv(conv) & bucketMask
}

function ofConvFrom(bucket: u32, conv: Conv): Session | null {
  let i = bucket
  while (true) {
    const at = load<usize>(buckets + ((<usize>i) << POINTER_SHIFT))
    if (!at) return null
    const s = changetype<Session>(at)
    if (s.conv == conv) return s
    i = (i + 1) & bucketMask
  }
}

/**
 * Creates a zeroed session with handle, conv and address.
 * @returns its handle, which is positive; otherwise E_SESSIONS or E_MEMORY
 */
export function insert(address: usize, conv: Conv): i32 {
  if (live >= maxSessions) return E_SESSIONS
  if (!ensureBuckets() || !ensureSlot() || !ensureTimers(live + 1)) return E_MEMORY
  const cls = classOf(SESSION_BYTES)
  const at = alloc(cls)
  if (!at) return E_MEMORY
  memory.fill(at, 0, (<usize>1) << cls)
  const s = changetype<Session>(at)
  const slot = firstFree - 1
  const entry = slots + ((<usize>slot) << SLOT_SHIFT)
  firstFree = load<u32>(entry, SLOT_NEXT)
  if (firstFree == 0) lastFree = 0
  const generation = (load<u32>(entry, SLOT_GENERATION) % MAX_GENERATION) + 1
  store<usize>(entry, at)
  store<u32>(entry, generation, SLOT_GENERATION)
  s.handle = (generation << 16) | slot
  s.conv = conv
  copyAddress(addressOf(s), address)
  place(s)
  live++
  return s.handle
}

/** Moves a session to another address. */
export function rekey(s: Session, address: usize): void {
  copyAddress(addressOf(s), address)
}

/** @returns true if a new session needs the place of another */
export function isTableFull(): bool {
  return live >= maxSessions
}

/** Removes a session and frees its record. */
export function remove(s: Session): void {
  if (lastFound == changetype<usize>(s)) lastFound = 0
  displace(s)
  const slot = s.handle & 0xffff
  store<usize>(slots + ((<usize>slot) << SLOT_SHIFT), 0)
  appendFree(slot)
  live--
  free(changetype<usize>(s), classOf(SESSION_BYTES))
}

/** Removes a session from its bucket and shifts the entries behind it back. */
function displace(s: Session): void {
  let hole = homeOf(s.conv)
  while (load<usize>(buckets + ((<usize>hole) << POINTER_SHIFT)) != changetype<usize>(s)) hole = (hole + 1) & bucketMask
  for (let i = (hole + 1) & bucketMask; true; i = (i + 1) & bucketMask) {
    const at = load<usize>(buckets + ((<usize>i) << POINTER_SHIFT))
    if (!at) break
    const home = homeOf(changetype<Session>(at).conv)
    // an entry may move back into the hole unless its home bucket is between the hole and itself
    if (((i - home) & bucketMask) >= ((i - hole) & bucketMask)) {
      store<usize>(buckets + ((<usize>hole) << POINTER_SHIFT), at)
      hole = i
    }
  }
  store<usize>(buckets + ((<usize>hole) << POINTER_SHIFT), 0)
}

function appendFree(slot: u32): void {
  store<u32>(slots + ((<usize>slot) << SLOT_SHIFT), 0, SLOT_NEXT)
  if (lastFree) store<u32>(slots + ((<usize>(lastFree - 1)) << SLOT_SHIFT), slot + 1, SLOT_NEXT)
  else firstFree = slot + 1
  lastFree = slot + 1
}

function place(s: Session): void {
  let i = homeOf(s.conv)
  while (load<usize>(buckets + ((<usize>i) << POINTER_SHIFT))) i = (i + 1) & bucketMask
  store<usize>(buckets + ((<usize>i) << POINTER_SHIFT), changetype<usize>(s))
}

function ensureBuckets(): bool {
  const capacity = buckets ? bucketMask + 1 : 0
  if (live * 2 < capacity) return true
  const larger = capacity ? capacity * 2 : INITIAL_CAPACITY
  const fresh = newRing(larger, POINTER_SHIFT, false)
  if (!fresh) return false
  const old = buckets
  buckets = fresh
  bucketMask = larger - 1
  for (let i: u32 = 0; i < capacity; i++) {
    const at = load<usize>(old + ((<usize>i) << POINTER_SHIFT))
    if (at) place(changetype<Session>(at))
  }
  if (old) free(old, classOf(capacity << POINTER_SHIFT))
  return true
}

function ensureSlot(): bool {
  if (firstFree) return true
  if (slotCount == slotCapacity) {
    const capacity = slotCapacity ? slotCapacity * 2 : INITIAL_CAPACITY
    const larger = growRing(slots, slotCapacity - 1, SLOT_SHIFT, 0, slotCount, capacity, false)
    if (!larger) return false
    slots = larger
    slotCapacity = capacity
  }
  appendFree(slotCount++)
  return true
}
