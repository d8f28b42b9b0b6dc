/**
 * The server side of the cover (protocol.md 9.3): presents a plain web server to a client that connects. Each
 * connection belongs to one context of the engine, which limits their number and lifetime; this file has no timer.
 */
import type { SocketAddress } from '../../net/address.ts'
import type { TcpConnection, TcpHandlers } from '../../runtime.ts'
import { answerText, HeadReader, judgeRequest } from './cover.ts'

/** Creates and releases the engine's contexts of cover connections. */
export interface CoverContexts {
  /**
   * Creates the context of an incoming connection.
   * @returns the context, or 0 to refuse the connection (protocol.md 9.5)
   */
  accept(remote: SocketAddress): number
  /** The connection ended before the request was answered. */
  release(context: number): void
}

const encoder = new TextEncoder()

/** Writes a short text to a connection. It always fits, since nothing was written before. */
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

  /** Number of open connections. */
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
        // further data is not answered; from now on the context outlives the connection
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

  /** The engine ended a context: closes its connection. */
  end(context: number): void {
    const connection = this.#connections.get(context)
    this.#connections.delete(context)
    connection?.close()
  }

  /** Resets all connections: the engine trapped or the program ends, so no context is left. */
  resetAll(): void {
    for (const connection of this.#connections.values()) connection.reset()
    this.#connections.clear()
  }
}
