/**
 * A connection of Bun.listen or Bun.connect, with half-close in both directions. Bun's write() passes bytes to the kernel,
 * queues nothing and returns the number taken, so all connections share one buffer. The driver interprets the data and
 * decides when to close.
 *
 * Observed behaviour of Bun 1.4: close is emitted without a preceding `end` if the peer's FIN follows our own; data
 * received before an RST is delivered even while paused; a dial has no handle before `open`, so an abandoned dial runs
 * until it ends. Accept errors (EMFILE) are not reported: Bun closes the excess connection with a spare descriptor and
 * continues to accept, so onError of a listener is never called.
 */

import type { Socket, SocketHandler } from 'bun'
import { systemError, toError } from '../host/errors.ts'
import type { SocketAddress } from '../host/net/address.ts'
import type { QueuedBytes, TcpConnection, TcpHandlers, TcpOptions } from '../host/runtime.ts'
import { spelling } from '../runtime-shared/platform.ts'

/** Size of the buffer that all connections share. */
const WRITE_BUFFER_BYTES = 65536
/**
 * How long a closed connection keeps reading and dropping data, ms: the kernel would answer unread bytes with RST (RFC
 * 1122, 4.2.2.13).
 */
const LINGER_MS = 5000

/** Options of a Unix socket, and of an adopted connection, which its creator has already set. */
export const UNTOUCHED: TcpOptions = { nodelay: false, keepalive: false }

const scratch = new Uint8Array(WRITE_BUFFER_BYTES)

export type BunSocket = Socket<BunConnection | undefined>

export class BunConnection implements TcpConnection {
  remote: SocketAddress | undefined
  readonly #options: TcpOptions
  readonly #scope: number
  #socket: BunSocket | undefined
  #handlers: TcpHandlers | undefined
  /** Chunks received while paused: at most one wake-up's. Bun allocates each chunk, so they can be kept. */
  readonly #held: Uint8Array[] = []
  /** Where they are counted. */
  #ledger: QueuedBytes | undefined
  #paused = true
  #starved = false
  /** FIN was received; it is reported after the held data. */
  #readEnded = false
  #endDelivered = false
  #writeEnded = false
  /** The socket is closed. */
  #over: { error: NodeJS.ErrnoException | undefined } | undefined
  #delivering = false
  /** reset() or close() was called: nothing more is reported. */
  #released = false
  #linger: ReturnType<typeof setTimeout> | undefined

  readonly path: string | undefined

