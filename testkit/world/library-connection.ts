/** Streams of the library as connections of applications: a Duplex of node:stream, or a pair of WHATWG streams. */

import type { WebStream } from '../../host/library/api.ts'
import type { TcpHandlers } from '../../host/runtime.ts'
import type { KcpStream } from '../../runtime-shared/duplex.ts'
import type { Connection, Scheduler } from './application.ts'
import type { Process, Violation } from './machine.ts'

/** Size of a chunk that an application writes, at most. */
const WRITE_BYTES = 16_384
/** What either direction of a stream buffers (runtime-shared/duplex.ts, host/library/web-stream.ts), and a chunk more. */
const READ_BUFFER_BYTES = 2 * 65_536
const WRITE_BUFFER_BYTES = 65_536 + WRITE_BYTES
const SHARED_BUFFER = new Uint8Array(WRITE_BYTES)
const NO_HANDLERS: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

/** Codes of errors with which a stream may end, or fail to open. */
const CODES = ['ERR_KCPTUN_RESET', 'ERR_KCPTUN_CLOSED', 'ERR_KCPTUN_REFUSED'] as const
/** The reasons of applications that abort. */
export class Enough extends Error {
  readonly code = 'ENOUGH'
}

/** What a run with enough seeds must have seen of the library (coverage.ts). */
export const ACTS = [
  'connect',
  'open',
  'connect given up',
  'opened in an outage',
  'Duplex',
  'WHATWG',
  'destroy',
  'failed handler',
  'abort of a writer',
  'close of a pair',
  'full Duplex',
  'full WHATWG',
  'close()',
  'signal',
  'end of the carrier',
  ...CODES,
] as const
export type Act = (typeof ACTS)[number]

/** Promises and callbacks that the library owes to a process. */
export class Debts {
  readonly #open = new Map<object, string>()

  /** @returns to be called when it is settled */
  owe(what: string): () => void {
    const key = {}
    this.#open.set(key, what)
    return () => void this.#open.delete(key)
  }

  get open(): string[] {
    return [...this.#open.values()]
  }

  forgive(): void {
    this.#open.clear()
  }
}

/** What the streams of a process have in common. */
export interface StreamSurroundings {
  readonly process: Process
  readonly scheduler: Scheduler
  readonly debts: Debts
  readonly report: Violation
  /** Counts for the coverage. */
  did(act: Act): void
  /** The application closes the endpoint, or has closed it. */
  isClosing(): boolean
}

/** Counts an error, and reports one that is none of the documented ones. */
export function checkCode(error: unknown, where: string, { did, report }: Pick<StreamSurroundings, 'did' | 'report'>) {
  if (error instanceof Enough) return
  const code = error instanceof Error ? (error as { readonly code?: unknown }).code : undefined
  const known = CODES.find((name) => name === code)
  if (known !== undefined) did(known)
  else report(`${where}: an undocumented error: ${error instanceof Error ? error.stack : error}`)
}

/** Callbacks stop at the end of the process. What the application throws is reported. */
export abstract class LibraryConnection implements Connection {
  readonly scheduler: Scheduler
  handlers: TcpHandlers = NO_HANDLERS
  /** Writes however much waits. */
  isGreedy = false
  protected readonly around: StreamSurroundings
  /** No callbacks any more. */
  #isSilent = false

  constructor(around: StreamSurroundings) {
    this.around = around
    this.scheduler = around.scheduler
    around.process.onEnd(() => {
      const { handlers } = this
      const wasSilent = this.#isSilent
      this.silence()
      if (!wasSilent) handlers.onClose(new Error('its process was killed'))
    })
  }

  abstract pause(): void
  abstract resume(): void
  abstract write(buffer: Uint8Array, length: number): number
  abstract end(): void
  abstract reset(): void
  /** Bytes that its buffers hold: to read, and to write. */
  protected abstract readonly buffered: readonly [number, number]

  /** One shared buffer: `write` copies it at once. */
  writeBuffer(): Uint8Array {
    return SHARED_BUFFER
  }

  get isSilent(): boolean {
    return this.#isSilent
  }

