/** Hashes of states: with 53 bits the probability of a collision among 10^7 states is below 1 %. */

export function hashBytes(bytes: Uint8Array): number {
  let h = 0x811c9dc5
  for (const byte of bytes) h = Math.imul(h ^ byte, 0x01000193)
  return h >>> 0
}

function scramble(value: number): number {
  let h = value
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** A hash of up to 53 bits. */
export function hashWords(words: ArrayLike<number>, seed: number): number {
  let a = scramble((seed >>> 0) ^ 0x9e3779b1)
  let b = scramble(Math.floor(seed / 0x1_0000_0000) ^ 0x7f4a7c15 ^ words.length)
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? 0
    a = Math.imul(a ^ word, 0xcc9e2d51)
    a = (a << 15) | (a >>> 17)
    b = Math.imul(b + word, 0x1b873593) ^ (b >>> 15)
  }
  return (scramble(b) & 0x1f_ffff) * 0x1_0000_0000 + scramble(a ^ b)
}
