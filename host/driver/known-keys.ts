/**
 * Which key the peers of an endpoint with several keys have: by address, of those from which the engine accepted a
 * datagram. Garbage and replays do not enter, and the address that is used least gives way, so nobody who is active is
 * displaced by strangers.
 */

import { ADDRESS_WORDS } from '../net/address-cache.ts'

/** Sets of addresses, and addresses in a set: 4096 peers in 128 KiB. */
const SETS = 1024
const WAYS = 4
/** Word of a record that holds the key, in its top byte. */
const KEY_WORD = 1
const KEY_SHIFT = 24

export class KnownKeys {
  /** Address records with their key. */
  readonly #records = new Uint32Array(SETS * WAYS * ADDRESS_WORDS)
  /** When an entry was last found, by a count; 0 = it is free. */
  readonly #usedAt = new Float64Array(SETS * WAYS)
  #count = 0
  readonly #seed = crypto.getRandomValues(new Uint32Array(2))

  /**
   * @param u32 the engine's memory
   * @param at word of an address record, whose key does not count
   * @returns number of the key of the peer; -1 if it is not known
   */
  find(u32: Uint32Array, at: number): number {
    const entry = this.#entryOf(u32, at)
    if (entry < 0) return -1
    this.#usedAt[entry] = ++this.#count
    return (this.#records[entry * ADDRESS_WORDS + KEY_WORD] ?? 0) >>> KEY_SHIFT
  }

  /** A datagram of the peer with this address record, which includes its key, was accepted. */
  add(u32: Uint32Array, at: number): void {
    let entry = this.#entryOf(u32, at)
    if (entry < 0) entry = this.#leastUsed(this.#setOf(u32, at) * WAYS)
    const word = entry * ADDRESS_WORDS
    for (let i = 0; i < ADDRESS_WORDS; i++) this.#records[word + i] = u32[at + i] ?? 0
    this.#usedAt[entry] = ++this.#count
  }

  /** A key is not accepted any more. */
  forget(key: number): void {
    for (let entry = 0; entry < SETS * WAYS; entry++)
      if ((this.#records[entry * ADDRESS_WORDS + KEY_WORD] ?? 0) >>> KEY_SHIFT === key) this.#usedAt[entry] = 0
  }

  #leastUsed(first: number): number {
    let least = first
    for (let entry = first + 1; entry < first + WAYS; entry++)
      if ((this.#usedAt[entry] ?? 0) < (this.#usedAt[least] ?? 0)) least = entry
    return least
  }

  #entryOf(u32: Uint32Array, at: number): number {
    const first = this.#setOf(u32, at) * WAYS
    for (let entry = first; entry < first + WAYS; entry++)
      if (this.#usedAt[entry] !== 0 && this.#isSame(entry * ADDRESS_WORDS, u32, at)) return entry
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
      const word = u32[at + i] ?? 0
      hash = Math.imul(hash ^ (i === KEY_WORD ? word << (32 - KEY_SHIFT) : word), 0x9e3779b1)
      hash ^= hash >>> 15
    }
    return (Math.imul(hash ^ (this.#seed[1] ?? 0), 0x85ebca6b) >>> 16) & (SETS - 1)
  }
}
