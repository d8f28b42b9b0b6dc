/**
 * Whether bytes could be the start of a datagram of the protocol: chooses, among several keys, the one that a datagram
 * from an unknown address may be sealed under, without the cost of an authentication for each key.
 */

import { START_BYTES } from './aead.ts'

/** Commands of segments, PUSH to WINS (protocol.md 5.1). */
const FIRST_CMD = 81
const LAST_CMD = 84
/** The last kind of messages of session 0, PUNCH, and the shortest length of all (protocol.md 7.1), bytes. */
const LAST_WHAT = 5
const MIN_CONTROL_BYTES = 10

/**
 * Whether a plaintext of `length` bytes that begins with `start`, its first `min(START_BYTES, length)` bytes, can have
 * an effect at its receiver: its first segment is one that the engine does not drop (assembly/kcp/input.ts), or it is a
 * message of session 0. Everything that peers send is plausible. Further bytes of `start` are ignored.
 *
 * Random bytes are with a probability of 4/256 * (length - 23) / 2^32, below 6 in 10^9 at 1500 bytes. Fields that
 * receivers ignore (frg) or that may have any value are therefore not examined.
 */
export function isPlausible(start: Uint8Array, length: number): boolean {
  if (length < MIN_CONTROL_BYTES) return false
  if (readU32(start, 0) === 0) return start[4] === 0 && (start[5] ?? 0) <= LAST_WHAT
  const cmd = start[4] ?? 0
  // false below START_BYTES
  return cmd >= FIRST_CMD && cmd <= LAST_CMD && readU32(start, 20) <= length - START_BYTES
}

/** By the byte: a DataView would be a further object for each array. */
function readU32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  return high * 0x10000 + (((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
}
