/**
 * How much time an endpoint with several keys spends on finding the key of datagrams that name none and come from unknown
 * addresses: the first datagram of a kcptun-libev client, or garbage. All sources share a part of a core, no source gets
 * more than a small part of that, and when time is short only addresses that were seen before get any: a client sends its
 * first datagram again, while a flood with forged addresses rarely hits one twice.
 */

/** Share of a core, and what accumulates while nothing is searched, ms: longer, and datagrams are lost in the meantime. */
const SHARE = 0.1
const SAVED_MS = 10
/** With less than this left, ms, only addresses that were seen before are served. */
const SCARCE_MS = SAVED_MS / 2
/** A search costs at most this, ms: the rest of what was measured was the time of other processes. */
const MAX_COST_MS = 2
/** Groups of sources; a source is an IPv4 address or the first half of an IPv6 one. */
const GROUPS = 1024
/** Searches per second of a group, and at once. */
const SEARCHES_PER_SECOND = 16
const SEARCHES_AT_ONCE = 16
/** Marks of addresses seen, and how long each of two sets of them is filled, ms. */
const MARKS = 1 << 22
const FILL_MS = 2000
/** Words of an address record: first 8 bytes of the IP; and of the other half, where a v4-mapped address is. */
const IP_WORD = 2
const MAPPED_WORD = 4
const MAPPED_PREFIX = 0xffff0000
const ADDRESS_WORDS = 6

export class SearchBudget {
  #left = SAVED_MS
  #at = 0
  readonly #searches = new Float64Array(GROUPS).fill(SEARCHES_AT_ONCE)
  readonly #searchesAt = new Float64Array(GROUPS)
  readonly #seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0
  /** 1 MiB, once time was scarce. */
  #marks: Uint32Array | undefined
  #otherMarks: Uint32Array | undefined
  #filledAt = 0

  /**
   * Decides whether to search the key of a datagram; `spend` follows if so.
   * @param u32 the engine's memory
   * @param record word of the source's address record
   * @param now monotonic, ms
   */
  take(u32: Uint32Array, record: number, now: number): boolean {
    this.#left = Math.min(SAVED_MS, this.#left + (now - this.#at) * SHARE)
    this.#at = now
    const group = groupOf(this.#seed, u32, record)
    const idle = (now - (this.#searchesAt[group] ?? 0)) / 1000
    const searches = Math.min(SEARCHES_AT_ONCE, (this.#searches[group] ?? 0) + idle * SEARCHES_PER_SECOND)
    this.#searchesAt[group] = now
    const isScarce = this.#left < SCARCE_MS
    const may = searches >= 1 && (!isScarce || this.#wasSeen(u32, record, now)) && this.#left > 0
    this.#searches[group] = may ? searches - 1 : searches
    return may
  }

  /** @param ms how long a search took */
  spend(ms: number): void {
    this.#left -= Math.min(ms, MAX_COST_MS)
  }

  /** Marks an address. @returns whether it was marked within the last seconds, or probably */
  #wasSeen(u32: Uint32Array, record: number, now: number): boolean {
    if (this.#marks === undefined || this.#otherMarks === undefined || now - this.#filledAt >= FILL_MS) {
      const next = this.#otherMarks ?? new Uint32Array(MARKS >>> 5)
      this.#otherMarks = this.#marks ?? new Uint32Array(MARKS >>> 5)
      this.#marks = next.fill(0)
      this.#filledAt = now
    }
    let hash = this.#seed
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      hash = Math.imul(hash ^ (u32[record + i] ?? 0), 0x9e3779b1)
      hash ^= hash >>> 15
    }
    const mark = (Math.imul(hash, 0x85ebca6b) >>> 10) & (MARKS - 1)
    const bit = 1 << (mark & 31)
    const word = mark >>> 5
    const marks = this.#marks[word] ?? 0
    if (((marks | (this.#otherMarks[word] ?? 0)) & bit) !== 0) return true
    this.#marks[word] = marks | bit
    return false
  }
}

function groupOf(seed: number, u32: Uint32Array, record: number): number {
  const isMapped =
    u32[record + IP_WORD] === 0 && u32[record + IP_WORD + 1] === 0 && u32[record + MAPPED_WORD] === MAPPED_PREFIX
  const low = isMapped ? u32[record + MAPPED_WORD + 1] : u32[record + IP_WORD]
  let hash = Math.imul(seed ^ (low ?? 0), 0x9e3779b1)
  hash = Math.imul(hash ^ (hash >>> 15) ^ (isMapped ? 0 : (u32[record + IP_WORD + 1] ?? 0)), 0x85ebca6b)
  return (hash >>> 16) & (GROUPS - 1)
}
