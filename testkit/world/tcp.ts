/**
 * TCP connections of a simulated world between an application and an endpoint on one machine: bounded queues,
 * half-close, RST.
 */
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type { TcpConnection, TcpHandlers, TcpListener } from '../../host/runtime.ts'
import { copyOf } from './copy.ts'
import { codeError } from './errors.ts'
import type { EventLoop } from './event-loop.ts'
import type { Process } from './machine.ts'

/** Queue limit of one direction of a connection. */
const QUEUE_BYTES = 65536
/** One-way latency of a connection, ms. */
const LATENCY = 0.05
const SHARED_BUFFER = new Uint8Array(QUEUE_BYTES)
const NO_HANDLERS: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

/** One end. Owned by a process, except for applications. */
export class SimulatedTcp implements TcpConnection {
  readonly remote: SocketAddress | undefined
  handlers: TcpHandlers = NO_HANDLERS
  readonly #loop: EventLoop
  readonly #owner: Process | undefined
  #peer: SimulatedTcp | undefined
  /** Bytes that this end has not read. */
  #queue: Uint8Array[] = []
  #queued = 0
  #isPaused = true
  #isScheduled = false
  #isStarved = false
  #finSent = false
  #finQueued = false
  #finSeen = false
  /** No further callbacks. */
  #isSilent = false
  #isBroken = false

  constructor(loop: EventLoop, owner: Process | undefined, remote: SocketAddress | undefined) {
    this.#loop = loop
    this.#owner = owner
    this.remote = remote
    owner?.onEnd(() => this.reset())
  }

  static pair(loop: EventLoop, a: Process | undefined, b: Process | undefined, from: SocketAddress): SimulatedTcp[] {
    const near = new SimulatedTcp(loop, a, undefined)
    const far = new SimulatedTcp(loop, b, from)
    near.#peer = far
    far.#peer = near
    return [near, far]
  }

  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }

  /** One shared buffer: `write` copies it at once. */
  writeBuffer(): Uint8Array {
    return SHARED_BUFFER
  }

  write(buffer: Uint8Array, length: number): number {
    const peer = this.#peer
    if (peer === undefined || this.#isBroken || this.#finSent) return 0
    const taken = Math.min(length, Math.max(0, QUEUE_BYTES - peer.#queued))
    if (taken > 0) {
      peer.#queue.push(copyOf(buffer, taken))
      peer.#queued += taken
      peer.#schedule()
    }
    if (taken < length) this.#isStarved = true
    return taken
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#schedule()
  }

  end(): void {
    if (this.#finSent || this.#isBroken) return
    this.#finSent = true
    if (this.#peer !== undefined) {
      this.#peer.#finQueued = true
      this.#peer.#schedule()
    }
    this.#schedule()
  }

  reset(): void {
    this.#isSilent = true
    if (this.#isBroken) return
    this.#isBroken = true
    this.#peer?.fail('ECONNRESET')
  }

  close(): void {
    this.#isSilent = true
    this.#queue = []
    this.#queued = 0
    this.end()
    this.resume()
  }

  /** Breaks the connection: onClose is called with the error. */
  fail(code: string): void {
    if (this.#isBroken) return
    this.#isBroken = true
    this.#later(() => {
      if (!this.#isSilent) this.handlers.onClose(codeError(code))
      this.#isSilent = true
    })
  }

  #later(run: () => void): void {
    const due = this.#loop.now + LATENCY
    if (this.#owner === undefined) this.#loop.at(due, run)
    else this.#owner.at(due, run)
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#later(() => {
      this.#isScheduled = false
      this.#deliver()
    })
  }

  #deliver(): void {
    while (!this.#isPaused && !this.#isBroken) {
      const chunk = this.#queue.shift()
      if (chunk === undefined) break
      this.#queued -= chunk.length
      if (!this.#isSilent) this.handlers.onData(chunk)
      // the chunk is valid only during the call
      chunk.fill(0xee)
    }
    if (this.#isBroken) return
    const peer = this.#peer
    if (peer !== undefined && this.#queued < QUEUE_BYTES / 2) peer.#onRoom()
    if (this.#isPaused || this.#queue.length > 0) return
    if (this.#finQueued && !this.#finSeen) {
      this.#finSeen = true
      if (!this.#isSilent) this.handlers.onEnd()
    }
    if (this.#finSeen && this.#finSent && !this.#isSilent && !this.#isBroken) {
      this.#isSilent = true
      this.handlers.onClose()
    }
  }

  #onRoom(): void {
    if (!this.#isStarved) return
    this.#isStarved = false
    this.#later(() => {
      if (!this.#isSilent && !this.#isBroken) this.handlers.onDrain()
    })
  }
}

type Accept = (connection: SimulatedTcp) => TcpHandlers | null

/** The listeners of one machine. */
export class TcpPorts {
  readonly #loop: EventLoop
  readonly #listeners = new Map<string, { owner: Process | undefined; accept: Accept }>()

  constructor(loop: EventLoop) {
    this.#loop = loop
  }

  /** @throws EADDRINUSE */
  listen(local: SocketAddress, owner: Process | undefined, accept: Accept): TcpListener {
    const key = formatAddress(local)
    if (this.#listeners.has(key)) throw codeError('EADDRINUSE')
    const listener = { owner, accept }
    this.#listeners.set(key, listener)
    const close = (): void => {
      if (this.#listeners.get(key) === listener) this.#listeners.delete(key)
    }
    owner?.onEnd(close)
    return { local, close }
  }

  /** Calls `onOpen`, or `onClose` of the handlers if the connection fails. */
  dial(to: SocketAddress, owner: Process | undefined, handlers: TcpHandlers, onOpen: () => void): SimulatedTcp {
    const listener = this.#listeners.get(formatAddress(to))
    const from = { ...to, port: 1 }
    const [near, far] = SimulatedTcp.pair(this.#loop, owner, listener?.owner, from) as [SimulatedTcp, SimulatedTcp]
    near.handlers = handlers
    if (listener === undefined) {
      near.fail('ECONNREFUSED')
      return near
    }
    const open = (): void => {
      const accepted = listener.accept(far)
      if (accepted === null) far.close()
      else far.handlers = accepted
      if (owner === undefined) onOpen()
      else owner.at(this.#loop.now, onOpen)
    }
    if (listener.owner === undefined) this.#loop.in(LATENCY, open)
    else listener.owner.at(this.#loop.now + LATENCY, open)
    return near
  }
}
