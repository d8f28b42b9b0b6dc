/**
 * The local addresses at which a wildcard socket was reached (IP_PKTINFO, IPV6_PKTINFO), by number. Addresses of peers
 * contain that number (SocketAddress.local), so the answer to a peer leaves from the address that the peer asked.
 */

import { ADDRESS_RECORD_BYTES, type SocketAddress, writeRecord } from '../net/address.ts'

/** Numbers 1 to LOCALS are in use; above them, the number that was used longest ago gets another address. */
const LOCALS = 255
/** Words of an entry: the IP (IPv4: the first word), then the interface index of a link-local address, else 0. */
export const LOCAL_WORDS = 5
const IP_WORDS = 4

/** fe80::/10 and ff00::/8 in the first word of an IP. */
const isLinkLocal = (word: number): boolean => (word & 0xc0ff) === 0x80fe
const isMulticast = (word: number): boolean => (word & 0xff) === 0xff

export class LocalAddresses {
  /** The entries: number n begins at word n * LOCAL_WORDS. */
  readonly words = new Uint32Array((LOCALS + 1) * LOCAL_WORDS)
  readonly #family: 4 | 6
  /** When each number was used last, in calls of numberOf; 0: free. */
  readonly #usedAt = new Float64Array(LOCALS + 1)
  /** Numbers of addresses that peers did not choose. */
  readonly #isFree = new Uint8Array(LOCALS + 1)
  #calls = 0
  #last = 0

  constructor(family: 4 | 6) {
    this.#family = family
  }

  /**
   * Number of the local address at the start of `local`, an entry whose interface index is that of the arrival.
   * @returns 0: the system selects the source of answers
   */
  numberOf(local: Uint32Array): number {
    const first = local[0] ?? 0
    if (this.#family === 6 && isMulticast(first)) return 0
    if (this.#family === 4 || !isLinkLocal(first)) local[IP_WORDS] = 0
    let number = this.#last
    if (!this.#holds(number, local)) number = this.#find(local)
    this.#last = number
    this.#usedAt[number] = ++this.#calls
    return this.#isFree[number] === 1 ? 0 : number
  }

  /** Whether answers to peers at this number leave from its address. */
  isKnown(number: number): boolean {
    return (this.#usedAt[number] ?? 0) > 0 && this.#isFree[number] === 0
  }

  /** The address has vanished. */
  forget(number: number): void {
    this.#usedAt[number] = 0
    if (this.#last === number) this.#last = 0
  }

  /** The system selects the source of answers to datagrams for this address: it was announced, and may move. */
  leaveFree(address: SocketAddress): void {
    const record = new Uint8Array(ADDRESS_RECORD_BYTES)
    writeRecord(address, record, 0)
    const local = new Uint32Array(LOCAL_WORDS)
    local.set(new Uint32Array(record.buffer, ADDRESS_RECORD_BYTES - IP_WORDS * 4))
    local[IP_WORDS] = address.scope
    this.numberOf(local)
    if (this.#last !== 0) this.#isFree[this.#last] = 1
  }

  #holds(number: number, local: Uint32Array): boolean {
    if (this.#usedAt[number] === 0) return false
    const at = number * LOCAL_WORDS
    for (let i = 0; i < LOCAL_WORDS; i++) if (this.words[at + i] !== local[i]) return false
    return true
  }

  #find(local: Uint32Array): number {
    let oldest = 1
    for (let number = 1; number <= LOCALS; number++) {
      if (this.#holds(number, local)) return number
      if ((this.#usedAt[number] ?? 0) < (this.#usedAt[oldest] ?? 0)) oldest = number
    }
    this.words.set(local.subarray(0, LOCAL_WORDS), oldest * LOCAL_WORDS)
    this.#isFree[oldest] = 0
    return oldest
  }
}
