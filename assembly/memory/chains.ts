/*
 * Hash tables of entries in blocks of their own: chains by keyed hash, whose number doubles with the entries. The hash
 * is SipHash under the endpoint's secret, so chains are short even if an attacker chooses the keys (siphash.ts).
 *
 *   entry: 0 next of its chain  4 hash  8 the owner's
 */
import { newRing } from './ring'
import { classOf, excludeFromUse, free } from './slab'

@unmanaged
export class Chains {
  heads: usize
  mask: u32
  count: u32
}

export const CHAINS_BYTES: u32 = offsetof<Chains>()

const HASH: usize = 4
/** Offset of the owner's part of an entry. */
export const ENTRY_BODY: usize = 8

const INITIAL_HEADS: u32 = 64
const MAX_HEADS: u32 = 65536
const POINTER_SHIFT: u32 = 2

function headOf(c: Chains, hash: u32): usize {
  return c.heads + ((<usize>(hash & c.mask)) << POINTER_SHIFT)
}

/** @returns the first entry with this hash, 0 if there is none; `nextWith` continues */
export function firstWith(c: Chains, hash: u32): usize {
  if (!c.heads) return 0
  const at = load<usize>(headOf(c, hash))
  return at && load<u32>(at, HASH) != hash ? nextWith(at, hash) : at
}

/** @returns the next entry of the chain with this hash, 0 if there is none */
export function nextWith(entry: usize, hash: u32): usize {
  let at = load<usize>(entry)
  while (at && load<u32>(at, HASH) != hash) at = load<usize>(at)
  return at
}

/**
 * Adds an entry.
 * @returns false when memory is scarce, which only the first entry can cause
 */
export function link(c: Chains, entry: usize, hash: u32): bool {
  if (!c.heads) {
    c.heads = newRing(INITIAL_HEADS, POINTER_SHIFT, false)
    if (!c.heads) return false
    c.mask = INITIAL_HEADS - 1
    excludeFromUse(INITIAL_HEADS << POINTER_SHIFT)
  } else if (c.count > c.mask) {
    grow(c)
  }
  const head = headOf(c, hash)
  store<usize>(entry, load<usize>(head))
  store<u32>(entry, hash, HASH)
  store<usize>(head, entry)
  c.count++
  return true
}

/** Removes an entry, which must be in the table. */
export function unlink(c: Chains, entry: usize): void {
  let at = headOf(c, load<u32>(entry, HASH))
  while (load<usize>(at) != entry) at = load<usize>(at)
  store<usize>(at, load<usize>(entry))
  c.count--
}

/**
 * Doubles the number of chains. Without memory they stay longer, which is no error. They never shrink, so they are not
 * counted as use.
 */
function grow(c: Chains): void {
  const heads = c.mask + 1
  const larger = heads < MAX_HEADS ? newRing(heads * 2, POINTER_SHIFT, false) : 0
  if (!larger) return
  const old = c.heads
  c.heads = larger
  c.mask = heads * 2 - 1
  for (let i: u32 = 0; i < heads; i++) {
    let entry = load<usize>(old + ((<usize>i) << POINTER_SHIFT))
    while (entry) {
      const next = load<usize>(entry)
      const head = headOf(c, load<u32>(entry, HASH))
      store<usize>(entry, load<usize>(head))
      store<usize>(head, entry)
      entry = next
    }
  }
  free(old, classOf(heads << POINTER_SHIFT))
  excludeFromUse(heads << POINTER_SHIFT)
}
