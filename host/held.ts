/**
 * Bytes of TCP streams that the host holds beside the engine, in queues of its own and of the runtime's sockets. They
 * count against the engine's ceiling (docs/abi.md, set_host_bytes), and have a bound of their own: a part of it.
 */

/** Part of the engine's ceiling that connections may have queued together. */
const QUEUED_PART = 1 / 8
/** Most and least bytes that one connection may have queued. The least is what any reader gets on with. */
const QUEUE_MAX = 262144
const QUEUE_MIN = 4096

export class HeldBytes {
  /** Written to connections, not taken by the system yet. */
  toTcp = 0
  /** Read from connections, not taken by the engine yet. */
  fromTcp = 0
  #budget = Number.POSITIVE_INFINITY

  /** @param ceiling bytes the engine may take in all */
  setCeiling(ceiling: number): void {
    this.#budget = ceiling * QUEUED_PART
  }

  /** Bytes that one connection may have queued now: half of what is left for all. */
  get queueLimit(): number {
    return Math.max(QUEUE_MIN, Math.min(QUEUE_MAX, (this.#budget - this.toTcp) / 2))
  }
}
