/*
 * Growth of rings: arrays of fixed-size entries indexed by `number & mask`, where the numbers are sequence numbers (of
 * segments or of list positions). A ring holds a window of consecutive numbers; it is re-made twice as large when the
 * window outgrows it. Each kind of ring has a largest capacity, named where it is grown; none exceeds a block.
 */
import { alloc, allocUrgent, classOf, free, MAX_CLASS } from './slab'

/**
 * Ring of `capacity` (a power of two) zeroed entries of `1 << shift` bytes; 0 when memory is exhausted, or no block is
 * so large. `urgent`: it may take reserved memory, see slab.ts.
 */
export function newRing(capacity: u32, shift: u32, urgent: bool): usize {
  if (capacity == 0 || capacity > (1 << MAX_CLASS) >> shift) return 0
  const cls = classOf(capacity << shift)
  const ring = urgent ? allocUrgent(cls) : alloc(cls)
  if (ring) memory.fill(ring, 0, (<usize>1) << cls)
  return ring
}

export function freeRing(ring: usize, mask: u32, shift: u32): void {
  if (ring) free(ring, classOf((mask + 1) << shift))
}

/**
 * A ring of `capacity` entries holding what `ring` holds of the numbers from `first` up to (not including) `end`; the
 * old one is freed. 0, and nothing changed, when memory is exhausted. `ring` may be 0: then a new one is made.
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