  /**
   * @param scope that of the listener
   * @param path of a Unix socket
   */
  constructor(options: TcpOptions, remote: SocketAddress | undefined, scope: number, path?: string) {
    this.path = path
    this.#options = options
    this.#scope = scope
    this.remote = remote
  }

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#ledger = handlers.held
  }

  get local(): SocketAddress | undefined {
    const socket = this.#socket
    const text: string | undefined = socket?.localAddress
    return socket === undefined || text === undefined ? undefined : spelling.read(text, socket.localPort, this.#scope)
  }

  #count(bytes: number): void {
    if (this.#ledger) this.#ledger.fromTcp += bytes
  }

  #dropHeld(): void {
    for (const chunk of this.#held) this.#count(-chunk.length)
    this.#held.length = 0
  }

  writeBuffer(): Uint8Array {
    return scratch
  }

  write(buffer: Uint8Array, length: number): number {
    if (length === 0 || this.#released || this.#writeEnded || this.#over !== undefined) return 0
    // -1: the connection is closed and close follows
    const taken = this.#socket === undefined ? 0 : Math.max(0, this.#socket.write(buffer, 0, length))
    if (taken < length) this.#starved = true
    return taken
  }

  pause(): void {
    this.#paused = true
    if (!this.#released && this.#over === undefined) this.#socket?.pause()
  }

  resume(): void {
    this.#paused = false
    if (this.#held.length > 0 || this.#over !== undefined) this.#deliverLater()
    else this.#socket?.resume()
  }

  end(): void {
    if (this.#writeEnded || this.#released) return
    this.#writeEnded = true
    // nothing is queued here: FIN follows the bytes that the kernel took
    if (this.#over === undefined) this.#socket?.shutdown()
  }

  reset(): void {
    this.#release()
    if (this.#over === undefined) this.#socket?.terminate()
  }

  close(): void {
    this.#release()
    const socket = this.#socket
    if (socket === undefined || this.#over !== undefined) return
    this.#linger = setTimeout(() => socket.end(), LINGER_MS)
    if (!this.#writeEnded) socket.shutdown()
    socket.resume()
  }

  /**
   * The connection is established.
   * @returns false if the owner released it before
   */
  opened(socket: BunSocket): boolean {
    if (this.#released) {
      socket.terminate()
      return false
    }
    this.#socket = socket
    this.remote ??= this.#remoteOf(socket)
    if (this.path === undefined) socket.setNoDelay(this.#options.nodelay)
    if (this.#options.keepalive) socket.setKeepAlive(true, 0)
    if (this.#paused) socket.pause()
    if (this.#writeEnded) socket.shutdown()
    return true
  }

  /** Remote address; undefined in Bun if the connection was reset before it was accepted. */
  #remoteOf(socket: BunSocket): SocketAddress | undefined {
    const text: string | undefined = socket.remoteAddress
    return text === undefined ? undefined : spelling.read(text, socket.remotePort, this.#scope)
  }

  /** Attaches the socket of an adopted connection, which may still be connecting. */
  adopted(socket: BunSocket): void {
    if (this.#released) {
      socket.terminate()
      return
    }
    this.#socket = socket
    if (this.#paused) socket.pause()
  }

  get released(): boolean {
    return this.#released
  }

  data(chunk: Uint8Array): void {
    if (this.#released) return
    if (this.#paused || this.#held.length > 0) {
      this.#held.push(chunk)
      this.#count(chunk.length)
      if (this.#paused) this.#socket?.pause()
    } else {
      this.#handlers?.onData(chunk)
    }
  }

  ended(): void {
    this.#readEnded = true
    if (this.#held.length === 0) this.#deliverEnd()
  }

  /** Bun also calls drain without a preceding short write. */
  drained(): void {
    if (!this.#starved || this.#released) return
    this.#starved = false
    this.#handlers?.onDrain()
  }

  closed(error: NodeJS.ErrnoException | undefined): void {
    clearTimeout(this.#linger)
    if (this.#over !== undefined) return
    // Bun reports no error for an RST after a FIN; but while our direction is open, no close is clean
    if (error === undefined && !this.#writeEnded) error = systemError('ECONNRESET', 'connection reset by peer', 'read')
    this.#over = { error }
    // after an error held data is discarded, as the kernel's own queue would be
    if (error !== undefined) this.#dropHeld()
    // close may be emitted inside a call of the owner such as end()
    if (this.#held.length === 0) this.#deliverLater()
  }

  /** A handler threw: a bug here must not affect other connections. */
  broke(error: NodeJS.ErrnoException): void {
    const handlers = this.#handlers
    this.reset()
    handlers?.onClose(error)
  }

  #release(): void {
    this.#released = true
    this.#handlers = undefined
    this.#dropHeld()
    clearTimeout(this.#linger)
  }

  #deliverLater(): void {
    if (this.#delivering) return
    this.#delivering = true
    setImmediate(() => {
      this.#delivering = false
      this.#deliver()
    })
  }

  /** Delivers the held data, then the end. */
  #deliver(): void {
    const held = this.#held
    while (held.length > 0 && !this.#paused) {
      const chunk = held.shift()
      if (chunk === undefined) break
      this.#count(-chunk.length)
      this.#handlers?.onData(chunk)
    }
    if (held.length > 0) return
    const over = this.#over
    if (this.#readEnded || (over !== undefined && over.error === undefined)) this.#deliverEnd()
    if (over === undefined) {
      if (!this.#paused && !this.#released) this.#socket?.resume()
      return
    }
    const handlers = this.#handlers
    this.#handlers = undefined
    handlers?.onClose(over.error)
  }

  #deliverEnd(): void {
    if (this.#endDelivered) return
    this.#endDelivered = true
    this.#handlers?.onEnd()
  }
}

type Handler = SocketHandler<BunConnection | undefined>

/** Events of an open connection, dialled or accepted. */
export const events: Handler = {
  binaryType: 'uint8array',
  data: (socket, chunk: Uint8Array) => socket.data?.data(chunk),
  end: (socket) => socket.data?.ended(),
  drain: (socket) => socket.data?.drained(),
  close: (socket, error) => socket.data?.closed(error),
  error: (socket, error) => {
    if (socket.data === undefined) socket.terminate()
    else socket.data.broke(toError(error))
  },
}
