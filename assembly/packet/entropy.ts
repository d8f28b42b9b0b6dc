/*
 * Random bytes from the host, each used once.
 */
import { ENTROPY_BYTES } from '../abi'
import { ENTROPY_LEFT, set } from '../stats'

export const entropy: usize = memory.data(ENTROPY_BYTES, 8)
let used: u32 = ENTROPY_BYTES

/** Takes `n` random bytes that the host wrote. */
export function fillEntropy(n: u32): void {
  // they are used from the end of the buffer
  used = ENTROPY_BYTES - n
  if (n < ENTROPY_BYTES) memory.copy(entropy + used, entropy, n)
  set(ENTROPY_LEFT, n)
}

/** @returns address of `n` random bytes, used once; the caller has checked that they are available */
export function takeEntropy(n: u32): usize {
  const at = entropy + used
  used += n
  set(ENTROPY_LEFT, ENTROPY_BYTES - used)
  return at
}

/** @returns true if `n` random bytes are left */
export function hasEntropy(n: u32): bool {
  return ENTROPY_BYTES - used >= n
}
