/**
 * How much an endpoint with several keys may try of them for datagrams that name none and come from unknown addresses:
 * a first datagram of kcptun-libev, or garbage. All sources share the time of a part of a core, and no source gets more
 * than its own share, so that a flood neither makes the server slow nor keeps everybody else out.
 */

/** Keys tried per second in all, and at once: a trial takes up to 1 us. */
const TRIALS_PER_SECOND = 150_000
const TRIALS_AT_ONCE = 15_000
/** Groups of sources; a source is an IPv4 address or the first half of an IPv6 one. */
const GROUPS = 1024
/** Searches per second of a group, and at once. */
const SEARCHES_PER_SECOND = 32
const SEARCHES_AT_ONCE = 32
/** Words of an address record: first 8 bytes of the IP; and of the other half, where a v4-mapped address is. */
const IP_WORD = 2
const MAPPED_WORD = 4
const MAPPED_PREFIX = 0xffff0000

export class SearchBudget {
  #trials = TRIALS_AT_ONCE
  #at = Number.NEGATIVE_INFINITY
  readonly #searches = new Float64Array(GROUPS).fill(SEARCHES_AT_ONCE)
  readonly #searchesAt = new Float64Array(GROUPS)
  readonly #seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0

  /**
   * Takes what a search costs.
   * @param u32 the engine's memory
   * @param record word of the source's address record
   * @param keys number of keys to try
   * @param now monotonic, ms
   * @returns whether it may take place
   */
  take(u32: Uint32Array, record: number, keys: number, now: number): boolean {
    const group = this.#groupOf(u32, record)
    const idle = (now - (this.#searchesAt[group] ?? 0)) / 1000
    const searches = Math.min(SEARCHES_AT_ONCE, (this.#searches[group] ?? 0) + idle * SEARCHES_PER_SECOND)
    const passed = this.#at === Number.NEGATIVE_INFINITY ? 0 : (now - this.#at) / 1000
    this.#trials = Math.min(TRIALS_AT_ONCE, this.#trials + passed * TRIALS_PER_SECOND)
    this.#at = now
    this.#searchesAt[group] = now
    const may = searches >= 1 && this.#trials >= keys
    this.#searches[group] = may ? searches - 1 : searches
    if (may) this.#trials -= keys
    return may
  }

  #groupOf(u32: Uint32Array, record: number): number {
    const isMapped =
      u32[record + IP_WORD] === 0 && u32[record + IP_WORD + 1] === 0 && u32[record + MAPPED_WORD] === MAPPED_PREFIX
    const low = isMapped ? u32[record + MAPPED_WORD + 1] : u32[record + IP_WORD]
    let hash = Math.imul(this.#seed ^ (low ?? 0), 0x9e3779b1)
    hash = Math.imul(hash ^ (hash >>> 15) ^ (isMapped ? 0 : (u32[record + IP_WORD + 1] ?? 0)), 0x85ebca6b)
    return (hash >>> 16) & (GROUPS - 1)
  }
}
