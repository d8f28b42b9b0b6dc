/**
 * The local addresses at which a wildcard socket was reached (IP_PKTINFO, IPV6_PKTINFO), by number. Addresses of peers
 * contain that number (SocketAddress.local), so the answer to a peer leaves from the address that the peer asked.
 */

import { ADDRESS_RECORD_BYTES, type SocketAddress, writeRecord } from '../net/address.ts'

/**
 * Numbers 1 to LOCALS. A number keeps its address until that vanishes: a stranger who sends to many addresses of the machine
 * must not change the source of answers to others. Addresses beyond get no number.
 */
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
  readonly #isUsed = new Uint8Array(LOCALS + 1)
  /** Numbers of addresses that peers did not choose. */
  readonly #isFree = new Uint8Array(LOCALS + 1)
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
    return this.#isFree[number] === 1 ? 0 : number
  }

  /** Whether answers to peers at this number leave from its address. */
  isKnown(number: number): boolean {
    return this.#isUsed[number] === 1 && this.#isFree[number] === 0
  }

  /** The address has vanished. */
  forget(number: number): void {
    this.#isUsed[number] = 0
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
    if (this.#isUsed[number] === 0) return false
    const at = number * LOCAL_WORDS
    for (let i = 0; i < LOCAL_WORDS; i++) if (this.words[at + i] !== local[i]) return false
    return true
  }

  #find(local: Uint32Array): number {
    let free = 0
    for (let number = LOCALS; number >= 1; number--) {
      if (this.#holds(number, local)) return number
      if (this.#isUsed[number] === 0) free = number
    }
    if (free === 0) return 0
    this.words.set(local.subarray(0, LOCAL_WORDS), free * LOCAL_WORDS)
    this.#isUsed[free] = 1
    this.#isFree[free] = 0
    return free
  }
}
