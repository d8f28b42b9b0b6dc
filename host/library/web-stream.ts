/** A stream as a pair of WHATWG streams, in the shape of the WinterTC sockets API. */

import { ResetError, toError } from '../errors.ts'
import type { StreamInfo, WebStream } from './api.ts'
import type { Channel, ChannelUser } from './channel.ts'

/** The bytes of a chunk: any view or ArrayBuffer, or text as UTF-8. */
function bytesOf(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk
  if (ArrayBuffer.isView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk)
  if (typeof chunk === 'string') return new TextEncoder().encode(chunk)
  throw new TypeError('a chunk must be a Uint8Array, another view of bytes, an ArrayBuffer or a string')
}

interface Deferred<Value> {
  readonly promise: Promise<Value>
  resolve(value: Value): void
  reject(error: Error): void
}

/** Promise.withResolvers, which Node 20 does not have. Its rejection is not reported if nobody looks at it. */
function deferred<Value>(): Deferred<Value> {
  let resolve!: (value: Value) => void
  let reject!: (error: Error) => void
  const promise = new Promise<Value>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  promise.catch(() => {})
  return { promise, resolve, reject }
}

/** Bytes that either of the two streams buffers. */
const BUFFER_BYTES = 65536

const aborted = (): Error => new ResetError('aborted by the application')

/** The application's side of a channel as WHATWG streams. */
class WebChannel implements ChannelUser {
  readonly readable: ReadableStream<Uint8Array>
  readonly writable: WritableStream<unknown>
  readonly opened = deferred<StreamInfo>()
  readonly closed = deferred<void>()
  readonly #channel: Channel
  readonly #info: StreamInfo
  #reader!: ReadableStreamDefaultController<Uint8Array>
  #writer!: WritableStreamDefaultController
  /** Resolves `pull` and `write`. */
  #pulled: (() => void) | undefined
  #written: (() => void) | undefined

  constructor(channel: Channel, info: StreamInfo) {
    this.#channel = channel
    this.#info = info
    const strategy = new ByteLengthQueuingStrategy({ highWaterMark: BUFFER_BYTES })
    this.readable = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#reader = controller
        },
        pull: () => this.#pull(),
        cancel: () => channel.discard(),
      },
      strategy,
    )
    this.writable = new WritableStream<unknown>(
      {
        start: (controller) => {
          this.#writer = controller
        },
        write: (chunk) => this.#write(bytesOf(chunk)),
        close: () => {
          channel.finish()
          this.#settle()
        },
        abort: (reason) => this.abort(reason === undefined ? aborted() : toError(reason)),
      },
      // chunks of other types count as one byte
      { highWaterMark: BUFFER_BYTES, size: (chunk) => (chunk instanceof Uint8Array ? chunk.byteLength : 1) },
    )
    channel.use(this)
  }

  /** Resets the stream from this side. */
  abort(error: Error): void {
    if (this.#channel.isOver) return
    this.#channel.abort()
    this.#broken(error)
  }

  /** Ends what the application has not ended: `closed` is fulfilled. */
  close(): void {
    this.closed.resolve()
    if (!this.#channel.isFinished) this.abort(aborted())
    else if (!this.#isCancelled) {
      this.#channel.discard()
      this.opened.reject(aborted())
      this.#reader.error(aborted())
    }
  }

  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#pulled = resolve
      this.#channel.read()
    })
  }

  #write(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#channel.send(bytes)) return undefined
    return new Promise((resolve) => {
      this.#written = resolve
    })
  }

  onOpen(): void {
    this.opened.resolve(this.#info)
  }

  onData(chunk: Uint8Array): boolean {
    this.#reader.enqueue(chunk)
    this.#pulled?.()
    this.#pulled = undefined
    return (this.#reader.desiredSize ?? 0) > 0
  }

  onEnd(): void {
    // a cancelled stream is closed already
    if (this.#reader.desiredSize !== null && !this.#isCancelled) this.#reader.close()
    this.#pulled?.()
    this.#settle()
  }

  get #isCancelled(): boolean {
    return this.#channel.isDiscarding
  }

  onWritable(): void {
    this.#written?.()
    this.#written = undefined
  }

  onReset(error: Error): void {
    this.#broken(error)
  }

  #settle(): void {
    if (this.#channel.isOver) this.closed.resolve()
  }

  #broken(error: Error): void {
    this.opened.reject(error)
    this.closed.reject(error)
    this.#reader.error(error)
    this.#writer.error(error)
    this.#written?.()
    this.#pulled?.()
  }
}

/** Makes WHATWG streams of the application's side of a channel. */
export function webStreamOf(channel: Channel, remoteAddress: string | undefined): WebStream {
  const web = new WebChannel(channel, { remoteAddress })
  const closed = web.closed.promise
  return {
    readable: web.readable,
    writable: web.writable as never,
    opened: web.opened.promise,
    closed,
    close: () => {
      web.close()
      return closed.catch(() => {})
    },
  }
}
