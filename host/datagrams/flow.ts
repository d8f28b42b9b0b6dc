/**
 * The datagrams of one source, or those of one stream to a target. To the driver a flow is a TCP connection that takes
 * every byte at once, because what cannot be sent is dropped; what the stream does not take waits here, but not for long.
 */

import type { SocketAddress } from '../net/address.ts'
import type { TcpConnection, TcpHandlers } from '../runtime.ts'
import type { DatagramQueue } from './datagram-queue.ts'
import type { FlowTable } from './flow-table.ts'
import { FrameReader } from './frames.ts'

/**
 * Segments that the engine may hold unsent for a flow: with more, datagrams would wait there, where none is dropped; with
 * fewer, it would have nothing to send until the next turn of the event loop.
 */
const UNSENT_SEGMENTS = 4
/** A datagram that has waited so long is dropped, ms. */
const WAIT_MS = 250
/** The same until the stream is open: the peer may have to answer a ping first. */
const OPENING_WAIT_MS = 3000
/** Idle time of a flow that may be over: of a question and its answer, and of a question without one; at most `udp_timeout`. */
const ANSWERED_MS = 10_000
const UNANSWERED_MS = 30_000
/** A flow of one question may give way to a new one after so long, ms. */
const YIELD_MS = 1000
/** The peer has so long to end its direction of a stream that ended here, ms. */
const ENDING_MS = 10_000

/** The UDP side of a flow. */
export interface FlowSocket {
  /** The other end. */
  readonly remote: SocketAddress | undefined
  /** Text for the log. */
  readonly name: string
  /** Sends a datagram of the stream, or drops it. */
  send(bytes: Uint8Array, start: number, length: number): void
  /** The flow takes no more datagrams: a later one of the same source opens another. */
  onEnded(flow: Flow): void
  /** The flow is over. */
  onGone(flow: Flow): void
}

export class Flow implements TcpConnection {
  readonly unsentLimit = UNSENT_SEGMENTS
  readonly #table: FlowTable
  readonly #socket: FlowSocket
  readonly #reader = new FrameReader()
  #handlers: TcpHandlers | undefined
  /** The stream takes nothing. */
  #isPaused = true
  /** The stream took something once. */
  #isOpen = false
  #isScheduled = false
  #queue: DatagramQueue | undefined
  /** Datagrams of the socket, and of the stream: what matters is whether there were two. */
  #received = 0
  #sent = 0
  /** Each datagram of the socket was answered by one of the stream before the next came. */
  #takesTurns = true
  #usedAt: number
  /** When this direction ended; undefined: it has not. */
  #endedAt: number | undefined
  #isEndSent = false
  #isPeerEnded = false
  #isGone = false

  constructor(table: FlowTable, socket: FlowSocket) {
    this.#table = table
    this.#socket = socket
    this.#usedAt = table.now()
  }

  get remote(): SocketAddress | undefined {
    return this.#socket.remote
  }

  /** Whether it takes no more datagrams. */
  get isEnded(): boolean {
    return this.#endedAt !== undefined || this.#isGone
  }

  /** Whether there was at most one datagram in each direction. */
  get isBrief(): boolean {
    return this.#received < 2 && this.#sent < 2
  }

  /**
   * From when on it may give way to a new flow, in the time of the table. A resolver uses a port again now and then, so
   * one with several questions is like one that is over.
   */
  get yieldsAt(): number {
    if (this.isBrief) return this.#usedAt + YIELD_MS
    return this.#takesTurns ? this.#usedAt + ANSWERED_MS : Number.POSITIVE_INFINITY
  }

