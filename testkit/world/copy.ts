/** Copies of datagrams and TCP bytes: many, small, and short-lived, so that they share allocations. */
import { Buffer } from 'node:buffer'

const POOL_BYTES = 1 << 20

let pool = Buffer.alloc(0)
let used = 0

/** @returns a copy of the first `length` bytes */
export function copyOf(bytes: Uint8Array, length = bytes.length): Uint8Array {
  if (used + length > pool.length) {
    pool = Buffer.allocUnsafeSlow(Math.max(POOL_BYTES, length))
    used = 0
  }
  const copy = pool.subarray(used, used + length)
  used += length
  copy.set(bytes.subarray(0, length))
  return copy
}
