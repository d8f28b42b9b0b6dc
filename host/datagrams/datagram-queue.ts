/**
 * Datagrams of one flow that wait for its stream, as frames. Datagrams age: what waits too long, or does not fit, is
 * dropped from the front, as a router with a short queue does.
 */

import { LENGTH_BYTES, writeLength } from './frames.ts'

/** Bytes that wait in one flow: two bursts of a sender that passes the kernel 64 KiB at once. */
const QUEUE_BYTES = 131072
/** Datagrams that wait in one flow. */
const QUEUE_DATAGRAMS = 1024
/** Flows of an endpoint in which datagrams wait at the same time: 18 MiB at most. */
const QUEUES_MAX = 128

export class DatagramQueue {
  readonly #bytes = new Uint8Array(QUEUE_BYTES)
  /** Rings: where each frame is, and when it came. */
  readonly #starts = new Uint32Array(QUEUE_DATAGRAMS)
  readonly #ends = new Uint32Array(QUEUE_DATAGRAMS)
  readonly #times = new Float64Array(QUEUE_DATAGRAMS)
  #first = 0
  #count = 0

  get isEmpty(): boolean {
    return this.#count === 0
  }

  /** When the newest came. */
  get newest(): number {
    return this.#times[(this.#first + this.#count - 1) % QUEUE_DATAGRAMS] ?? 0
  }

  /**
   * Appends a datagram.
   * @returns how many were dropped for it
   */
  put(datagram: Uint8Array, now: number): number {
    const length = LENGTH_BYTES + datagram.length
    let dropped = 0
    let at = this.#roomFor(length)
    while (at < 0) {
      this.#drop()
      dropped++
      at = this.#roomFor(length)
    }
    writeLength(this.#bytes, at, datagram.length)
    this.#bytes.set(datagram, at + LENGTH_BYTES)
    const slot = (this.#first + this.#count++) % QUEUE_DATAGRAMS
    this.#starts[slot] = at
    this.#ends[slot] = at + length
    this.#times[slot] = now
    return dropped
  }

  /**
   * Drops what came before a time.
   * @returns how many
   */
  expire(before: number): number {
    let dropped = 0
    while (this.#count > 0 && (this.#times[this.#first] ?? 0) < before) {
      this.#drop()
      dropped++
    }
    return dropped
  }

  /** Takes the oldest frame. It is valid until the next put(). */
  take(): Uint8Array {
    const frame = this.#bytes.subarray(this.#starts[this.#first], this.#ends[this.#first])
    this.#drop()
    return frame
  }

  /** Drops all. @returns how many */
  clear(): number {
    const count = this.#count
    this.#count = 0
    return count
  }

  #drop(): void {
    this.#first = (this.#first + 1) % QUEUE_DATAGRAMS
    this.#count--
  }

  /** Where a frame fits behind the newest one, or at the beginning: frames are not divided. @returns -1: nowhere */
  #roomFor(length: number): number {
    if (this.#count === 0) return 0
    if (this.#count === QUEUE_DATAGRAMS) return -1
    const head = this.#starts[this.#first] ?? 0
    const tail = this.#ends[(this.#first + this.#count - 1) % QUEUE_DATAGRAMS] ?? 0
    if (tail <= head) return head - tail >= length ? tail : -1
    if (QUEUE_BYTES - tail >= length) return tail
    return head >= length ? 0 : -1
  }
}

/** The queues of an endpoint: few flows need one at the same time. */
export class QueuePool {
  readonly #free: DatagramQueue[] = []
  #made = 0

  /** @returns undefined: all are in use */
  take(): DatagramQueue | undefined {
    const free = this.#free.pop()
    if (free !== undefined || this.#made === QUEUES_MAX) return free
    this.#made++
    return new DatagramQueue()
  }

  /** Gives back an empty queue. */
  give(queue: DatagramQueue): void {
    this.#free.push(queue)
  }
}
