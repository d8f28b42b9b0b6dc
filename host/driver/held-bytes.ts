/**
 * Counts the bytes of TCP streams held outside the engine: in queues of the host and of the runtime's sockets. They
 * count against the engine's memory ceiling (docs/abi.md, set_host_bytes) and are limited to a fraction of it.
 */

import type { QueuedBytes } from '../runtime.ts'

/** Fraction of the engine's ceiling that all connections together may have queued. */
const QUEUED_PART = 1 / 8
/**
 * Fraction of the ceiling at which the count of bytes read from TCP but not yet taken by the engine is capped. The
 * runtime chooses the size of a read (Node 64 KiB, Bun 512 KiB) and a read cannot be undone, so hundreds of stalled
 * uploads may hold more. Counting more would make the engine refuse those same bytes and new sessions
 * (assembly/memory/slab.ts).
 */
const READ_PART = 1 / 16
/** Maximum and minimum bytes that one connection may have queued. The minimum lets every reader make progress. */
const QUEUE_MAX = 262144
const QUEUE_MIN = 4096

export class HeldBytes implements QueuedBytes {
  /** Written to connections, not yet accepted by the kernel. */
  toTcp = 0
  /** Read from connections, not yet accepted by the engine. */
  fromTcp = 0
  #ceiling = Number.POSITIVE_INFINITY

  /** @param ceiling memory ceiling of the engine, bytes */
  setCeiling(ceiling: number): void {
    this.#ceiling = ceiling
  }

  /** Part of `toTcp` that counts against the ceiling. */
  get countedToTcp(): number {
    return Math.min(this.toTcp, this.#ceiling * QUEUED_PART)
  }

  /** Part of `fromTcp` that counts against the ceiling. */
  get countedFromTcp(): number {
    return Math.min(this.fromTcp, this.#ceiling * READ_PART)
  }

  /** Bytes that one connection may have queued now: half of what remains for all connections. */
  get queueLimit(): number {
    return Math.max(QUEUE_MIN, Math.min(QUEUE_MAX, (this.#ceiling * QUEUED_PART - this.toTcp) / 2))
  }
}
