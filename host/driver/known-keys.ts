/**
 * Which key the peers of an endpoint with several keys have: by address, of those from which an authentic datagram
 * arrived last. Nothing else enters, so a flood of strangers displaces nobody.
 */

import { ADDRESS_WORDS } from '../net/address-cache.ts'

/** Sets of addresses, and addresses in a set. 4096 peers in 96 KiB. */
const SETS = 1024
const WAYS = 4
/** Word of a record that holds the key, in its top byte: here it says that the entry is in use. */
const KEY_WORD = 1
const KEY_SHIFT = 24

export class KnownKeys {
  /** Address records with their key. */
  readonly #records = new Uint32Array(SETS * WAYS * ADDRESS_WORDS)
  readonly #used = new Uint8Array(SETS * WAYS)
  /** The way of each set to replace next. */
  readonly #next = new Uint8Array(SETS)
  readonly #seed = crypto.getRandomValues(new Uint32Array(2))

  /**
   * @param u32 the engine's memory
   * @param at word of an address record with key 0
   * @returns number of the key of the peer; -1 if it is not known
   */
  find(u32: Uint32Array, at: number): number {
    const entry = this.#entryOf(u32, at)
    return entry < 0 ? -1 : (this.#records[entry * ADDRESS_WORDS + KEY_WORD] ?? 0) >>> KEY_SHIFT
  }

  /** An authentic datagram arrived from an address under a key. */
  add(u32: Uint32Array, at: number, key: number): void {
    let entry = this.#entryOf(u32, at)
    if (entry < 0) {
      const set = this.#setOf(u32, at)
      const way = this.#next[set] ?? 0
      this.#next[set] = (way + 1) % WAYS
      entry = set * WAYS + way
    }
    const word = entry * ADDRESS_WORDS
    for (let i = 0; i < ADDRESS_WORDS; i++) this.#records[word + i] = u32[at + i] ?? 0
    this.#records[word + KEY_WORD] = ((u32[at + KEY_WORD] ?? 0) | (key << KEY_SHIFT)) >>> 0
    this.#used[entry] = 1
  }

  /** A key is not accepted any more. */
  forget(key: number): void {
    for (let entry = 0; entry < SETS * WAYS; entry++)
      if ((this.#records[entry * ADDRESS_WORDS + KEY_WORD] ?? 0) >>> KEY_SHIFT === key) this.#used[entry] = 0
  }

  #entryOf(u32: Uint32Array, at: number): number {
    const first = this.#setOf(u32, at) * WAYS
    for (let entry = first; entry < first + WAYS; entry++)
      if (this.#used[entry] === 1 && this.#isSame(entry * ADDRESS_WORDS, u32, at)) return entry
    return -1
  }

  #isSame(word: number, u32: Uint32Array, at: number): boolean {
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      const difference = (this.#records[word + i] ?? 0) ^ (u32[at + i] ?? 0)
      if ((i === KEY_WORD ? difference << (32 - KEY_SHIFT) : difference) !== 0) return false
    }
    return true
  }

  #setOf(u32: Uint32Array, at: number): number {
    let hash = this.#seed[0] ?? 0
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      hash = Math.imul(hash ^ (u32[at + i] ?? 0), 0x9e3779b1)
      hash ^= hash >>> 15
    }
    return (Math.imul(hash ^ (this.#seed[1] ?? 0), 0x85ebca6b) >>> 16) & (SETS - 1)
  }
}
