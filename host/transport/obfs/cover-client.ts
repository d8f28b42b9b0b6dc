/**
 * The client's side of the cover (protocol.md 9.2, 9.3): one connection, one request, one answer. After it the connection only has to stay as it is: whatever
 * happens on it then is its failure. When to dial again is redial.ts.
 */
import type { TcpConnection, TcpHandlers } from '../../runtime.ts'
import { HeadReader, isNoContent, requestText } from './cover.ts'
import { writeText } from './cover-server.ts'

export interface CoverEvents {
  /** The 204 is there. */
  onReady(): void
  /** The connection is of no use (any more); it is closed. Comes once, and nothing after it. */
  onFailed(reason: string): void
}

/** One attempt. */
export class CoverClient {
  readonly #connection: TcpConnection
  readonly #events: CoverEvents
  readonly #reader = new HeadReader()
  #ready = false
  #over = false

  /**
   * @param dial starts to connect; exactly one of `onOpen` and `handlers.onClose` comes first, not inside the call
   * @param host the server, as formatAddress prints it
   */
  constructor(dial: (handlers: TcpHandlers, onOpen: () => void) => TcpConnection, host: string, events: CoverEvents) {
    this.#events = events
    const handlers: TcpHandlers = {
      onData: (chunk) => this.#onData(chunk),
      onEnd: () => this.#fail('closed by the server'),
      onDrain() {},
      onClose: (error) => this.#fail(error === undefined ? 'closed' : error.message),
    }
    this.#connection = dial(handlers, () => {
      if (this.#over) return
      writeText(this.#connection, requestText(host))
      this.#connection.resume()
    })
  }

  /** Closes the connection; no event comes. */
  close(): void {
    if (this.#over) return
    this.#over = true
    this.#connection.close()
  }

  #onData(chunk: Uint8Array): void {
    if (this.#over) return
    if (this.#ready) {
      this.#fail('the server sent more than its answer')
      return
    }
    const result = this.#reader.read(chunk)
    if (result === undefined) return
    if (result === 'too long' || !isNoContent(result.head) || result.rest > 0) {
      this.#fail('the answer is not that of a server of ours')
      return
    }
    this.#ready = true
    this.#events.onReady()
  }

  #fail(reason: string): void {
    if (this.#over) return
    this.close()
    this.#events.onFailed(reason)
  }
}
