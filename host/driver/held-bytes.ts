/**
 * Bytes of TCP streams that the host holds beside the engine, in queues of its own and of the runtime's sockets. They
 * count against the engine's ceiling (docs/abi.md, set_host_bytes), and have a bound of their own: a part of it.
 */

import type { QueuedBytes } from '../runtime.ts'

/** Part of the engine's ceiling that connections may have queued together. */
const QUEUED_PART = 1 / 8
/**
 * Part of the ceiling that the bytes read and not taken count for at most. One read is as large as the runtime makes it
 * (Node 64 KiB, Bun 512 KiB) and cannot be given back, so hundreds of stalled uploads may hold more. With more than this
 * part the engine would refuse to take the very bytes that wait for it, and new sessions (assembly/memory/slab.ts).
 */
const READ_PART = 1 / 16
/** Most and least bytes that one connection may have queued. The least is what any reader gets on with. */
const QUEUE_MAX = 262144
const QUEUE_MIN = 4096

export class HeldBytes implements QueuedBytes {
  /** Written to connections, not taken by the system yet. */
  toTcp = 0
  /** Read from connections, not taken by the engine yet. */
  fromTcp = 0
  #ceiling = Number.POSITIVE_INFINITY

  /** @param ceiling bytes the engine may take in all */
  setCeiling(ceiling: number): void {
    this.#ceiling = ceiling
  }

  /** Of `toTcp`, what counts against the ceiling. */
  get countedToTcp(): number {
    return Math.min(this.toTcp, this.#ceiling * QUEUED_PART)
  }

  /** Of `fromTcp`, what counts against the ceiling. */
  get countedFromTcp(): number {
    return Math.min(this.fromTcp, this.#ceiling * READ_PART)
  }

  /** Bytes that one connection may have queued now: half of what is left for all. */
  get queueLimit(): number {
    return Math.max(QUEUE_MIN, Math.min(QUEUE_MAX, (this.#ceiling * QUEUED_PART - this.toTcp) / 2))
  }
}
