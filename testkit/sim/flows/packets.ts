/**
 * Datagrams in flight: a pool of reusable slots, and a timing wheel that returns them at their tick.
 *
 * A slot holds the bytes of an engine's datagram, or two numbers for a TCP packet. Nothing is allocated per packet once
 * the pool has grown.
 */
import { BlockViews } from '../../block-views.ts'

/** Bytes of a slot: the largest plaintext datagram that a simulated host sends. */
export const SLOT_BYTES = 1344
const CHUNK_SLOTS = 1024
/** Ticks the wheel covers: 8 s, the longest time between bottleneck and arrival. */
const WHEEL_TICKS = 1 << 16
const WHEEL_MASK = WHEEL_TICKS - 1
/** No slot, end of a list. */
export const NONE = -1
/** Datagrams up to this size are copied byte by byte, which is cheaper than creating a view. */
const SMALL_BYTES = 64

/** Copies datagrams between the memory of a host and the pool. */
export class Copier {
  readonly #packets: Packets
  readonly #views = new BlockViews()

  constructor(packets: Packets) {
    this.#packets = packets
  }

  /** Copies `length` bytes of `memory` into the slot and sets its length. */
  into(slot: number, memory: Uint8Array, offset: number, length: number): void {
    const { chunks, lengths } = this.#packets
    const chunk = chunks[slot >>> 10]
    if (chunk === undefined || length > SLOT_BYTES) throw new Error(`no slot for ${length} bytes`)
    lengths[slot] = length
    const at = (slot & (CHUNK_SLOTS - 1)) * SLOT_BYTES
    if (length > SMALL_BYTES) chunk.set(this.#views.at(memory, offset, length), at)
    else for (let i = 0; i < length; i++) chunk[at + i] = memory[offset + i] ?? 0
  }

  /** Copies the slot's bytes to `memory`. @returns their number */
  from(slot: number, memory: Uint8Array, offset: number): number {
    const bytes = this.#packets.view(slot)
    if (bytes.length > SMALL_BYTES) memory.set(bytes, offset)
    else for (let i = 0; i < bytes.length; i++) memory[offset + i] = bytes[i] ?? 0
    return bytes.length
  }
}

export class Packets {
  readonly chunks: Uint8Array[] = []
  /** plaintext bytes of a slot */
  lengths = new Int32Array(0)
  /** number of the destination host */
  target = new Int32Array(0)
  /** bytes on the wire, headers included */
  weight = new Int32Array(0)
  /** two numbers for hosts without bytes */
  first = new Int32Array(0)
  second = new Int32Array(0)
  #next = new Int32Array(0)
  #views: (Uint8Array | undefined)[] = []
  #free = NONE
  readonly #heads = new Int32Array(WHEEL_TICKS).fill(NONE)
  readonly #tails = new Int32Array(WHEEL_TICKS).fill(NONE)
  readonly #bits = new Int32Array(WHEEL_TICKS >> 5)
  #waiting = 0
  #now = 0
  inUse = 0

  /** Drops all datagrams in flight; keeps the slots. */
  reset(): void {
    this.#heads.fill(NONE)
    this.#tails.fill(NONE)
    this.#bits.fill(0)
    this.#waiting = this.#now = this.inUse = 0
    this.#free = NONE
    for (let slot = this.lengths.length - 1; slot >= 0; slot--) {
      this.#next[slot] = this.#free
      this.#free = slot
    }
  }

  #grow(): void {
    const slots = this.lengths.length
    const wanted = slots + CHUNK_SLOTS
    const enlarge = (old: Int32Array): Int32Array<ArrayBuffer> => {
      const array = new Int32Array(wanted)
      array.set(old)
      return array
    }
    this.chunks.push(new Uint8Array(CHUNK_SLOTS * SLOT_BYTES))
    this.lengths = enlarge(this.lengths)
    this.target = enlarge(this.target)
    this.weight = enlarge(this.weight)
    this.first = enlarge(this.first)
    this.second = enlarge(this.second)
    this.#next = enlarge(this.#next)
    for (let slot = wanted - 1; slot >= slots; slot--) {
      this.#next[slot] = this.#free
      this.#free = slot
    }
  }

  /** Allocates a slot. */
  take(): number {
    if (this.#free === NONE) this.#grow()
    const slot = this.#free
    this.#free = this.#next[slot] ?? NONE
    this.lengths[slot] = 0
    this.inUse++
    return slot
  }

  /** Frees a slot. */
  drop(slot: number): void {
    this.#next[slot] = this.#free
    this.#free = slot
    this.inUse--
  }

  /** A second datagram with the same content. */
  copy(slot: number): number {
    const twin = this.take()
    this.target[twin] = this.target[slot] ?? 0
    this.weight[twin] = this.weight[slot] ?? 0
    this.first[twin] = this.first[slot] ?? 0
    this.second[twin] = this.second[slot] ?? 0
    this.lengths[twin] = this.lengths[slot] ?? 0
    this.view(twin).set(this.view(slot))
    return twin
  }

  /** The bytes of a slot, until it is dropped. */
  view(slot: number): Uint8Array {
    const length = this.lengths[slot] ?? 0
    let view = this.#views[slot]
    if (view === undefined || view.length !== length) {
      const at = (slot & (CHUNK_SLOTS - 1)) * SLOT_BYTES
      const chunk = this.chunks[slot >>> 10]
      if (chunk === undefined) throw new Error(`no slot ${slot}`)
      view = chunk.subarray(at, at + length)
      this.#views[slot] = view
    }
    return view
  }

  /** Schedules a slot; `at` (ticks) must not be in the past. */
  schedule(slot: number, at: number): void {
    if (at < this.#now || at >= this.#now + WHEEL_TICKS) throw new Error(`${at} is off the wheel at ${this.#now}`)
    const tick = at & WHEEL_MASK
    const tail = this.#tails[tick] ?? NONE
    this.#next[slot] = NONE
    if (tail === NONE) {
      this.#heads[tick] = slot
      this.#bits[tick >>> 5] = (this.#bits[tick >>> 5] ?? 0) | (1 << (tick & 31))
    } else this.#next[tail] = slot
    this.#tails[tick] = slot
    this.#waiting++
  }

  /** Tick of the next arrival; Infinity if there is none. */
  next(): number {
    if (this.#waiting === 0) return Infinity
    const from = this.#now & WHEEL_MASK
    const words = WHEEL_TICKS >> 5
    // bits of the first word below `from` belong to the next round
    let word = from >>> 5
    let bits = (this.#bits[word] ?? 0) & (-1 << (from & 31))
    for (let i = 0; i <= words; i++) {
      if (bits !== 0) {
        const tick = (word << 5) | (31 - Math.clz32(bits & -bits))
        return this.#now + ((tick - from) & WHEEL_MASK)
      }
      word = (word + 1) & (words - 1)
      bits = this.#bits[word] ?? 0
    }
    return Infinity
  }

  /** Advances the clock; no arrival may be left before `now`. */
  advance(now: number): void {
    this.#now = now
  }

  /** Removes the next slot that arrives at the current tick, in order of sending. @returns NONE if there is none */
  arrival(): number {
    const tick = this.#now & WHEEL_MASK
    const slot = this.#heads[tick] ?? NONE
    if (slot === NONE) return NONE
    const next = this.#next[slot] ?? NONE
    this.#heads[tick] = next
    if (next === NONE) {
      this.#tails[tick] = NONE
      this.#bits[tick >>> 5] = (this.#bits[tick >>> 5] ?? 0) & ~(1 << (tick & 31))
    }
    this.#waiting--
    return slot
  }
}
