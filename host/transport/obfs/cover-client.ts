/**
 * The client side of the cover (protocol.md 9.2, 9.3): one connection, one request, one response. Afterwards the
 * connection must stay open and idle; any event on it is a failure. redial.ts decides when to redial.
 */
import type { TcpConnection, TcpHandlers } from '../../runtime.ts'
import { HeadReader, isNoContent, requestText } from './cover.ts'
import { writeText } from './cover-server.ts'

export interface CoverEvents {
  /** The 204 response arrived. */
  onReady(): void
  /** The connection failed and is closed. Called at most once, as the last event. */
  onFailed(reason: string): void
}

/** One connection attempt. */
export class CoverClient {
  readonly #connection: TcpConnection
  readonly #events: CoverEvents
  readonly #reader = new HeadReader()
  #ready = false
  #over = false

  /**
   * @param dial starts to connect; calls exactly one of `onOpen` and `handlers.onClose` first, after it has returned
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

  /** Closes the connection without an event. */
  close(): void {
    if (this.#over) return
    this.#over = true
    this.#connection.close()
  }

  #onData(chunk: Uint8Array): void {
    if (this.#over) return
    if (this.#ready) {
      this.#fail('the server sent data after its response')
      return
    }
    const result = this.#reader.read(chunk)
    if (result === undefined) return
    if (result === 'too long' || !isNoContent(result.head) || result.rest > 0) {
      this.#fail('unexpected response from the server')
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
