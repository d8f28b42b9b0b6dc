/**
 * A cache of views into the engine's memory. Creating a view costs more than copying a datagram and produces garbage,
 * while the engine's blocks recur at the same addresses.
 */

/** log2 of the number of cached views. */
const TABLE_BITS = 12
/** Spreads addresses at regular distances over the table (Knuth, The Art of Computer Programming, 6.4). */
const GOLDEN_RATIO = 0x9e3779b1

/**
 * Views of one length over one memory, keyed by start address. Their length is that of the longest copy: copying a few
 * more bytes costs less than a view for each length, so the destination needs room for them.
 */
export class StartViews {
  readonly #length: number
  readonly #views: (Uint8Array | undefined)[] = new Array<undefined>(1 << TABLE_BITS).fill(undefined)
  readonly #starts = new Float64Array(1 << TABLE_BITS).fill(-1)
  #memory: Uint8Array | undefined

  /** @param length bytes of a view */
  constructor(length: number) {
    this.#length = length
  }

  /** `length` bytes of `memory` from `start` on, fewer at its end. The view is valid until the memory grows. */
  at(memory: Uint8Array, start: number): Uint8Array {
    if (memory !== this.#memory) {
      this.clear()
      this.#memory = memory
    }
    const slot = Math.imul(start, GOLDEN_RATIO) >>> (32 - TABLE_BITS)
    const kept = this.#views[slot]
    if (kept !== undefined && this.#starts[slot] === start) return kept
    const made = memory.subarray(start, start + this.#length)
    this.#views[slot] = made
    this.#starts[slot] = start
    return made
  }

  /** Releases the memory. */
  clear(): void {
    if (this.#memory === undefined) return
    this.#memory = undefined
    this.#views.fill(undefined)
    this.#starts.fill(-1)
  }
}
