/*
 * Nonces: generation, and detection of our own when they are reflected (docs/validation.md, "Own nonces").
 *
 *   24 bytes   | 16 random | tag: low half of SipHash of those | key tag (keys.ts), or 4 random |
 *   12 bytes   a little-endian counter: base + slot * 2^48 + n, n = 1, 2, ...
 *
 * A nonce with a valid tag is ours; a foreign nonce has one with probability 2^-32. A counter is ours if it is within
 * 2^64 of one of our bases. Base and secret belong to the endpoint: its workers and its later engine instances get the
 * same ones, with a slot each.
 */
import { NONCE_COUNTER, NONCE_RANDOM, SECRET_BASE, SECRET_BYTES, SECRET_SLOT } from '../abi'
import { setHashKey, sipHash } from '../siphash'
import { hasEntropy, takeEntropy } from './entropy'
import { writeKeyTag } from './keys'

const HASH_KEY_BYTES: u32 = 16
const COUNTER_BYTES: u32 = 12
/** A counter is a u64 and, at this offset, a u32. */
const COUNTER_HIGH: usize = 8
/** Nonces of one slot: 2^48. */
const SLOT_SHIFT: u64 = 48
/** Bytes of a random nonce that the tag covers, and offset of the tag. */
const TAGGED_BYTES: u32 = 16

/** Written by the host before the first `configure`; if all zeros, drawn here. */
export const secret: usize = memory.data(SECRET_BYTES, 8)

/** Bases in use since the start; the oldest is replaced. */
const MAX_BASES: u32 = 8
const BASE_BYTES: u32 = 16
const bases: usize = memory.data(8 * 16, 8)
let baseCount: u32 = 0

const counter: usize = memory.data(16, 8)

let length: u32 = 0
let strategy: u32 = 0

/** Entropy that `openNonces` may use. */
export const NONCE_ENTROPY_BYTES: u32 = HASH_KEY_BYTES + COUNTER_BYTES

/** Takes the secret and starts the counter; what the host left zero is drawn. */
export function openNonces(bytes: u32, nonceStrategy: u32): void {
  length = bytes
  strategy = nonceStrategy
  if ((load<u64>(secret) | load<u64>(secret, 8)) == 0) {
    memory.copy(secret, takeEntropy(HASH_KEY_BYTES), HASH_KEY_BYTES)
    memory.copy(secret + SECRET_BASE, takeEntropy(COUNTER_BYTES), COUNTER_BYTES)
  }
  setHashKey(secret)
  useBase()
}

/** Continues at the base and slot in the secret block. */
function useBase(): void {
  const base = secret + SECRET_BASE
  memory.copy(bases + <usize>((baseCount++ % MAX_BASES) * BASE_BYTES), base, COUNTER_BYTES)
  memory.copy(counter, base, COUNTER_BYTES)
  const low = load<u64>(counter)
  const start = low + ((<u64>load<u16>(secret, SECRET_SLOT)) << SLOT_SHIFT)
  store<u64>(counter, start)
  if (start < low) store<u32>(counter, load<u32>(counter, COUNTER_HIGH) + 1, COUNTER_HIGH)
  // in use: no need to keep it readable
  memory.fill(secret, 0, SECRET_BYTES)
}

/**
 * Continues at the base that the host wrote, otherwise at a random one, because a cloned machine has the same base.
 * Nonces of the previous bases are still detected.
 * @returns false without entropy
 */
export function renewCounter(): bool {
  if (strategy != NONCE_COUNTER) return true
  const base = secret + SECRET_BASE
  if ((load<u64>(base) | <u64>load<u32>(base, COUNTER_HIGH)) == 0) {
    if (!hasEntropy(COUNTER_BYTES)) return false
    memory.copy(base, takeEntropy(COUNTER_BYTES), COUNTER_BYTES)
  }
  useBase()
  return true
}

/** @returns bytes of a nonce; 0 without a method */
export function nonceBytes(): u32 {
  return length
}

/** @returns entropy that the next nonce uses */
export function nonceEntropy(): u32 {
  return strategy == NONCE_RANDOM ? length : 0
}

/**
 * Writes the next nonce at `at`, for a peer whose key has the number `key`. The caller has checked its entropy.
 */
export function writeNonce(at: usize, key: u32): void {
  if (strategy == NONCE_RANDOM) {
    memory.copy(at, takeEntropy(length), length)
    if (length == 24) {
      store<u32>(at, <u32>hashOfNonce(at), TAGGED_BYTES)
      writeKeyTag(at, key)
    }
    return
  }
  // a little-endian number of 12 bytes, incremented before each use (protocol.md 3.4)
  const low = load<u64>(counter) + 1
  store<u64>(counter, low)
  if (low == 0) store<u32>(counter, load<u32>(counter, COUNTER_HIGH) + 1, COUNTER_HIGH)
  memory.copy(at, counter, COUNTER_BYTES)
}

/** @returns keyed hash of a nonce, for `isOwnNonce` and the replay filter */
export function hashOfNonce(at: usize): u64 {
  if (length == 24) return sipHash(at, 2, (<u64>TAGGED_BYTES) << 56)
  return sipHash(at, 1, ((<u64>COUNTER_BYTES) << 56) | <u64>load<u32>(at, COUNTER_HIGH))
}

/**
 * @param hash of `hashOfNonce`
 * @returns true for a nonce that this endpoint generated
 */
export function isOwnNonce(at: usize, hash: u64): bool {
  if (length == 24) return load<u32>(at, TAGGED_BYTES) == <u32>hash
  if (strategy != NONCE_COUNTER) return false
  const low = load<u64>(at)
  const high = load<u32>(at, COUNTER_HIGH)
  const n = min(baseCount, MAX_BASES)
  for (let i: u32 = 0; i < n; i++) {
    const base = bases + <usize>(i * BASE_BYTES)
    const borrow: u32 = low < load<u64>(base) ? 1 : 0
    if (high - load<u32>(base, COUNTER_HIGH) - borrow == 0) return true
  }
  return false
}
