/** Copies of datagrams and TCP bytes: many, small, and short-lived, so that they share allocations. */

const POOL_BYTES = 1 << 20

// no Buffer: its slice() does not copy
let pool = new Uint8Array(0)
let used = 0

/** @returns a copy of the first `length` bytes */
export function copyOf(bytes: Uint8Array, length = bytes.length): Uint8Array {
  if (used + length > pool.length) {
    pool = new Uint8Array(Math.max(POOL_BYTES, length))
    used = 0
  }
  const copy = pool.subarray(used, used + length)
  used += length
  copy.set(bytes.subarray(0, length))
  return copy
}
