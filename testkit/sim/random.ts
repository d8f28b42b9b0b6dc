/**
 * Seeded random numbers for simulations: the same seed gives the same run on every runtime.
 */

/** A small generator (splitmix32). Not for cryptography. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0
  }

  /** The next u32. */
  u32(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    let x = this.#state
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
    return (x ^ (x >>> 15)) >>> 0
  }

  /** A number in [0, 1). */
  unit(): number {
    return this.u32() / 0x1_0000_0000
  }

  /** An integer in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.unit() * limit)
  }

  /** An integer in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return probability > 0 && this.unit() < probability
  }

  /** One of the values. */
  pick<T>(...values: readonly [T, ...T[]]): T {
    return values[this.below(values.length)] ?? values[0]
  }

  /** Random bytes. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    const result = new Uint8Array(length)
    this.fill(result)
    return result
  }

  /** Fills an array with random bytes. */
  fill(target: Uint8Array): void {
    let i = 0
    for (; i + 4 <= target.length; i += 4) {
      const x = this.u32()
      target[i] = x
      target[i + 1] = x >>> 8
      target[i + 2] = x >>> 16
      target[i + 3] = x >>> 24
    }
    for (; i < target.length; i++) target[i] = this.u32()
  }
}

/** Byte `index` of the endless test stream `seed`. */
export function patternByte(index: number, seed: number): number {
  return (Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b)) >>> 24
}
