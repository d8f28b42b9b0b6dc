/**
 * The end of a session for an application in the same process. To the driver it is a TCP connection; the application's
 * side has the same semantics: bytes in order, each direction ends separately, back-pressure both ways, reset.
 *
 * Callbacks of the two sides never run inside one another: what the driver does reaches the application in a later
 * microtask, and so does the driver's request for more.
 */

import { ClosedError, ResetError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { QueuedBytes, TcpConnection, TcpHandlers } from '../runtime.ts'

/** Most bytes that wait here for the application. */
const QUEUE_BYTES = 262144
/** Chunks from this size on are passed on in the buffer that the driver filled. */
const WHOLE_MIN_BYTES = 32768
/** The most that the driver writes at once. */
const SCRATCH_BYTES = 65536
/** Chunks that may share memory share this much: fewer and larger objects for the garbage collector. */
const BLOCK_BYTES = 262144
/** Bytes passed to the driver at once. */
const PART_BYTES = 65536

/** The application's side. */
export interface ChannelUser {
  /** The application ended its direction, and `Channel.finish` follows when the last bytes are accepted. */
  readonly isEnding?: boolean
  /** The peer answered the session, which that of a server did from the start. */
  onOpen(): void
  /**
   * Bytes, to keep.
   * @returns whether more are wanted now; if not, none follow until `Channel.read`
   */
  onData(chunk: Uint8Array): boolean
  /** The peer ended its direction, and all bytes were delivered. Called, like onData, when more is wanted. */
  onEnd(): void
  /** `Channel.send` accepts bytes again. */
  onWritable(): void
  /**
   * It ended before both directions did. Nothing follows.
   * @param isOwn the application closed the endpoint, or its handler failed: it knows
   */
  onReset(error: Error, isOwn: boolean): void
}

const NO_USER: ChannelUser = { onOpen() {}, onData: () => false, onEnd() {}, onWritable() {}, onReset() {} }
const NO_HANDLERS: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

/** The buffer that the driver fills for the next write. */
export class Scratch {
  readonly #blockBytes: number
  #block: ArrayBuffer
  #offset = 0
  buffer: Uint8Array

  /** @param isShared whether chunks may share an ArrayBuffer: who transfers one then takes the others along */
  constructor(isShared: boolean) {
    this.#blockBytes = isShared ? BLOCK_BYTES : SCRATCH_BYTES
    this.#block = new ArrayBuffer(this.#blockBytes)
    this.buffer = new Uint8Array(this.#block, 0, SCRATCH_BYTES)
  }

  /** Gives the first bytes away; the next write gets others. */
  take(length: number): Uint8Array {
    const taken = this.buffer.subarray(0, length)
    this.#offset += length
    if (this.#offset + SCRATCH_BYTES > this.#blockBytes) {
      this.#block = new ArrayBuffer(this.#blockBytes)
      this.#offset = 0
    }
    this.buffer = new Uint8Array(this.#block, this.#offset, SCRATCH_BYTES)
    return taken
  }
}

export class Channel implements TcpConnection {
  readonly remote = undefined
  readonly peer: SocketAddress | undefined
  readonly #scratch: Scratch
  readonly #onGone: (channel: Channel) => void
  #handlers: TcpHandlers = NO_HANDLERS
  /** Counts the bytes that wait here for the application. */
  #held: QueuedBytes | undefined
  #user: ChannelUser = NO_USER
  /** Bytes for the application. */
  readonly #chunks: Uint8Array[] = []
  #queued = 0
  #isWanted = false
  /** The driver takes no bytes. */
  #isPaused = true
  /** The driver waits for room. */
  #isStarved = false
  /** Bytes of the application for the driver. */
  #pending: Uint8Array | undefined
  #isAnswered = false
  #openDelivered = false
  #endReceived = false
  #endDelivered = false
  #isWriteEnded = false
  #endSent = false
  #isScheduled = false
  #error: Error | undefined
  #isOwn = false
  #isGone = false
  #isForgotten = false
  #isDiscarding = false

  /**
   * @param peer the peer of the session, where it is known
   * @param scratch shared by the channels of an endpoint
   * @param onGone called once when the session needs the channel no longer; the application may still read from it
   */
  constructor(peer: SocketAddress | undefined, scratch: Scratch, onGone: (channel: Channel) => void) {
    this.peer = peer
    this.#scratch = scratch
    this.#onGone = onGone
  }

  // The application's side

  /** Sets the application's side. What happened before is delivered to it. */
  use(user: ChannelUser): void {
    this.#user = user
    this.#openDelivered = false
    this.#schedule()
  }

  /** Asks for bytes. */
  read(): void {
    this.#isWanted = true
    this.#schedule()
  }

  /** Drops all bytes that arrive from now on. */
  discard(): void {
    this.#isDiscarding = true
    this.read()
  }

  /**
   * Sends bytes, which must not change until they are accepted.
   * @returns whether they are accepted; if not, nothing may be written until onWritable
   */
  send(bytes: Uint8Array): boolean {
    if (this.#isGone || this.#isWriteEnded || bytes.length === 0) return true
    this.#pending = bytes
    this.#push()
    return this.#pending === undefined
  }

  /** Ends this direction after everything written. */
  finish(): void {
    if (this.#isWriteEnded) return
    this.#isWriteEnded = true
    this.#sendEnd()
  }

  /** Aborts both directions, unless both have ended. */
  abort(): void {
    if (this.#isGone) return
    this.#drop()
    if (this.#handlers.onReset !== undefined) this.#handlers.onReset()
    else this.#handlers.onClose(new ResetError('aborted by the application'))
    this.#gone()
  }

  /**
   * Aborts both directions, and ends the application's side with an error.
   * @param isOwn see ChannelUser.onReset
   */
  giveUp(error: Error, isOwn: boolean): void {
    this.abort()
    if (this.isOver || this.#error !== undefined) return
    this.#error = error
    this.#isOwn = isOwn
    this.#schedule()
  }

  /** Whether the peer answered. */
  get isAnswered(): boolean {
    return this.#isAnswered
  }

  /** Whether the application ended its direction. */
  get isFinished(): boolean {
    return this.#isWriteEnded || this.#user.isEnding === true
  }

  /** Whether the driver has everything, the end of this direction included. */
  get isFlushed(): boolean {
    return this.#endSent
  }

  /** Whether `discard` was called. */
  get isDiscarding(): boolean {
    return this.#isDiscarding
  }

  /** Whether both directions ended. */
  get isOver(): boolean {
    return this.#endDelivered && this.#endSent
  }

  /** Passes pending bytes to the driver until it pauses. */
  #push(): void {
    while (this.#pending !== undefined && !this.#isPaused && !this.#isGone) {
      const bytes = this.#pending
      const part = bytes.length <= PART_BYTES ? bytes : bytes.subarray(0, PART_BYTES)
      this.#pending = part === bytes ? undefined : bytes.subarray(PART_BYTES)
      this.#handlers.onData(part)
    }
  }

  #sendEnd(): void {
    if (!this.#isWriteEnded || this.#endSent || this.#pending !== undefined || this.#isGone) return
    if (this.#handlers === NO_HANDLERS) return
    this.#endSent = true
    this.#handlers.onEnd()
    this.#settle()
  }

  // The driver's side

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#held = handlers.held
    this.#schedule()
  }

  writeBuffer(): Uint8Array {
    return this.#scratch.buffer
  }

  write(buffer: Uint8Array, length: number): number {
    if (this.#isGone) return 0
    // all or nothing: few large chunks cost less than many small ones
    if (this.#queued > 0 && this.#queued + length > this.#queueLimit) {
      this.#isStarved = true
      return 0
    }
    this.#chunks.push(length < WHOLE_MIN_BYTES ? buffer.slice(0, length) : this.#scratch.take(length))
    this.#hold(length)
    this.#schedule()
    return length
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#schedule()
  }

  onAnswered(): void {
    this.#isAnswered = true
    this.#schedule()
  }

  end(): void {
    this.#endReceived = true
    this.#schedule()
  }

  reset(reason?: string): void {
    this.#fail(new ResetError(reason ?? 'the stream was reset'))
  }

  /** The endpoint is about to close. */
  closeNow(isOwn: boolean): void {
    this.#isOwn = isOwn
    this.#fail(new ClosedError('the endpoint is closed'))
  }

  /** The session is over, and all its bytes were taken. What waits here is the application's alone. */
  close(): void {
    this.#handlers = NO_HANDLERS
    this.#hold(-this.#queued)
    this.#held = undefined
    this.#forget()
    // it ended in the turn in which the peer answered
    this.#isAnswered = true
    this.#endReceived = true
    this.#endSent = true
    // what the application still writes is dropped
    this.#isPaused = false
    this.#schedule()
  }

  #fail(error: Error): void {
    if (this.#isGone) return
    this.#drop()
    this.#handlers = NO_HANDLERS
    this.#error = error
    this.#gone()
    this.#schedule()
  }

  #drop(): void {
    this.#pending = undefined
    this.#chunks.length = 0
    this.#hold(-this.#queued)
  }

  get #queueLimit(): number {
    return Math.min(QUEUE_BYTES, this.#held?.queueLimit ?? QUEUE_BYTES)
  }

  #hold(bytes: number): void {
    this.#queued += bytes
    if (this.#held !== undefined) this.#held.toTcp += bytes
  }

  #gone(): void {
    this.#isGone = true
    this.#forget()
  }

  #forget(): void {
    if (this.#isForgotten) return
    this.#isForgotten = true
    this.#onGone(this)
  }

  #settle(): void {
    if (this.#isGone || !this.isOver) return
    const handlers = this.#handlers
    this.#handlers = NO_HANDLERS
    this.#gone()
    handlers.onClose()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(this.#deliver)
  }

  readonly #deliver = (): void => {
    this.#isScheduled = false
    if (this.#user === NO_USER) return
    if (this.#error !== undefined) {
      const user = this.#user
      this.#user = NO_USER
      user.onReset(this.#error, this.#isOwn)
      return
    }
    if (this.#isAnswered && !this.#openDelivered) {
      this.#openDelivered = true
      this.#user.onOpen()
    }
    if (this.#pending !== undefined && !this.#isPaused) {
      this.#push()
      if (this.#pending === undefined) this.#user.onWritable()
    }
    this.#sendEnd()
    this.#give()
  }

  /** Delivers bytes while they are wanted, then the end. */
  #give(): void {
    while (this.#isWanted) {
      const chunk = this.#chunks.shift()
      if (chunk === undefined) break
      this.#hold(-chunk.length)
      this.#isWanted = this.#isDiscarding || this.#user.onData(chunk)
    }
    if (this.#isStarved && this.#queued <= this.#queueLimit / 2) {
      this.#isStarved = false
      this.#handlers.onDrain()
    }
    if (!this.#isWanted || !this.#endReceived || this.#endDelivered || this.#chunks.length > 0 || this.#isGone) return
    this.#endDelivered = true
    this.#user.onEnd()
    this.#settle()
  }
}
