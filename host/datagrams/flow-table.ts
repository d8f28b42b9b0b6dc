/** All flows of an endpoint: what they share, what bounds them, and when they end. */

import type { HostCounterName, HostCounters } from '../driver/diagnostics.ts'
import type { Log } from '../log/log.ts'
import { LOG_DEBUG } from '../log/log.ts'
import type { Clock, Timer } from '../runtime.ts'
import { StartViews } from '../view-cache.ts'
import { type DatagramQueue, QueuePool } from './datagram-queue.ts'
import type { Flow } from './flow.ts'
import { LENGTH_BYTES, writeLength } from './frames.ts'

/** Flows at the same time. */
export const FLOWS_MAX = 4096
/** Flows that are looked at to find one that gives way. */
const LOOKS_MAX = 64
/** Minimum interval between two looks at the times of all flows, ms. */
const SWEEP_MS = 1000
/** The most that is copied by a cached view: more than most datagrams. */
const VIEW_BYTES = 1500
/** What the driver writes at once, and room for a view at its end. */
const SCRATCH_BYTES = 65536 + VIEW_BYTES

/** The counters of an endpoint that concern flows. */
export type FlowCounters = Pick<HostCounters, Extract<HostCounterName, `flow${string}`>>

export interface FlowTableOptions {
  readonly clock: Clock
  readonly log: Log
  readonly counters: FlowCounters
  /** `udp_timeout`, s. */
  timeout(): number
}

export class FlowTable {
  readonly counters: FlowCounters
  /** The buffer that the driver fills for the next write. */
  readonly scratch = new Uint8Array(SCRATCH_BYTES)
  readonly #options: FlowTableOptions
  readonly #flows = new Set<Flow>()
  /** Flows that had questions and answers alone when they were looked at, the oldest first. */
  readonly #candidates = new Set<Flow>()
  /** Flows that have a queue, the longest first. */
  readonly #queueing = new Set<Flow>()
  readonly #pool = new QueuePool()
  readonly #views = new StartViews(VIEW_BYTES)
  readonly #frame = new Uint8Array(LENGTH_BYTES + 0xffff)
  /** Beginnings of `#frame` by length. */
  readonly #frames: (Uint8Array | undefined)[] = []
  #sweepTimer: Timer | undefined
  #sweepAt = Number.POSITIVE_INFINITY
  #sweptAt = Number.NEGATIVE_INFINITY

  constructor(options: FlowTableOptions) {
    this.#options = options
    this.counters = options.counters
  }

  now(): number {
    return this.#options.clock.monotonic()
  }

  get isFull(): boolean {
    return this.#flows.size >= FLOWS_MAX
  }

  log(text: () => string): void {
    const { log } = this.#options
    if (log.at(LOG_DEBUG)) log.debug(text())
  }

  add(flow: Flow): void {
    this.#flows.add(flow)
    this.#candidates.add(flow)
    this.counters.flows++
    this.counters.flows_opened++
    this.watch(flow)
  }

  /** A flow may end earlier than the timer knows. */
  watch(flow: Flow): void {
    this.#arm(flow.dueAt(this.#timeout))
  }

  remove(flow: Flow): void {
    this.#candidates.delete(flow)
    if (this.#flows.delete(flow)) this.counters.flows--
  }

  /**
   * Ends the oldest flow of questions and answers, unless that was used just now.
   * @param among those of one address, the oldest first, which take no more datagrams then; in place of any that gives its
   *   place in this table at once. Other flows are taken out
   */
  makeRoom(among?: Set<Flow>): boolean {
    const candidates = among ?? this.#candidates
    let looks = 0
    for (const flow of candidates) {
      if (++looks > LOOKS_MAX) return false
      const at = flow.yieldsAt
      if (at <= this.now()) {
        if (among === undefined) flow.abort('another source needs its place')
        else flow.expire()
        return true
      }
      if (flow.isBrief) return false
      candidates.delete(flow)
      // with several questions: its turn comes again
      if (at !== Number.POSITIVE_INFINITY) candidates.add(flow)
    }
    return false
  }

  /** Aborts all flows. */
  close(): void {
    this.#options.clock.clearTimer(this.#sweepTimer)
    for (const flow of [...this.#flows]) flow.abort('the endpoint is closed')
    this.#options.clock.clearTimer(this.#sweepTimer)
  }

  /** Frame of a datagram, valid until the next call. */
  frame(datagram: Uint8Array): Uint8Array {
    const { length } = datagram
    writeLength(this.#frame, 0, length)
    this.#frame.set(datagram, LENGTH_BYTES)
    if (length > VIEW_BYTES) return this.#frame.subarray(0, LENGTH_BYTES + length)
    let view = this.#frames[length]
    if (view === undefined) {
      view = this.#frame.subarray(0, LENGTH_BYTES + length)
      this.#frames[length] = view
    }
    return view
  }

  /**
   * A datagram in a buffer.
   * @returns a view that is at least `length` and at most 1500 bytes long, or exactly `length`
   */
  view(bytes: Uint8Array, start: number, length: number): Uint8Array {
    return bytes === this.scratch && length <= VIEW_BYTES
      ? this.#views.at(bytes, start)
      : bytes.subarray(start, start + length)
  }

  /** A queue for a flow, if need be that of a flow in which only old datagrams wait. */
  takeQueue(flow: Flow): DatagramQueue | undefined {
    let queue = this.#pool.take()
    if (queue === undefined) {
      for (const other of [...this.#queueing]) if (other.freeQueue()) break
      queue = this.#pool.take()
    }
    if (queue !== undefined) this.#queueing.add(flow)
    return queue
  }

  giveQueue(flow: Flow, queue: DatagramQueue): void {
    this.#queueing.delete(flow)
    this.#pool.give(queue)
  }

  get #timeout(): number {
    return this.#options.timeout() * 1000
  }

  /** The configuration changed. */
  reload(): void {
    if (this.#flows.size > 0) this.#arm(this.now())
  }

  #arm(due: number): void {
    const at = Math.max(due, this.#sweptAt + SWEEP_MS)
    if (at >= this.#sweepAt) return
    const { clock } = this.#options
    clock.clearTimer(this.#sweepTimer)
    this.#sweepAt = at
    this.#sweepTimer = clock.setTimer(this.#sweep, Math.max(0, at - this.now()))
  }

  readonly #sweep = (): void => {
    const now = this.now()
    this.#sweptAt = now
    this.#sweepAt = Number.POSITIVE_INFINITY
    for (const flow of [...this.#queueing]) flow.freeQueue()
    const timeout = this.#timeout
    let next = Number.POSITIVE_INFINITY
    for (const flow of [...this.#flows]) {
      if (flow.dueAt(timeout) <= now) flow.expire()
      if (this.#flows.has(flow)) next = Math.min(next, flow.dueAt(timeout))
    }
    if (next !== Number.POSITIVE_INFINITY) this.#arm(next)
  }
}
