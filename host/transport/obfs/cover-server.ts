/**
 * The server's side of the cover (protocol.md 9.3): a client that connects finds a plain, terse web server. One connection belongs to one context of
 * the engine, which says how many may be there and when each has lived long enough; this file has no timer.
 */
import type { SocketAddress } from '../../net/address.ts'
import type { TcpConnection, TcpHandlers } from '../../runtime.ts'
import { answerText, HeadReader, judgeRequest } from './cover.ts'

/** What the cover asks of the contexts. */
export interface CoverContexts {
  /**
   * A connection came.
   * @returns its context, or 0 when it is to be refused (protocol.md 9.5)
   */
  accept(remote: SocketAddress): number
  /** The connection is gone before its context was of use. */
  release(context: number): void
}

const encoder = new TextEncoder()

/** Puts a short text into a connection. Nothing was written before, so there is room for it. */
export function writeText(connection: TcpConnection, text: string): void {
  const buffer = connection.writeBuffer()
  const { written } = encoder.encodeInto(text, buffer)
  connection.write(buffer, written)
}

/** All connections of one listener. */
export class CoverServer {
  readonly #contexts: CoverContexts
  readonly #clock: () => Date
  readonly #connections = new Map<number, TcpConnection>()

  constructor(contexts: CoverContexts, clock: () => Date) {
    this.#contexts = contexts
    this.#clock = clock
  }

  /** Connections that are open. */
  get size(): number {
    return this.#connections.size
  }

  /** For Runtime.listenTcp and OperatingSystem.adoptListener. */
  readonly accept = (connection: TcpConnection): TcpHandlers | null => {
    const { remote } = connection
    const context = remote === undefined ? 0 : this.#contexts.accept(remote)
    if (context === 0) return null
    this.#connections.set(context, connection)
    const reader = new HeadReader()
    let answered = false
    const drop = (how: 'close' | 'reset'): void => {
      if (!this.#connections.delete(context)) return
      connection[how]()
      this.#contexts.release(context)
    }
    connection.resume()
    return {
      onData: (chunk) => {
        if (answered) return
        const result = reader.read(chunk)
        if (result === undefined) return
        if (result === 'too long') {
          drop('reset')
          return
        }
        const reaction = judgeRequest(result.head)
        if (reaction === 'close') {
          drop('close')
          return
        }
        writeText(connection, answerText(reaction, this.#clock()))
        if (reaction !== 204) {
          drop('close')
          return
        }
        // nothing that comes now is answered, and the context lives on whatever becomes of the connection
        answered = true
        connection.pause()
      },
      onEnd: () => {
        if (!answered) drop('close')
      },
      onDrain() {},
      onClose: () => {
        if (answered) this.#connections.delete(context)
        else drop('close')
      },
    }
  }

  /** The engine ended a context: its connection goes. */
  end(context: number): void {
    const connection = this.#connections.get(context)
    this.#connections.delete(context)
    connection?.close()
  }

  /** No context is left: the engine or the program ended. */
  resetAll(): void {
    for (const connection of this.#connections.values()) connection.reset()
    this.#connections.clear()
  }
}