  /** When it is to end if nothing happens. @param timeout `udp_timeout`, ms */
  dueAt(timeout: number): number {
    if (this.#endedAt !== undefined) return this.#endedAt + ENDING_MS
    if (!this.isBrief) return this.#usedAt + timeout
    return this.#usedAt + Math.min(timeout, this.#received + this.#sent === 2 ? ANSWERED_MS : UNANSWERED_MS)
  }

  /** The time of dueAt() has come. */
  expire(): void {
    if (this.isEnded) this.abort('the peer does not end the stream')
    else this.#finish()
  }

  // From the socket

  /** Takes a datagram of the socket, which may change after the call. */
  push(datagram: Uint8Array): void {
    const { counters } = this.#table
    counters.flow_datagrams_in++
    if (this.isEnded) return
    if (++this.#received > this.#sent + 1) this.#takesTurns = false
    this.#usedAt = this.#table.now()
    if (this.isBrief) this.#table.watch(this)
    if (this.#isPaused || this.#queue !== undefined) this.#enqueue(datagram)
    else this.#handlers?.onData(this.#table.frame(datagram))
  }

  #enqueue(datagram: Uint8Array): void {
    const { counters } = this.#table
    this.#queue ??= this.#table.takeQueue(this)
    if (this.#queue === undefined) {
      counters.flow_drops_queue++
      return
    }
    this.dropOld()
    counters.flow_drops_queue += this.#queue.put(datagram, this.#table.now())
    if (!this.#isPaused) this.#schedule()
  }

  /** Drops what waits for too long. */
  dropOld(): void {
    const wait = this.#isOpen ? WAIT_MS : OPENING_WAIT_MS
    this.#table.counters.flow_drops_queue += this.#queue?.expire(this.#table.now() - wait) ?? 0
  }

  /** Gives its queue back if nothing waits there that is still of use. */
  freeQueue(): boolean {
    const queue = this.#queue
    if (queue === undefined) return true
    this.dropOld()
    if (!queue.isEmpty) return false
    this.#queue = undefined
    this.#table.giveQueue(this, queue)
    return true
  }

  // From the stream

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#schedule()
  }

  writeBuffer(): Uint8Array {
    return this.#table.scratch
  }

  write(buffer: Uint8Array, length: number): number {
    if (this.#isGone) return length
    this.#reader.take(buffer, length, this.#onDatagram)
    return length
  }

  readonly #onDatagram = (bytes: Uint8Array, start: number, length: number): void => {
    if (++this.#sent > this.#received) this.#takesTurns = false
    this.#usedAt = this.#table.now()
    // an answer makes it end earlier
    if (this.isBrief) this.#table.watch(this)
    this.#socket.send(bytes, start, length)
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#schedule()
  }

  /** The peer ended its direction: nobody is left to talk to. */
  end(): void {
    this.#isPeerEnded = true
    this.#finish()
  }

  /** The stream is over. */
  reset(reason?: string): void {
    this.#gone(reason ?? 'reset')
  }

  close(): void {
    this.#gone('ended')
  }

  /** Ends this direction. */
  #finish(): void {
    if (!this.isEnded) {
      this.#endedAt = this.#table.now()
      this.#socket.onEnded(this)
    }
    this.#schedule()
  }

  /** Ends both directions at once. */
  abort(reason: string): void {
    const handlers = this.#handlers
    this.#gone(reason)
    if (handlers?.onReset !== undefined) handlers.onReset()
    else handlers?.onClose(new Error(reason))
  }

  #gone(reason: string): void {
    if (this.#isGone) return
    this.#isGone = true
    if (this.#reader.isWithin) this.#table.counters.flow_drops_cut++
    this.#handlers = undefined
    const queue = this.#queue
    if (queue !== undefined) {
      this.#table.counters.flow_drops_queue += queue.clear()
      this.#queue = undefined
      this.#table.giveQueue(this, queue)
    }
    if (this.#endedAt === undefined) this.#socket.onEnded(this)
    this.#table.remove(this)
    this.#table.log(() => `${this.#socket.name} flow over: ${reason}`)
    this.#socket.onGone(this)
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    // the driver's calls and ours must not run inside one another
    queueMicrotask(this.#deliver)
  }

  readonly #deliver = (): void => {
    this.#isScheduled = false
    this.#drain()
    if (!this.#isPaused) this.#isOpen = true
    if (this.#endedAt === undefined || this.#handlers === undefined) return
    const handlers = this.#handlers
    if (!this.#isEndSent) {
      this.#isEndSent = true
      handlers.onEnd()
    }
    if (!this.#isPeerEnded || this.#isGone) return
    this.#gone('ended')
    handlers.onClose()
  }

  #drain(): void {
    const queue = this.#queue
    if (queue === undefined) return
    this.dropOld()
    while (!this.#isPaused && !queue.isEmpty && this.#handlers !== undefined) this.#handlers.onData(queue.take())
    if (queue === this.#queue) this.freeQueue()
  }
}
