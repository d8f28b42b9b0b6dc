/** The streams of one driver by engine handle, and the handling of their events. */

import { ABORT_REASON_TEXTS, DATAGRAM_MAX, ErrorCode, EventType } from '../engine/core.ts'
import { messageOf, toError } from '../errors.ts'
import { LOG_INFO, LOG_WARNING } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { TcpConnection, TcpHandlers } from '../runtime.ts'
import { StartViews } from '../view-cache.ts'
import { HeldBytes } from './held-bytes.ts'
import { type Dial, type Dialling, Stream, type StreamHost, type StreamOwner } from './stream.ts'

/** All streams of one driver; the engine's session table bounds their number. */
export class StreamTable implements StreamOwner {
  readonly host: StreamHost
  /** Views of the data written to TCP. */
  readonly views = new StartViews(DATAGRAM_MAX)
  readonly held = new HeldBytes()
  readonly #dialTarget: (dialling: Dialling, handle: number) => Dial
  #streams = new Map<number, Stream>()
  readonly #reported = { toTcp: 0, fromTcp: 0 }
  /** Number of streams whose conv is not known yet. */
  unnamed = 0

  /** @param dialTarget dials the target for a new session, and calls back later */
  constructor(host: StreamHost, dialTarget: (dialling: Dialling, handle: number) => Dial) {
    this.host = host
    this.#dialTarget = dialTarget
  }

  /** Reports the bytes held outside the engine to it, if they changed. */
  report(): void {
    const { countedToTcp: toTcp, countedFromTcp: fromTcp } = this.held
    const reported = this.#reported
    if (toTcp === reported.toTcp && fromTcp === reported.fromTcp) return
    reported.toTcp = toTcp
    reported.fromTcp = fromTcp
    this.host.core.calls.set_host_bytes(toTcp, fromTcp)
  }

  /** A fresh engine starts with no bytes reported. */
  engineReplaced(): void {
    this.#reported.toTcp = 0
    this.#reported.fromTcp = 0
  }

  get size(): number {
    return this.#streams.size
  }

  has(stream: Stream): boolean {
    return this.#streams.get(stream.handle) === stream
  }

  forget(handle: number): void {
    const stream = this.#streams.get(handle)
    if (stream === undefined) return
    this.#streams.delete(handle)
    if (stream.conv === 0) this.unnamed--
  }

  /** Name of a stream in the log. */
  label(handle: number): string {
    return this.#streams.get(handle)?.label ?? `[stream:${handle}]`
  }

  /** Peer of a stream's session, for the log. */
  peerOf(handle: number): SocketAddress | undefined {
    return this.#streams.get(handle)?.peer
  }

  /** The other end of the TCP connection of a stream, if it is known. */
  remoteOf(handle: number): string | undefined {
    return this.#streams.get(handle)?.remote
  }

  setPeer(handle: number, peer: SocketAddress | undefined): void {
    const stream = this.#streams.get(handle)
    if (stream !== undefined) stream.peer = peer
  }

  /** Sets the conv and peer of a stream, taken from its first datagram, and the name of the peer's key. */
  name(handle: number, conv: number, peer: SocketAddress, user: string | undefined): void {
    const stream = this.#streams.get(handle)
    if (stream === undefined || stream.conv !== 0) return
    stream.conv = conv
    stream.peer = peer
    stream.user = user
    this.unnamed--
    if (this.host.log.at(LOG_INFO)) this.host.log.info(`${stream.label} session opened`)
  }

  /**
   * Client: opens a session for an incoming connection.
   * @returns its handlers, or null to refuse it (protocol.md 6.2)
   */
  accept(connection: TcpConnection): TcpHandlers | null {
    const { host } = this
    if (host.dead) return null
    try {
      const handle = host.core.calls.stream_open(host.now())
      host.core.refresh()
      if (handle <= 0) {
        host.diagnostics.refused(refusal(handle))
        return null
      }
      host.diagnostics.accepted()
      const stream = this.#add(handle)
      stream.attach(connection)
      host.wakeLate()
      return stream
    } catch (error) {
      host.caught(error)
      return null
    }
  }

  /** Handles one event of the engine. If a stream throws, only that stream is aborted. */
  handle(type: number, handle: number, arg: number): void {
    if (type === EventType.DIAL) {
      this.#dial(handle)
      return
    }
    const stream = this.#streams.get(handle)
    if (stream === undefined) return
    try {
      switch (type) {
        case EventType.READABLE:
          stream.flush()
          break
        case EventType.WRITABLE:
          stream.refill()
          break
        case EventType.EOF:
          stream.endWrite()
          break
        case EventType.OPENED:
          stream.onAnswered()
          break
        case EventType.ABORT:
          this.forget(handle)
          this.host.log.limited('abort', LOG_WARNING, () => `${stream.label} aborted: ${abortReason(arg)}`)
          stream.release(true, abortReason(arg))
          break
        case EventType.DETACH:
          this.forget(handle)
          if (this.host.log.at(LOG_INFO)) this.host.log.info(`${stream.label} session closed`)
          stream.release(false)
          break
        default:
          break
      }
    } catch (error) {
      this.broken(stream, error)
    }
  }

  /** A stream threw: aborts it in the engine and resets its TCP connection. */
  broken(stream: Stream, error: unknown): void {
    if (this.host.caught(error)) return
    try {
      if (this.has(stream)) {
        this.forget(stream.handle)
        this.host.core.calls.stream_abort(stream.handle, this.host.now())
        this.host.wake()
      }
      stream.release(true)
    } catch (second) {
      this.host.caught(second)
    }
  }

  /** Resets every connection without calling the engine: it trapped, or the driver is closing. */
  abortAll(): void {
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    this.unnamed = 0
    this.views.clear()
    for (const stream of streams) {
      try {
        stream.release(true)
      } catch (error) {
        this.host.log.error(`${stream.label} ${messageOf(error)}`)
      }
    }
  }

  #add(handle: number): Stream {
    const stream = new Stream(this, handle)
    this.#streams.set(handle, stream)
    this.unnamed++
    return stream
  }

  #dial(handle: number): void {
    const { host } = this
    const stream = this.#add(handle)
    host.diagnostics.counters.tcp_dials++
    try {
      stream.setDial(this.#dialTarget(stream, handle))
    } catch (error) {
      stream.onFailed(toError(error))
    }
  }
}

function abortReason(code: number): string {
  return ABORT_REASON_TEXTS[code] ?? `reason ${code}`
}

function refusal(code: number): string {
  switch (code) {
    case ErrorCode.NO_PEER:
      return 'no peer yet'
    case ErrorCode.SESSIONS:
      return 'too many sessions, or too many half-open sessions (max_sessions)'
    case ErrorCode.MEMORY:
      return 'out of memory'
    default:
      return `engine error ${code}`
  }
}
