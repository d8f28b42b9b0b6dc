/**
 * What inputs reach: control-flow edges, each with how often it was taken as a power of two (as AFL does it). An input is
 * new if it takes an edge that none took before, or takes one a different number of times.
 */

/** The bit of a count: 1, 2, 3, 4..7, 8..15, 16..31, 32..127, 128... */
const BUCKETS = Uint8Array.from({ length: 256 }, (_, count) => {
  if (count < 4) return count === 0 ? 0 : 1 << (count - 1)
  return count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : count < 128 ? 64 : 128
})

type Counters = Uint8Array | Uint8ClampedArray

export class Coverage {
  /** Edges taken by any input. */
  edges = 0
  readonly #seen: Uint8Array

  constructor(slots: number) {
    this.#seen = new Uint8Array(slots)
  }

  /** Adds the counters of an input. @returns whether it is new */
  add(counters: Counters): boolean {
    const words = new Uint32Array(counters.buffer, counters.byteOffset, counters.length >>> 2)
    let isNew = false
    for (let word = 0; word < words.length; word++) {
      if (words[word] === 0) continue
      for (let edge = word << 2; edge < (word << 2) + 4; edge++) {
        const bit = BUCKETS[counters[edge] ?? 0] ?? 0
        const seen = this.#seen[edge] ?? 0
        if ((seen & bit) === bit) continue
        if (seen === 0) this.edges++
        this.#seen[edge] = seen | bit
        isNew = true
      }
    }
    return isNew
  }
}

const HOST_SLOTS = 8192

/** The counters that instrument.mjs inserts into the host. */
export function hostCounters(): Counters {
  const scope = globalThis as { __edges?: Uint8ClampedArray }
  scope.__edges ??= new Uint8ClampedArray(HOST_SLOTS)
  return scope.__edges
}
