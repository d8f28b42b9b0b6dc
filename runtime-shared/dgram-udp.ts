/**
 * UDP on node:dgram, for Node and Deno. libuv reads up to 32 datagrams per wake-up and emits them one by one. An
 * immediate, armed at the first one, runs after the last one and marks the end of the batch.
 *
 * dgram cannot clear IPV6_V6ONLY. Where the system sets it by default, `[::]` is two sockets, one for each family.
 */

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { NotAvailable, toError } from '../host/errors.ts'
import { applyBuffers, type BufferCalls, openWithOptions } from '../host/linux/socket-options.ts'
import type { Syscalls } from '../host/linux/syscalls.ts'
import { type SocketAddress, sameAddress } from '../host/net/address.ts'
import { DestinationCache, isIpv4, SourceCache } from '../host/net/native-address.ts'
import type { Runtime, SocketOptions, UdpHandlers, UdpOptions, UdpSocket } from '../host/runtime.ts'
import type { SocketCalls } from './net-tcp.ts'
import { spelling } from './platform.ts'

/** Most outgoing datagrams in flight: libuv holds each buffer until its callback. */
const SEND_BUFFERS = 512
/** Most datagrams without such a buffer in flight. */
const LARGE_MAX = 64
/** Size of a send buffer: slightly more than the payload of an Ethernet frame. */
const SEND_BUFFER_BYTES = 1536
/** Bytes of a datagram that Deno receives; a longer one is cut, and its tag does not match. */
const LOOSE_RECEIVE_BYTES = 9216
/** Linux reports twice the granted size (socket(7)). */
const BUFFER_FACTOR = process.platform === 'linux' ? 2 : 1

const ANY4 = { family: 4, address: '0.0.0.0' } as const

type LookupCallback = (error: NodeJS.ErrnoException | null, address: string, family: number) => void

/** Lookup function for literal addresses; avoids a detour through the thread pool for each datagram. */
function lookup(hostname: string, options: unknown, callback: LookupCallback): void {
  callback(null, hostname, typeof options === 'number' ? options : 0)
}

/** The socket for the IPv4 datagrams of `[::]`, with the caches of their addresses. */
class Ipv4Side {
  readonly socket: Socket
  readonly sources = new SourceCache(spelling, 0, true)
  readonly destinations = new DestinationCache(spelling, 4)

  constructor(socket: Socket) {
    this.socket = socket
  }
}

/** Sends one after another. */
class SendLine {
  readonly #buffers: Uint8Array[] = []
  readonly #lengths: number[] = []
  readonly #receivers: SocketAddress[] = []
  #inFlight = false

  /** @returns whether the datagram is sent at once; otherwise it waits */
  enter(buffer: Uint8Array, length: number, to: SocketAddress): boolean {
    if (!this.#inFlight) {
      this.#inFlight = true
      return true
    }
    this.#buffers.push(buffer)
    this.#lengths.push(length)
    this.#receivers.push(to)
    return false
  }

  /** The one in flight is sent. */
  next(send: (buffer: Uint8Array, length: number, to: SocketAddress) => void): void {
    const buffer = this.#buffers.shift()
    const length = this.#lengths.shift()
    const to = this.#receivers.shift()
    if (buffer === undefined || length === undefined || to === undefined) this.#inFlight = false
    else send(buffer, length, to)
  }
}

class DgramUdpSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly #socket: Socket
  readonly #ipv4: Ipv4Side | undefined
  readonly #handlers: UdpHandlers
  readonly #connected: boolean
  readonly #sources: SourceCache
  readonly #destinations: DestinationCache
  readonly #free: Uint8Array[] = []
  /** Send callback of each buffer, created once. */
  readonly #callbacks = new Map<Uint8Array, (error: Error | null) => void>()
  /** Where dgram may reorder sends: one is in flight, these wait. */
  readonly #line: SendLine | undefined
  /** The peer of a connected socket, where dgram does not filter. */
  readonly #only: SocketAddress | undefined
  #starved = false
  #batchOpen = false
  #closed = false
  /** Number of copies of large datagrams in flight. */
  #large = 0

  constructor(
    calls: SocketCalls,
    socket: Socket,
    ipv4: Ipv4Side | undefined,
    options: UdpOptions,
    handlers: UdpHandlers,
  ) {
    this.#line = calls.isLooseDgram ? new SendLine() : undefined
    this.#only = calls.isLooseDgram ? options.connect : undefined
    const bound = socket.address()
    this.local = spelling.read(bound.address, bound.port, options.bind.scope)
    this.#socket = socket
    this.#handlers = handlers
    this.#connected = options.connect !== undefined
    this.#sources = new SourceCache(spelling, options.bind.scope)
    this.#destinations = new DestinationCache(spelling, options.bind.family)
    socket.on('message', (data, from) => this.#onMessage(data, from, this.#sources))
    socket.on('error', (error) => this.#onError(error))
    this.#ipv4 = ipv4
    ipv4?.socket.on('message', (data, from) => this.#onMessage(data, from, ipv4.sources))
    ipv4?.socket.on('error', (error) => this.#onError(error))
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
    if (this.#line === undefined || this.#line.enter(buffer, length, to)) this.#pass(buffer, length, to)
  }

  #pass(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const sent = this.#callbacks.get(buffer)
    if (sent === undefined || this.#closed) return
    try {
      this.#sendTo(buffer, length, to, sent)
    } catch (error) {
      // dgram throws for unsendable datagrams, such as to port 0 of a forged source address
      process.nextTick(sent, toError(error))
    }
  }

  #sendTo(buffer: Uint8Array, length: number, to: SocketAddress, sent: (error: Error | null) => void): void {
    const ipv4 = this.#ipv4
    if (this.#connected) this.#socket.send(buffer, 0, length, sent)
    else if (ipv4 !== undefined && isIpv4(to))
      ipv4.socket.send(buffer, 0, length, to.port, ipv4.destinations.get(to), sent)
    else this.#socket.send(buffer, 0, length, to.port, this.#destinations.get(to), sent)
  }

  sendLarge(data: Uint8Array, to: SocketAddress): void {
    if (this.#closed || this.#large >= LARGE_MAX) return
    this.#large++
    const sent = (error: Error | null): void => {
      this.#large--
      if (error && !this.#closed) this.#handlers.onError(error)
    }
    try {
      this.#sendTo(new Uint8Array(data), data.length, to, sent)
    } catch (error) {
      process.nextTick(sent, toError(error))
    }
  }

  /** No-op: each datagram was passed to libuv at once. */
  flush(): void {}

  keepAlive(isKept: boolean): void {
    for (const socket of [this.#socket, this.#ipv4?.socket]) {
      if (isKept) socket?.ref()
      else socket?.unref()
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
    this.#ipv4?.socket.close()
  }

  #onMessage(data: Uint8Array, from: RemoteInfo, sources: SourceCache): void {
    if (this.#closed) return
    const sender = sources.get(from.address, from.port)
    if (this.#only !== undefined && !sameAddress(sender, this.#only)) return
    if (!this.#batchOpen) {
      this.#batchOpen = true
      setImmediate(this.#onBatchEnd)
    }
    this.#handlers.onDatagram(data, sender)
  }

  readonly #onBatchEnd = (): void => {
    this.#batchOpen = false
    if (!this.#closed) this.#handlers.onBatchEnd()
  }

  readonly #passNext = (buffer: Uint8Array, length: number, to: SocketAddress): void => this.#pass(buffer, length, to)

  #onSent(buffer: Uint8Array, error: Error | null): void {
    this.#free.push(buffer)
    if (this.#closed) return
    this.#line?.next(this.#passNext)
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

/** Whether IPv6 sockets do not serve IPv4 by default. */
function isIpv6Only(): boolean {
  try {
    return process.platform === 'linux' && readFileSync('/proc/sys/net/ipv6/bindv6only', 'latin1').startsWith('1')
  } catch {
    return false
  }
}

/**
 * Opens a dgram socket.
 * @param fd a bound descriptor to adopt instead
 * @param isLarge as in UdpOptions
 */
async function openSocket(
  calls: SocketCalls,
  bind: SocketAddress,
  options: SocketOptions | undefined,
  fd?: number,
  isLarge = false,
): Promise<Socket> {
  const reusePort = fd === undefined && options?.reuseport === true && calls.hasReusePort
  // Node 20 ignores the option reusePort
  const socket = createSocket({ type: bind.family === 6 ? 'udp6' : 'udp4', lookup, ...(reusePort && { reusePort }) })
  try {
    const where = fd === undefined ? { address: spelling.write(bind), port: bind.port } : { fd }
    const bound = once(socket, 'listening')
    socket.bind({ ...where, exclusive: true })
    await bound
  } catch (error) {
    socket.close()
    throw error
  }
  // until its owner listens
  socket.on('error', () => {})
  if (calls.isLooseDgram) {
    // not the socket's buffer: Deno allocates and clears so much for each datagram, 64 KiB by default
    if (!isLarge) socket.setRecvBufferSize(LOOSE_RECEIVE_BYTES / BUFFER_FACTOR)
  } else if (options !== undefined) {
    applyBuffers(options, () => bufferCalls(socket))
  }
  return socket
}

async function connectSocket(socket: Socket, family: 4 | 6, remote: SocketAddress): Promise<void> {
  const connected = once(socket, 'connect')
  socket.connect(remote.port, spelling.writeFor(family, remote))
  await connected
}

/** Deno's dgram adopts no descriptor, so system calls cannot set options. @throws NotAvailable */
function notAdopted(calls: SocketCalls): Syscalls {
  calls.syscalls()
  throw new NotAvailable('not available: only with udp.path "fast", Deno\'s own UDP sockets do not have it')
}

async function openUdp(calls: SocketCalls, options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { connect, socketOptions } = options
  const { hasReusePort, isLooseDgram } = calls
  const syscalls = isLooseDgram ? () => notAdopted(calls) : calls.syscalls
  const fd = openWithOptions(syscalls, 'udp', options.bind, socketOptions, hasReusePort, !isLooseDgram)
  if (fd !== undefined && isLooseDgram) notAdopted(calls)
  const needsTwo = fd === undefined && options.bind.address === '::' && isIpv6Only()
  const bind = needsTwo && connect?.family === 4 ? { ...options.bind, ...ANY4 } : options.bind
  const socket = await openSocket(calls, bind, socketOptions, fd, options.isLarge)
  try {
    if (connect !== undefined) await connectSocket(socket, bind.family, connect)
    let ipv4: Ipv4Side | undefined
    if (needsTwo && connect === undefined) {
      const { port } = socket.address()
      ipv4 = new Ipv4Side(
        await openSocket(calls, { ...bind, ...ANY4, port }, socketOptions, undefined, options.isLarge),
      )
    }
    return new DgramUdpSocket(calls, socket, ipv4, { ...options, bind }, handlers)
  } catch (error) {
    socket.close()
    throw error
  }
}

/**
 * Runtime.openUdp in mode portable: binds a UDP socket, and connects it if `options.connect` is given.
 * Rejects with the error of bind or connect (EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, ...).
 */
export const dgramUdp =
  (calls: SocketCalls): Runtime['openUdp'] =>
  (options, handlers) =>
    openUdp(calls, options, handlers)
