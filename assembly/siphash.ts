/*
 * SipHash-2-4 (Aumasson, Bernstein 2012): the only keyed function of the engine. Under the endpoint's secret it tags our
 * nonces (packet/nonce.ts) and hashes the keys of every hash table, so that collisions cannot be constructed without the
 * secret; under one derived from a key it tags nonces for that key (packet/keys.ts).
 *
 * It is the exception to the rule that the engine implements no cryptographic primitives: it runs for every datagram,
 * and a call to the host would cost more than the function. Tests compare it with libsodium's crypto_shorthash.
 */

let k0: u64 = 0
let k1: u64 = 0

/** Sets the key: 16 bytes at `key`. To be called once, before anything is hashed. */
export function setHashKey(key: usize): void {
  k0 = load<u64>(key)
  k1 = load<u64>(key, 8)
}

/**
 * Hashes a byte string: `words` little-endian words of 8 bytes at `at`, then the 0 to 7 bytes of `tail`.
 * @param tail the last bytes, the first one lowest, and in the top byte the length of the whole string (mod 256)
 */
export function sipHash(at: usize, words: u32, tail: u64): u64 {
  return sipHashUnder(k0, k1, at, words, tail)
}

/**
 * Hashes likewise under another key.
 * @param low first half of the key
 * @param high second half
 */
export function sipHashUnder(low: u64, high: u64, at: usize, words: u32, tail: u64): u64 {
  let v0 = low ^ 0x736f6d6570736575
  let v1 = high ^ 0x646f72616e646f6d
  let v2 = low ^ 0x6c7967656e657261
  let v3 = high ^ 0x7465646279746573
  // two rounds per block; the four final rounds are two more blocks of zeros
  for (let i: u32 = 0; i < words + 3; i++) {
    let m: u64 = 0
    if (i < words) m = load<u64>(at + ((<usize>i) << 3))
    else if (i == words) m = tail
    else if (i == words + 1) v2 ^= 0xff
    v3 ^= m
    v0 += v1
    v2 += v3
    v1 = rotl<u64>(v1, 13) ^ v0
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 = rotl<u64>(v0, 32)
    v2 += v1
    v0 += v3
    v1 = rotl<u64>(v1, 17) ^ v2
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 = rotl<u64>(v2, 32)
    v0 += v1
    v2 += v3
    v1 = rotl<u64>(v1, 13) ^ v0
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 = rotl<u64>(v0, 32)
    v2 += v1
    v0 += v3
    v1 = rotl<u64>(v1, 17) ^ v2
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 = rotl<u64>(v2, 32)
    v0 ^= m
  }
  return v0 ^ v1 ^ v2 ^ v3
}

/** @returns hash of `bytes` bytes at `at` */
export function hashBytes(at: usize, bytes: u32): u64 {
  const words = bytes >> 3
  let tail = (<u64>bytes) << 56
  for (let i = words << 3; i < bytes; i++) tail |= (<u64>load<u8>(at + i)) << (<u64>((i & 7) << 3))
  return sipHash(at, words, tail)
}
