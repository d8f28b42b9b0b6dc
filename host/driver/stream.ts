/**
 * One TCP connection and its session. From TCP to the engine, back-pressure is applied by pause and resume; from the
 * engine to TCP, by consuming only what the socket accepted (protocol.md 6.5).
 */

import { type Core, DATAGRAM_MAX, ErrorCode, Span } from '../engine/core.ts'
import type { SystemError } from '../errors.ts'
import { formatConv } from '../format.ts'
import { LOG_DEBUG, LOG_INFO, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import { unixText } from '../net/unix-path.ts'
import type { Runtime, TcpConnection, TcpHandlers } from '../runtime.ts'
import type { StartViews } from '../view-cache.ts'
import type { Diagnostics } from './diagnostics.ts'
import type { HeldBytes } from './held-bytes.ts'

/** Maximum bytes copied to TCP in one write. */
const WRITE_MAX = 65536

/** The part of the driver used by streams. */
export interface StreamHost {
  readonly core: Core
  readonly runtime: Runtime
  readonly log: Log
  readonly diagnostics: Diagnostics
  readonly dead: boolean
  /** Current time of the engine's clock. */
  now(): number
  /** conv of a session, 0 if it is gone. Slow. */
  convOf(handle: number): number
  userOf(handle: number): string | undefined
  /** Schedules a drain after the events of this event-loop turn. */
  wake(): void
  /** Schedules a drain one turn later than wake(): data is likely to follow and can share the first datagram. */
  wakeLate(): void
  /**
   * Handles an exception thrown by a callback.
   * @returns whether no engine may be called any more
   */
  caught(error: unknown): boolean
}

/** The part of the stream table used by a stream. */
export interface StreamOwner {
  readonly host: StreamHost
  /** Views of the data written to TCP. */
  readonly views: StartViews
  readonly held: HeldBytes
  has(stream: Stream): boolean
  forget(handle: number): void
  /** A stream threw: aborts this stream only. */
  broken(stream: Stream, error: unknown): void
}

/** A connection that is being established. Exactly one of these is called, unless the dial is cancelled. */
export interface Dialling {
  /** Established. Its handlers are to be set at once. */
  onOpen(connection: TcpConnection): void
  onFailed(error: SystemError): void
}

/** Handle of a dial. */
export interface Dial {
  /** Gives up; nothing is called afterwards. */
  cancel(): void
}

/** What the owner of a driver decides about TCP connections. */
export interface TcpPolicy {
  /** Server: dials the target for a DIAL event of the stream `handle`. Calls back later, or throws. */
  dial(dialling: Dialling, handle: number): Dial
  /** Client: whether connections are held briefly and then reset while the peer is silent. */
  limitsAdmission?(): boolean
}

/** One TCP connection and its session. */
export class Stream implements TcpHandlers, Dialling {
  readonly handle: number
  /** conv of the session, 0 until its first datagram is sent; for the log only. */
  conv = 0
  /** Destination of the session's first datagram; for the log only. */
  peer: SocketAddress | undefined
  /** Name of the peer's key, if there are several; for the log only. */
  user: string | undefined
  #table: StreamOwner
  #connection: TcpConnection | null = null
  /** Set while there is no connection yet. */
  #dial: Dial | undefined
  /** The connection is established: dialled or accepted. */
  #open = false
  /** Bytes that did not fit into the engine. TCP reading is paused while there are any. */
  #kept: Uint8Array | null = null
  /** FIN was received from TCP. */
  #readEnded = false
  /** EOF was received from the peer. */
  #writeEnded = false
  /** The last write was partial: wait for onDrain. */
  #full = false

  constructor(table: StreamOwner, handle: number) {
    this.#table = table
    this.handle = handle
  }

  get held(): HeldBytes {
    return this.#table.held
  }

  /** The other end of the connection: the application, or the target; undefined while there is none. */
  get remote(): string | undefined {
    return this.#connection === null ? undefined : remoteText(this.#connection)
  }

  get label(): string {
    const user = this.user === undefined ? '' : ` ${this.user}`
    return this.conv === 0 ? `[stream:${this.handle}]` : `[session:${formatConv(this.conv)}${user}]`
  }

  /** The label also of a session that has sent nothing yet. Slow. */
  #fullLabel(): string {
    const conv = this.conv === 0 ? this.#table.host.convOf(this.handle) : this.conv
    if (conv === 0) return this.label
    const user = this.user ?? this.#table.host.userOf(this.handle)
    return `[session:${formatConv(conv)}${user === undefined ? '' : ` ${user}`}]`
  }

  /** Sets the connection that was accepted. */
  attach(connection: TcpConnection): void {
    this.#connection = connection
    this.#established()
  }

  /** The target is being dialled. */
  setDial(dial: Dial): void {
    this.#dial = dial
  }

  #established(): void {
    this.#open = true
    const limit = this.#connection?.unsentLimit
    if (limit !== undefined) this.#table.host.core.calls.stream_limit_unsent(this.handle, limit)
    this.#connection?.resume()
  }

  /** The dial succeeded. */
  onOpen(connection: TcpConnection): void {
    this.#dial = undefined
    if (!this.#alive()) {
      connection.reset()
      return
    }
    const { host } = this.#table
    try {
      if (host.log.at(LOG_DEBUG)) host.log.debug(`${this.label} connected to ${remoteText(connection) ?? 'the target'}`)
      this.#connection = connection
      connection.attach(this)
      host.core.calls.stream_connected(this.handle, 1, host.now())
      this.#established()
      this.flush()
      if (this.#writeEnded) this.#connection?.end()
      host.wake()
    } catch (error) {
      this.#broken(error)
    }
  }

  /** The dial failed. The log has the reason; the peer only sees EOF (protocol.md 6.3). */
  onFailed(error: SystemError): void {
    this.#dial = undefined
    if (!this.#alive()) return
    const { host } = this.#table
    try {
      host.diagnostics.counters.tcp_dial_failures++
      host.log.limited('dial', LOG_WARNING, () => `${this.#fullLabel()} dial failed: ${error.message}`)
      this.#table.forget(this.handle)
      host.core.calls.stream_connected(this.handle, 0, host.now())
      host.wake()
    } catch (caught) {
      this.#broken(caught)
    }
  }

  onData(chunk: Uint8Array): void {
    if (!this.#alive()) return
    const { host } = this.#table
    try {
      if (this.#kept === null) {
        const taken = this.#push(chunk)
        if (taken < chunk.length) {
          // the chunk is valid only during this call, so the rest is copied; slice() of a Buffer would not do that
          this.#keep(new Uint8Array(chunk.subarray(taken)))
          this.#connection?.pause()
        }
      } else {
        // data after pause(): the runtime had already read it
        const joined = new Uint8Array(this.#kept.length + chunk.length)
        joined.set(this.#kept)
        joined.set(chunk, this.#kept.length)
        this.#keep(joined)
      }
      host.wake()
    } catch (error) {
      this.#broken(error)
    }
  }

  onEnd(): void {
    if (!this.#alive() || this.#readEnded) return
    const { host } = this.#table
    try {
      this.#readEnded = true
      if (this.#kept === null) host.core.calls.stream_shutdown(this.handle, host.now())
      host.wake()
    } catch (error) {
      this.#broken(error)
    }
  }

  onDrain(): void {
    if (!this.#alive()) return
    try {
      this.#full = false
      this.flush()
      this.#table.host.wake()
    } catch (error) {
      this.#broken(error)
    }
  }

  onReset(): void {
    if (!this.#alive()) return
    const { host } = this.#table
    try {
      this.#connection = null
      this.#table.forget(this.handle)
      this.#keep(null)
      host.core.calls.stream_reset(this.handle, host.now())
      host.wake()
    } catch (error) {
      this.#broken(error)
    }
  }

  onClose(error?: SystemError): void {
    if (!this.#alive()) return
    const { host } = this.#table
    try {
      this.#connection = null
      if (error !== undefined || !this.#readEnded || !this.#writeEnded) {
        if (host.log.at(LOG_INFO)) host.log.info(`${this.label} TCP connection lost: ${error?.message ?? 'closed'}`)
        this.#table.forget(this.handle)
        this.#keep(null)
        host.core.calls.stream_abort(this.handle, host.now())
      }
      host.wake()
    } catch (caught) {
      this.#broken(caught)
    }
  }

  /** READABLE: writes received data to TCP until the engine is empty or the socket is full. */
  flush(): void {
    const { host } = this.#table
    const { core } = host
    // terminates: each iteration consumes bytes of the receive window, which is bounded
    while (this.#open && !this.#full) {
      const connection = this.#connection
      if (connection === null) return
      const count = core.calls.stream_peek(this.handle)
      if (count <= 0) return
      core.refresh()
      const buffer = connection.writeBuffer()
      // views are DATAGRAM_MAX long, whatever the part: leave room for the last one
      const limit = Math.min(Math.min(buffer.length, WRITE_MAX) - DATAGRAM_MAX, this.#table.held.queueLimit)
      const { u8, u32, spanWord } = core
      let length = 0
      for (let i = 0; i < count && length < limit; i++) {
        const ptr = u32[spanWord + i * Span.WORDS + Span.ptr] ?? 0
        const part = Math.min(u32[spanWord + i * Span.WORDS + Span.length] ?? 0, limit - length)
        buffer.set(this.#table.views.at(u8, ptr), length)
        length += part
      }
      if (length === 0) return
      const taken = connection.write(buffer, length)
      if (taken > 0) core.calls.stream_consume(this.handle, taken, host.now())
      if (taken < length) this.#full = true
    }
  }

  /** WRITABLE: passes the kept bytes to the engine. */
  refill(): void {
    const kept = this.#kept
    if (kept === null) return
    const { host } = this.#table
    const taken = this.#push(kept)
    if (taken < kept.length) {
      this.#keep(kept.subarray(taken))
      return
    }
    this.#keep(null)
    if (this.#readEnded) host.core.calls.stream_shutdown(this.handle, host.now())
    else this.#connection?.resume()
  }

  /** EOF: the peer has sent everything. */
  endWrite(): void {
    this.#writeEnded = true
    if (this.#open) this.#connection?.end()
  }

  /** The peer answered the session for the first time. */
  onAnswered(): void {
    this.#connection?.onAnswered?.()
  }

  /**
   * Closes the TCP connection, with RST if `abort`. The handle is released by the engine or by the caller.
   * @param reason why it is aborted
   */
  release(abort: boolean, reason?: string): void {
    this.#dial?.cancel()
    this.#dial = undefined
    const connection = this.#connection
    this.#connection = null
    this.#keep(null)
    if (connection === null) return
    if (abort) connection.reset(reason)
    else connection.close()
  }

  #keep(bytes: Uint8Array | null): void {
    this.#table.held.fromTcp += (bytes?.length ?? 0) - (this.#kept?.length ?? 0)
    this.#kept = bytes
  }

  #alive(): boolean {
    return !this.#table.host.dead && this.#table.has(this)
  }

  /**
   * Copies bytes into the engine until it is full.
   * @returns number of bytes accepted
   */
  #push(chunk: Uint8Array): number {
    const { core } = this.#table.host
    if (chunk.length <= core.ioCapacity) return this.#pushPart(chunk)
    for (let offset = 0; offset < chunk.length; offset += core.ioCapacity) {
      const part = chunk.subarray(offset, offset + core.ioCapacity)
      const taken = this.#pushPart(part)
      if (taken < part.length) return offset + taken
    }
    return chunk.length
  }

  /** #push for a chunk that fits into the engine's I/O block. Copies from that block need no views. */
  #pushPart(chunk: Uint8Array): number {
    const { host } = this.#table
    const { core } = host
    const { length } = chunk
    core.refresh()
    core.u8.set(chunk, core.ioPtr)
    let offset = 0
    while (offset < length) {
      const count = core.calls.stream_reserve(this.handle, length - offset)
      if (count <= 0) {
        // data for a released handle is discarded: ABORT or DETACH follows
        return count === ErrorCode.HANDLE ? length : offset
      }
      core.refresh()
      const { u8, u32, spanWord } = core
      const begin = offset
      for (let i = 0; i < count && offset < length; i++) {
        const ptr = u32[spanWord + i * Span.WORDS + Span.ptr] ?? 0
        const part = Math.min(u32[spanWord + i * Span.WORDS + Span.length] ?? 0, length - offset)
        u8.copyWithin(ptr, core.ioPtr + offset, core.ioPtr + offset + part)
        offset += part
      }
      if (offset === begin) return offset
      core.calls.stream_commit(this.handle, offset - begin, host.now())
    }
    return offset
  }

  /** A callback threw: aborts this stream only. */
  #broken(error: unknown): void {
    this.#table.broken(this, error)
  }
}

const remoteText = ({ remote, path }: TcpConnection): string | undefined =>
  path !== undefined ? unixText(path) : remote && formatAddress(remote)
