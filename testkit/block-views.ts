/**
 * A cache of views over blocks of the engine's memory: creating a view costs as much as copying a datagram, and the
 * engine reuses its blocks.
 */

/** log2 of the spacing of the engine's blocks in bytes. A mismatch only lowers the hit rate. */
const BLOCK_SHIFT = 11
/** Default number of views kept. */
const VIEWS_MAX = 4096

/** A table of views over one memory at a time. */
export class BlockViews {
  readonly #capacity: number
  #memory: Uint8Array | undefined
  #views: (Uint8Array | undefined)[] = []

  /** @param capacity entries of the direct-mapped table, a power of two */
  constructor(capacity = VIEWS_MAX) {
    this.#capacity = capacity
  }

  /** `length` bytes of `memory` at `offset`; the view is valid until the memory grows. */
  at(memory: Uint8Array, offset: number, length: number): Uint8Array {
    if (memory !== this.#memory) {
      this.#memory = memory
      this.#views = new Array<undefined>(this.#capacity).fill(undefined)
    }
    const slot = (offset >>> BLOCK_SHIFT) & (this.#capacity - 1)
    const known = this.#views[slot]
    if (known !== undefined && known.byteOffset === offset && known.length === length) return known
    const view = memory.subarray(offset, offset + length)
    this.#views[slot] = view
    return view
  }
}
