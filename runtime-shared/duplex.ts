/** A stream of the library as a Duplex of node:stream, for the runtimes that have it. */

import { Duplex } from 'node:stream'
import { ResetError } from '../host/errors.ts'
import type { Channel, ChannelUser } from '../host/library/channel.ts'

/** Bytes that either direction buffers. */
const BUFFER_BYTES = 65536

/** A reliable encrypted stream: half-open (`allowHalfOpen`), with back-pressure, reset by destroy(). */
export class KcpStream extends Duplex implements ChannelUser {
  /** The peer's address, `host:port`, or its identity in a DatagramTransport. */
  readonly remoteAddress: string | undefined
  readonly #channel: Channel
  #written: ((error?: Error | null) => void) | undefined

  /** @internal */
  constructor(channel: Channel, remoteAddress: string | undefined) {
    super({ allowHalfOpen: true, readableHighWaterMark: BUFFER_BYTES, writableHighWaterMark: BUFFER_BYTES })
    this.remoteAddress = remoteAddress
    this.#channel = channel
    channel.use(this)
  }

  override _read(): void {
    this.#channel.read()
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#channel.send(chunk)) callback()
    else this.#written = callback
  }

  override _final(callback: () => void): void {
    this.#channel.finish()
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    if (!this.#channel.isOver) this.#channel.abort()
    const written = this.#written
    this.#written = undefined
    written?.(error ?? new ResetError('the stream was destroyed'))
    callback(error)
  }

  /** @internal */
  get isEnding(): boolean {
    return this.writableEnded
  }

  /** @internal */
  onOpen(): void {}

  /** @internal */
  onData(chunk: Uint8Array): boolean {
    return this.push(chunk)
  }

  /** @internal */
  onEnd(): void {
    this.push(null)
  }

  /** @internal */
  onWritable(): void {
    const written = this.#written
    this.#written = undefined
    written?.()
  }

  /** @internal */
  onReset(error: Error, isOwn: boolean): void {
    // without an error event, which would need a listener
    this.destroy(isOwn ? undefined : error)
  }
}

/** See Platform.streamOf. */
export const streamOf = (channel: Channel, remoteAddress: string | undefined): KcpStream =>
  new KcpStream(channel, remoteAddress)
