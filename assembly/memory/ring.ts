/*
 * Rings: arrays of fixed-size entries indexed by `number & mask`, where numbers are sequence numbers of segments or
 * positions in a list. A ring holds a window of consecutive numbers and is doubled when the window outgrows it. Each
 * kind of ring has a maximum capacity, defined where it is grown; none exceeds a block.
 */
import { alloc, allocUrgent, classOf, free, MAX_CLASS } from './slab'

/**
 * Allocates a ring of `capacity` (a power of two) zeroed entries of `1 << shift` bytes.
 * @param urgent may use reserved memory, see slab.ts
 * @returns 0 when memory is exhausted, or if no block is large enough
 */
export function newRing(capacity: u32, shift: u32, urgent: bool): usize {
  if (capacity == 0 || capacity > (1 << MAX_CLASS) >> shift) return 0
  const cls = classOf(capacity << shift)
  const ring = urgent ? allocUrgent(cls) : alloc(cls)
  if (ring) memory.fill(ring, 0, (<usize>1) << cls)
  return ring
}

/** Frees a ring of `mask + 1` entries of `1 << shift` bytes; `ring` may be 0. */
export function freeRing(ring: usize, mask: u32, shift: u32): void {
  if (ring) free(ring, classOf((mask + 1) << shift))
}

/**
 * Replaces a ring by one of `capacity` entries with the numbers from `first` up to (not including) `end`, and frees the
 * old one.
 * @param ring 0 to allocate a first ring
 * @returns 0 when memory is exhausted; then nothing is changed
 */
export function growRing(ring: usize, mask: u32, shift: u32, first: u32, end: u32, capacity: u32, urgent: bool): usize {
  const larger = newRing(capacity, shift, urgent)
  if (!larger || !ring) return larger
  const size = (<usize>1) << shift
  for (let n = first; n != end; n++) {
    memory.copy(larger + ((<usize>(n & (capacity - 1))) << shift), ring + ((<usize>(n & mask)) << shift), size)
  }
  freeRing(ring, mask, shift)
  return larger
}
