/**
 * The PROXY protocol at the port of a client: who a connection comes from is read from the header that a listed proxy
 * puts before it (`proxy_protocol_from`), and written before what is sent to the peer (`proxy_protocol`).
 */

import type { Config } from '../config/config.ts'
import { isTrusted, trustedSources } from '../config/proxy-protocol.ts'
import { LOG_DEBUG, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Clock, QueuedBytes, TcpConnection, TcpHandlers, Timer } from '../runtime.ts'
import { encodeHeader, parseHeader, type Visit } from './header.ts'

/** A header must be complete within this time, ms. */
export const HEADER_MS = 10_000
/** Connections whose header is awaited; further ones are refused. */
export const WAITING_MAX = 1024

const NOTHING = new Uint8Array(0)

export interface VisitorsHost {
  readonly clock: Clock
  readonly log: Log
  readonly held: QueuedBytes
  readonly counters: { proxy_header_errors: number }
  /** As in Runtime.listenTcp. */
  accept(connection: TcpConnection): TcpHandlers | null
}

/** A connection with bytes before its own. */
class Preceded implements TcpConnection {
  readonly remote: SocketAddress | undefined
  readonly path: string | undefined
  readonly #connection: TcpConnection
  #first: Uint8Array
  #isReading = false

  constructor(connection: TcpConnection, first: Uint8Array, visit: Visit | undefined) {
    this.remote = visit?.source ?? connection.remote
    this.path = visit === undefined ? connection.path : undefined
    this.#connection = connection
    this.#first = first
  }

  /** Delivers what comes first, unless nothing may be delivered yet. */
  attach(handlers: TcpHandlers): void {
    this.#connection.attach(handlers)
    if (!this.#isReading) return
    const first = this.#first
    this.#first = NOTHING
    if (first.length > 0) handlers.onData(first)
    if (this.#isReading) this.#connection.resume()
  }

  writeBuffer(): Uint8Array {
    return this.#connection.writeBuffer()
  }

  write(buffer: Uint8Array, length: number): number {
    return this.#connection.write(buffer, length)
  }

  pause(): void {
    this.#isReading = false
    this.#connection.pause()
  }

  resume(): void {
    this.#isReading = true
    // before, `attach` resumes it
    if (this.#first.length === 0) this.#connection.resume()
  }

  end(): void {
    this.#connection.end()
  }

  reset(reason?: string): void {
    this.#connection.reset(reason)
  }

  close(): void {
    this.#connection.close()
  }
}

/** A connection whose header is awaited. */
class Waiting implements TcpHandlers {
  readonly held: QueuedBytes
  readonly #visitors: Visitors
  readonly #connection: TcpConnection
  readonly #timer: Timer
  #bytes = NOTHING

  constructor(visitors: Visitors, connection: TcpConnection, { held, clock }: VisitorsHost) {
    this.held = held
    this.#visitors = visitors
    this.#connection = connection
    this.#timer = clock.setTimer(() => this.#refuse('it is not complete in time'), HEADER_MS)
  }

  onData(chunk: Uint8Array): void {
    const bytes = new Uint8Array(this.#bytes.length + chunk.length)
    bytes.set(this.#bytes)
    bytes.set(chunk, this.#bytes.length)
    this.#bytes = bytes
    const parsed = parseHeader(bytes)
    if (parsed.kind === 'more') return
    if (parsed.kind === 'bad') {
      this.#refuse(parsed.text)
      return
    }
    this.#connection.pause()
    this.#visitors.arrived(this, this.#connection, parsed.visit, bytes.subarray(parsed.bytes))
  }

  onEnd(): void {
    this.#refuse('the connection ends before it is complete')
  }

  onDrain(): void {}

  onClose(): void {
    this.#visitors.forget(this)
  }

  stop(clock: Clock): void {
    clock.clearTimer(this.#timer)
  }

  reset(): void {
    this.#connection.reset()
  }

  #refuse(why: string): void {
    this.#visitors.refuse(this, this.#connection, why)
  }
}

export class Visitors {
  readonly #host: VisitorsHost
  readonly #version: 1 | 2 | undefined
  readonly #trusted: ReturnType<typeof trustedSources>
  readonly #waiting = new Set<Waiting>()

  constructor(host: VisitorsHost, { proxy_protocol, proxy_protocol_from }: Config) {
    this.#host = host
    this.#version = proxy_protocol
    this.#trusted = trustedSources(proxy_protocol_from)
  }

  /** As in Runtime.listenTcp. */
  accept(connection: TcpConnection): TcpHandlers | null {
    if (!isTrusted(this.#trusted, connection)) return this.#open(connection, undefined, NOTHING)
    if (this.#waiting.size >= WAITING_MAX) {
      this.#host.log.limited('header', LOG_WARNING, () => `connection refused: ${WAITING_MAX} wait for a PROXY header`)
      return null
    }
    const waiting = new Waiting(this, connection, this.#host)
    this.#waiting.add(waiting)
    connection.resume()
    return waiting
  }

  /** Resets all connections whose header is awaited. */
  close(): void {
    for (const waiting of this.#waiting) {
      waiting.stop(this.#host.clock)
      waiting.reset()
    }
    this.#waiting.clear()
  }

  forget(waiting: Waiting): void {
    waiting.stop(this.#host.clock)
    this.#waiting.delete(waiting)
  }

  refuse(waiting: Waiting, connection: TcpConnection, why: string): void {
    this.forget(waiting)
    this.#host.counters.proxy_header_errors++
    const from = connection.remote === undefined ? 'a Unix socket' : formatAddress(connection.remote)
    this.#host.log.limited('header', LOG_WARNING, () => `connection of ${from} reset: PROXY header: ${why}`)
    connection.reset()
  }

  arrived(waiting: Waiting, connection: TcpConnection, visit: Visit | undefined, rest: Uint8Array): void {
    this.forget(waiting)
    const { log } = this.#host
    if (log.at(LOG_DEBUG)) log.debug(`visitor: ${visit === undefined ? 'unknown' : formatAddress(visit.source)}`)
    const handlers = this.#open(connection, visit, rest)
    if (handlers === null) connection.reset()
  }

  /** @param rest what arrived behind a header */
  #open(connection: TcpConnection, visit: Visit | undefined, rest: Uint8Array): TcpHandlers | null {
    const source = visit?.source ?? connection.remote
    const destination = visit?.destination ?? connection.local
    const header = this.#version === undefined ? NOTHING : encodeHeader(this.#version, source, destination)
    const preceded = new Preceded(connection, Uint8Array.of(...header, ...rest), visit)
    const handlers = this.#host.accept(preceded)
    if (handlers !== null) preceded.attach(handlers)
    return handlers
  }
}