  /** Reports buffers beyond their bounds. */
  checkBounds(): void {
    if (this.#isSilent) return
    const [toRead, toWrite] = this.buffered
    if (toRead <= READ_BUFFER_BYTES && (this.isGreedy || toWrite <= WRITE_BUFFER_BYTES)) return
    this.around.report(`a stream buffers ${toRead} bytes to read and ${toWrite} to write`)
  }

  protected silence(): void {
    this.#isSilent = true
  }

  protected call(run: (handlers: TcpHandlers) => void): void {
    if (!this.#isSilent) this.around.process.call(() => run(this.handlers))
  }

  /** The stream is over. */
  protected over(error: unknown): void {
    if (error !== undefined) checkCode(error, 'a stream', this.around)
    this.call(({ onClose }) => onClose.call(this.handlers, error as Error | undefined))
    this.silence()
  }
}

export class DuplexConnection extends LibraryConnection {
  readonly #stream: KcpStream
  readonly #fail: ((error: Error) => void) | undefined
  #error: Error | undefined

  /** @param fail server: makes the handler of the stream fail, which resets it */
  constructor(around: StreamSurroundings, stream: KcpStream, fail?: (error: Error) => void) {
    super(around)
    this.#stream = stream
    this.#fail = fail
    around.did('Duplex')
    const settle = around.debts.owe('the event close')
    stream.pause()
    stream.on('data', (chunk: Uint8Array) => {
      this.call((handlers) => handlers.onData(chunk))
      // it is the application's
      chunk.fill(0xe2)
    })
    stream.on('end', () => this.call((handlers) => handlers.onEnd()))
    stream.on('drain', () => this.call((handlers) => handlers.onDrain()))
    stream.on('error', (error) => {
      this.#error = error
    })
    stream.once('close', () => {
      settle()
      this.#onClose()
    })
  }

  #onClose(): void {
    const { readableEnded, writableFinished } = this.#stream
    if (this.isSilent || (readableEnded && writableFinished) || this.#error !== undefined) this.over(this.#error)
    // no event tells the application what it did itself
    else if (this.around.isClosing()) this.over(new Enough('its endpoint was closed'))
    else this.over(undefined)
  }

  protected get buffered(): readonly [number, number] {
    return [this.#stream.readableLength, this.#stream.writableLength]
  }

  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  write(buffer: Uint8Array, length: number): number {
    const stream = this.#stream
    if (stream.destroyed) return 0
    if (stream.writableNeedDrain && !this.isGreedy) {
      this.around.did('full Duplex')
      return 0
    }
    const chunk = buffer.slice(0, length)
    const settle = this.around.debts.owe('the callback of a write')
    stream.write(chunk, () => {
      settle()
      chunk.fill(0xe1)
    })
    return length
  }

  end(): void {
    if (this.#stream.destroyed) return
    const settle = this.around.debts.owe('the callback of end()')
    this.#stream.end(settle)
  }

  reset(): void {
    this.silence()
    this.around.did(this.#fail === undefined ? 'destroy' : 'failed handler')
    if (this.#fail === undefined) this.#stream.destroy()
    else this.#fail(new Enough('the handler failed'))
  }
}

export class WebConnection extends LibraryConnection {
  readonly #web: WebStream
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>
  #isPaused = true
  #isReading = false
  #hasEnded = false
  #isClosed = false
  #isStarved = false
  #isReset = false

  constructor(around: StreamSurroundings, web: WebStream) {
    super(around)
    this.#web = web
    around.did('WHATWG')
    this.#reader = (web.readable as ReadableStream<Uint8Array>).getReader()
    this.#writer = (web.writable as WritableStream<Uint8Array>).getWriter()
    const opened = around.debts.owe('opened')
    const closed = around.debts.owe('closed')
    web.opened.then(opened, (error) => {
      opened()
      if (!this.#isReset) checkCode(error, 'opened', around)
    })
    web.closed.then(
      () => {
        closed()
        this.#isClosed = true
        this.#settle()
      },
      (error) => {
        closed()
        this.over(error)
      },
    )
  }

  protected get buffered(): readonly [number, number] {
    return [0, 65_536 - (this.#writer.desiredSize ?? 65_536)]
  }

  /** What is in the buffer of the readable stream is read before the end of the stream counts. */
  #settle(): void {
    if (this.#isClosed && this.#hasEnded) this.over(undefined)
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    void this.#read()
  }

  async #read(): Promise<void> {
    if (this.#isReading) return
    this.#isReading = true
    while (!this.#isPaused && !this.#hasEnded && !this.isSilent) {
      const settle = this.around.debts.owe('a read')
      const result = await this.#reader.read().catch(() => undefined)
      settle()
      // `closed` has the error
      if (result === undefined) break
      if (result.done) {
        this.#hasEnded = true
        this.call((handlers) => handlers.onEnd())
        this.#settle()
      } else {
        this.call((handlers) => handlers.onData(result.value))
        result.value.fill(0xe4)
      }
    }
    this.#isReading = false
  }

  write(buffer: Uint8Array, length: number): number {
    const size = this.#writer.desiredSize
    if (size === null) return 0
    if (size <= 0 && !this.isGreedy) {
      this.around.did('full WHATWG')
      this.#awaitRoom()
      return 0
    }
    const chunk = buffer.slice(0, length)
    const settle = this.around.debts.owe('a write')
    const done = (): void => {
      settle()
      chunk.fill(0xe1)
    }
    this.#writer.write(chunk).then(done, done)
    return length
  }

  #awaitRoom(): void {
    if (this.#isStarved) return
    this.#isStarved = true
    const settle = this.around.debts.owe('ready')
    const done = (): void => {
      settle()
      this.#isStarved = false
    }
    this.#writer.ready.then(() => {
      done()
      this.call((handlers) => handlers.onDrain())
    }, done)
  }

  end(): void {
    const settle = this.around.debts.owe('the close of a writer')
    this.#writer.close().then(settle, settle)
  }

  reset(): void {
    this.silence()
    this.#isReset = true
    const settle = this.around.debts.owe('an abort')
    // either resets the stream
    this.around.did(this.#isPaused ? 'close of a pair' : 'abort of a writer')
    const aborting = this.#isPaused ? this.#web.close() : this.#writer.abort(new Enough('aborted'))
    aborting.then(settle, settle)
  }
}
