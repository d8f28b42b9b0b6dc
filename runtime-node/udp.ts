/**
 * UDP on node:dgram. libuv reads up to 32 datagrams per wake-up and emits them one by one. An immediate, armed at the
 * first one, runs after the last one and marks the end of the batch.
 */

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { toError } from '../host/errors.ts'
import { applyBuffers, type BufferCalls, openWithOptions } from '../host/linux/socket-options.ts'
import type { SocketAddress } from '../host/net/address.ts'
import { DestinationCache, SourceCache } from '../host/net/native-address.ts'
import type { UdpHandlers, UdpOptions, UdpSocket } from '../host/runtime.ts'
import { spelling } from '../runtime-shared/platform.ts'
import { hasReusePort, syscalls } from './ffi.ts'

/** Most outgoing datagrams in flight: libuv holds each buffer until its callback. */
const SEND_BUFFERS = 512
/** Size of a send buffer: slightly more than the payload of an Ethernet frame. */
const SEND_BUFFER_BYTES = 1536
/** Linux reports twice the granted size (socket(7)). */
const BUFFER_FACTOR = process.platform === 'linux' ? 2 : 1

type LookupCallback = (error: NodeJS.ErrnoException | null, address: string, family: number) => void

/** Lookup function for literal addresses; avoids a detour through the thread pool for each datagram. */
function lookup(hostname: string, options: unknown, callback: LookupCallback): void {
  callback(null, hostname, typeof options === 'number' ? options : 0)
}

class NodeUdpSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly #socket: Socket
  readonly #handlers: UdpHandlers
  readonly #connected: boolean
  readonly #sources: SourceCache
  readonly #destinations: DestinationCache
  readonly #free: Uint8Array[] = []
  /** Send callback of each buffer, created once. */
  readonly #callbacks = new Map<Uint8Array, (error: Error | null) => void>()
  #starved = false
  #batchOpen = false
  #closed = false

  constructor(socket: Socket, options: UdpOptions, handlers: UdpHandlers) {
    const bound = socket.address()
    this.local = spelling.read(bound.address, bound.port, options.bind.scope)
    this.#socket = socket
    this.#handlers = handlers
    this.#connected = options.connect !== undefined
    this.#sources = new SourceCache(spelling, options.bind.scope)
    this.#destinations = new DestinationCache(spelling, options.bind.family)
    socket.on('message', (data, from) => this.#onMessage(data, from))
    socket.on('error', (error) => this.#onError(error))
  }

  acquire(): Uint8Array | null {
    const buffer = this.#free.pop()
    if (buffer !== undefined) return buffer
    if (this.#callbacks.size === SEND_BUFFERS) {
      this.#starved = true
      return null
    }
    const fresh = new Uint8Array(SEND_BUFFER_BYTES)
    this.#callbacks.set(fresh, (error) => this.#onSent(fresh, error))
    return fresh
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const sent = this.#callbacks.get(buffer)
    if (sent === undefined || this.#closed) return
    try {
      if (this.#connected) this.#socket.send(buffer, 0, length, sent)
      else this.#socket.send(buffer, 0, length, to.port, this.#destinations.get(to), sent)
    } catch (error) {
      // dgram throws for unsendable datagrams, such as to port 0 of a forged source address
      process.nextTick(sent, toError(error))
    }
  }

  /** No-op: each datagram was passed to libuv at once. */
  flush(): void {}

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
  }

  #onMessage(data: Uint8Array, from: RemoteInfo): void {
    if (this.#closed) return
    if (!this.#batchOpen) {
      this.#batchOpen = true
      setImmediate(this.#onBatchEnd)
    }
    this.#handlers.onDatagram(data, this.#sources.get(from.address, from.port))
  }

  readonly #onBatchEnd = (): void => {
    this.#batchOpen = false
    if (!this.#closed) this.#handlers.onBatchEnd()
  }

  #onSent(buffer: Uint8Array, error: Error | null): void {
    this.#free.push(buffer)
    if (this.#closed) return
    if (error) this.#handlers.onError(error)
    if (!this.#starved || this.#free.length < SEND_BUFFERS / 2 || this.#closed) return
    this.#starved = false
    this.#handlers.onWritable()
  }

  #onError(error: Error): void {
    if (!this.#closed) this.#handlers.onError(error)
  }
}

/** dgram's own buffer calls, which need no FFI. */
function bufferCalls(socket: Socket): BufferCalls {
  return {
    set: (option, bytes) => (option === 'sndbuf' ? socket.setSendBufferSize(bytes) : socket.setRecvBufferSize(bytes)),
    get: (option) => (option === 'sndbuf' ? socket.getSendBufferSize() : socket.getRecvBufferSize()) / BUFFER_FACTOR,
  }
}

/**
 * Binds a UDP socket, and connects it if `options.connect` is given.
 * Rejects with the error of bind or connect (EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, ...).
 */
export async function openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { bind, connect, socketOptions } = options
  const fd = openWithOptions(syscalls, 'udp', bind, socketOptions, hasReusePort)
  const reusePort = fd === undefined && socketOptions?.reuseport === true && hasReusePort
  return new Promise((resolve, reject) => {
    const type = bind.family === 6 ? 'udp6' : 'udp4'
    // Node 20 ignores this option
    const socket = createSocket({ type, lookup, ...(reusePort && { reusePort }) })
    const fail = (error: Error): void => {
      socket.close()
      reject(error)
    }
    const open = (): void => {
      socket.off('error', fail)
      resolve(new NodeUdpSocket(socket, options, handlers))
    }
    socket.once('error', fail)
    const where = fd === undefined ? { address: spelling.write(bind), port: bind.port } : { fd }
    socket.bind({ ...where, exclusive: true }, () => {
      if (socketOptions !== undefined) applyBuffers(socketOptions, () => bufferCalls(socket))
      if (connect === undefined) return open()
      socket.connect(connect.port, spelling.writeFor(bind.family, connect), (error?: Error) =>
        error ? fail(error) : open(),
      )
    })
  })
}
