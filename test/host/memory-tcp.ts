/** TCP connections of the Runtime in memory (memory-runtime.ts). */

import type { SocketAddress } from '../../host/net/address.ts'
import type { TcpConnection, TcpHandlers } from '../../host/runtime.ts'

export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code })
}

const NO_HANDLERS: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

/** One endpoint of a TCP connection. Tests also use it as the application's socket. */
export class MemoryTcp implements TcpConnection {
  readonly remote: SocketAddress | undefined = undefined
  handlers: TcpHandlers = NO_HANDLERS
  /** Bytes that wait to be read at this endpoint. */
  queued = 0
  paused = true
  /** Whether either endpoint aborted the connection. */
  broken = false
  #peer: MemoryTcp | undefined
  #limit: number
  #queue: Uint8Array[] = []
  #scheduled = false
  #starved = false
  #finSent = false
  #finQueued = false
  #finSeen = false
  #silent = false
  #buffer = new Uint8Array(65536)

  constructor(limit: number) {
    this.#limit = limit
  }

  static pair(limit: number): [MemoryTcp, MemoryTcp] {
    const a = new MemoryTcp(limit)
    const b = new MemoryTcp(limit)
    a.#peer = b
    b.#peer = a
    return [a, b]
  }

  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }

  writeBuffer(): Uint8Array {
    return this.#buffer
  }

  write(buffer: Uint8Array, length: number): number {
    const peer = this.#peer
    if (peer === undefined || this.broken || this.#finSent) return 0
    const taken = Math.min(length, Math.max(0, this.#limit - peer.queued))
    if (taken > 0) {
      peer.#queue.push(buffer.slice(0, taken))
      peer.queued += taken
      peer.#kick()
    }
    if (taken < length) this.#starved = true
    return taken
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
    this.#kick()
  }

  end(): void {
    if (this.#finSent || this.broken) return
    this.#finSent = true
    if (this.#peer) {
      this.#peer.#finQueued = true
      this.#peer.#kick()
    }
    this.#kick()
  }

  reset(): void {
    this.#silent = true
    if (this.broken) return
    this.broken = true
    this.#peer?.fail(systemError('ECONNRESET'))
  }

  close(): void {
    this.#silent = true
    this.#queue = []
    this.queued = 0
    this.end()
    this.resume()
  }

  /** Breaks the connection: onClose is called with the error in a later turn. */
  fail(error: NodeJS.ErrnoException): void {
    if (this.broken) return
    this.broken = true
    setImmediate(() => {
      if (!this.#silent) this.handlers.onClose(error)
      this.#silent = true
    })
  }

  /** Called when the other endpoint has read half of the queue. */
  drained(): void {
    if (!this.#starved) return
    this.#starved = false
    if (!this.#silent) this.handlers.onDrain()
  }

  #kick(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#deliver()
    })
  }

  #deliver(): void {
    while (!this.paused && !this.broken) {
      const chunk = this.#queue.shift()
      if (chunk === undefined) break
      this.queued = Math.max(0, this.queued - chunk.length)
      if (!this.#silent) this.handlers.onData(chunk)
      // the chunk is valid only during the call
      chunk.fill(0xee)
    }
    if (this.queued < this.#limit / 2 && !this.broken) this.#peer?.drained()
    if (this.paused || this.broken || this.#queue.length > 0) return
    if (this.#finQueued && !this.#finSeen) {
      this.#finSeen = true
      if (!this.#silent) this.handlers.onEnd()
    }
    if (this.#finSeen && this.#finSent && !this.#silent) {
      this.#silent = true
      this.handlers.onClose()
    }
  }
}
