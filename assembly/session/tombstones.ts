/*
 * Records of ended sessions: (address, conv), for `time_wait` (protocol.md 6.8; docs/validation.md). A first flight
 * always opens a session, so a late duplicate would be dialled again; late segments are answered by RESET.
 *
 * They are small and not in the session table, so that many short connections do not exhaust it. They are ordered by
 * the time of their end; a RESET extends the life of one and moves it to the end.
 */

import { TICKS_PER_SECOND } from '../abi'
import { elapsed, NEVER, seconds } from '../clock'
import { sendReset } from '../control/queue'
import { Chains, firstWith, link, nextWith, unlink } from '../memory/chains'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { growRing } from '../memory/ring'
import { alloc, allocUrgent, classOf, excludeFromUse, free } from '../memory/slab'
import { copyAddress, hashAddress, sameAddress } from '../packet/address'
import { SESSIONS_BY_STATE, shift } from '../stats'
import { Conv, ElapsedTicks, Seconds, Ticks } from '../units'
import { TIME_WAIT } from './session'

/** Beyond this number the oldest is replaced, unless it is younger than this; then new sessions are refused. */
const MAX_TOMBSTONES: u32 = 65536
const MIN_LIFE_TICKS: ElapsedTicks = 10 * TICKS_PER_SECOND
/** Capacity of the index: sessions that were open when it was full end as well. */
const MAX_SLOTS: u32 = 1 << 18
const INITIAL_SLOTS: u32 = 64
const POINTER_SHIFT: u32 = 2

@unmanaged
export class Tombstone {
  chained: usize
  hash: u32
  address0: u64
  address1: u64
  address2: u64
  // creation or last answer: time_wait counts from then
  since: ElapsedTicks
  conv: Conv
  slot: u32
  bornSecond: Seconds
  // last answer, in ticks; answers are at least a second apart
  resetAt: Ticks
  older: usize
  younger: usize
}

const CLASS: u32 = classOf(offsetof<Tombstone>())

const chains: Chains = changetype<Chains>(memory.data(12, 8))
let slots: usize = 0
let capacity: u32 = 0
let count: u32 = 0
const list: List = changetype<List>(memory.data(8, 8))
const LINKS: usize = offsetof<Tombstone>('older')
let lifeTicks: ElapsedTicks = 0
/** Expired ones are looked for at most once a second. */
let checkAt: ElapsedTicks = 0

/** Sets the life of a tombstone. */
export function setTimeWait(seconds: Seconds): void {
  lifeTicks = <u64>seconds * TICKS_PER_SECOND
}

export function addressOfTombstone(t: Tombstone): usize {
  return changetype<usize>(t) + offsetof<Tombstone>('address0')
}

/** @returns number of tombstones; `tombstoneAt` takes an index below it */
export function tombstoneCount(): u32 {
  return count
}

export function tombstoneAt(index: u32): Tombstone | null {
  return index < count ? changetype<Tombstone>(load<usize>(slots + ((<usize>index) << POINTER_SHIFT))) : null
}

/** @returns the tombstone of a peer address and conv, null if there is none */
export function findTombstone(address: usize, conv: Conv): Tombstone | null {
  const hash = hashAddress(address, conv)
  for (let at = firstWith(chains, hash); at; at = nextWith(at, hash)) {
    const t = changetype<Tombstone>(at)
    if (t.conv == conv && sameAddress(addressOfTombstone(t), address)) return t
  }
  return null
}

/** @returns true while no session may open, because all tombstones are too young to be replaced */
export function areTombstonesFull(): bool {
  if (count < MAX_TOMBSTONES) return false
  dropOldest()
  return count >= MAX_TOMBSTONES
}

/** Removes the oldest if it is old enough. */
function dropOldest(): void {
  const t = changetype<Tombstone>(list.oldest)
  if (list.oldest && elapsed() - t.since >= MIN_LIFE_TICKS) remove(t)
}

/** Adds a tombstone for a session that ended now. Without memory there is none. */
export function addTombstone(address: usize, conv: Conv): void {
  if (count >= MAX_TOMBSTONES) dropOldest()
  if (!ensureSlot()) return
  let at = alloc(CLASS)
  if (!at) {
    if (list.oldest) remove(changetype<Tombstone>(list.oldest))
    at = allocUrgent(CLASS)
    if (!at) return
  }
  const t = changetype<Tombstone>(at)
  if (!link(chains, at, hashAddress(address, conv))) {
    free(at, CLASS)
    return
  }
  copyAddress(addressOfTombstone(t), address)
  t.conv = conv
  t.slot = count
  t.bornSecond = seconds()
  t.resetAt = <u32>elapsed() - TICKS_PER_SECOND
  t.since = elapsed()
  store<usize>(slots + ((<usize>count) << POINTER_SHIFT), at)
  count++
  appendEntry(list, at, LINKS)
  shift(SESSIONS_BY_STATE + TIME_WAIT - 1, 1)
}

/** The index grows with the tombstones and never shrinks, so it is not counted as use. */
function ensureSlot(): bool {
  if (count < capacity) return true
  const wanted = capacity ? capacity * 2 : INITIAL_SLOTS
  if (wanted > MAX_SLOTS) return false
  const larger = growRing(slots, capacity - 1, POINTER_SHIFT, 0, count, wanted, false)
  if (!larger) return false
  excludeFromUse((wanted - capacity) << POINTER_SHIFT)
  slots = larger
  capacity = wanted
  return true
}

function remove(t: Tombstone): void {
  unlinkEntry(list, changetype<usize>(t), LINKS)
  unlink(chains, changetype<usize>(t))
  count--
  const last = load<usize>(slots + ((<usize>count) << POINTER_SHIFT))
  store<usize>(slots + ((<usize>t.slot) << POINTER_SHIFT), last)
  changetype<Tombstone>(last).slot = t.slot
  shift(SESSIONS_BY_STATE + TIME_WAIT - 1, -1)
  free(changetype<usize>(t), CLASS)
}

/**
 * A datagram with `received` bytes of plaintext arrived for a tombstone: answers RESET, at most once a second, and
 * extends its life.
 */
export function onLateDatagram(t: Tombstone, received: u32): void {
  if (<u32>elapsed() - t.resetAt < TICKS_PER_SECOND) return
  t.resetAt = <u32>elapsed()
  t.since = elapsed()
  unlinkEntry(list, changetype<usize>(t), LINKS)
  appendEntry(list, changetype<usize>(t), LINKS)
  sendReset(t.conv, addressOfTombstone(t), received)
}

/** Removes expired tombstones. */
export function checkTombstones(): void {
  if (elapsed() < checkAt) return
  while (list.oldest && elapsed() - changetype<Tombstone>(list.oldest).since >= lifeTicks)
    remove(changetype<Tombstone>(list.oldest))
  checkAt = elapsed() + TICKS_PER_SECOND
}

/** @returns ticks until `checkTombstones` has something to do */
export function tombstonesDeadline(): Ticks {
  if (!list.oldest) return NEVER
  const at = max(changetype<Tombstone>(list.oldest).since + lifeTicks, checkAt)
  return at > elapsed() ? <u32>min<u64>(at - elapsed(), NEVER - 1) : 0
}
