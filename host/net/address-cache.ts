/**
 * A cache of peer addresses for the driver: socket addresses <-> the engine's 24-byte address records (docs/abi.md).
 *
 * Each datagram needs a conversion, so both directions use a small direct-mapped cache: a cached peer costs no
 * allocation. The conversion itself is in `address.ts`.
 */

import { ADDRESS_RECORD_BYTES, readRecord, type SocketAddress, sameAddress, writeRecord } from './address.ts'

/** Size of an address record in words. */
export const ADDRESS_WORDS = ADDRESS_RECORD_BYTES / 4

/** Slots of each cache; a power of two. More concurrent peers only cost time. */
const CACHE_SLOTS = 1024

interface Known {
  readonly socketAddress: SocketAddress
  readonly words: Uint32Array
}

function sameWords(known: Known, u32: Uint32Array, at: number): boolean {
  const { words } = known
  for (let i = 0; i < ADDRESS_WORDS; i++) if (words[i] !== u32[at + i]) return false
  return true
}

/** The two caches of one driver. */
export class AddressCache {
  #byPort: (Known | undefined)[] = new Array<undefined>(CACHE_SLOTS).fill(undefined)
  #byRecord: (Known | undefined)[] = new Array<undefined>(CACHE_SLOTS).fill(undefined)
  #lastIn: Known | undefined
  #lastOut: Known | undefined

  /**
   * Writes the record of `from` at word `at`.
   * @throws RangeError if `from` is not an IP literal
   */
  write(from: SocketAddress, u32: Uint32Array, at: number): void {
    let known = this.#lastIn
    if (known === undefined || (known.socketAddress !== from && !sameAddress(known.socketAddress, from))) {
      const slot = from.port & (CACHE_SLOTS - 1)
      known = this.#byPort[slot]
      if (known === undefined || !sameAddress(known.socketAddress, from)) {
        const words = new Uint32Array(ADDRESS_WORDS)
        writeRecord(from, new Uint8Array(words.buffer), 0)
        known = { socketAddress: from, words }
        this.#byPort[slot] = known
      }
      this.#lastIn = known
    }
    const { words } = known
    for (let i = 0; i < ADDRESS_WORDS; i++) u32[at + i] = words[i] ?? 0
  }

  /**
   * Reads the address record at word `at`. A cached peer yields the same object each time.
   * @throws RangeError if the record holds no address
   */
  read(u32: Uint32Array, at: number): SocketAddress {
    let known = this.#lastOut
    if (known !== undefined && sameWords(known, u32, at)) return known.socketAddress
    let hash = 0
    for (let i = 0; i < ADDRESS_WORDS; i++) hash = Math.imul(hash ^ (u32[at + i] ?? 0), 0x9e3779b1)
    const slot = (hash >>> 16) & (CACHE_SLOTS - 1)
    known = this.#byRecord[slot]
    if (known === undefined || !sameWords(known, u32, at)) {
      const words = u32.slice(at, at + ADDRESS_WORDS)
      const socketAddress = readRecord(new Uint8Array(words.buffer), 0)
      if (socketAddress === undefined) throw new RangeError('address record without a family')
      known = { socketAddress, words }
      this.#byRecord[slot] = known
    }
    this.#lastOut = known
    return known.socketAddress
  }
}
