/**
 * UDP on Bun.udpSocket. Bun reads in batches and calls back once for each datagram. An immediate, armed at the first
 * one, runs after the last one and marks the end of the batch. Outgoing datagrams are queued in an array until flush(),
 * which passes them to the kernel by one sendMany.
 *
 * sendMany may stop early: at a full socket buffer, at a datagram that the kernel rejects, and at a pending ICMP error.
 * send() of the next datagram shows which of these it was.
 */

import type { udp } from 'bun'
import { toError } from '../host/errors.ts'
import { applyBuffers, descriptorBuffers, descriptorOf, openWithOptions } from '../host/linux/socket-options.ts'
import type { SocketAddress } from '../host/net/address.ts'
import { DestinationCache, SourceCache } from '../host/net/native-address.ts'
import type { SocketOptions, UdpHandlers, UdpOptions, UdpSocket } from '../host/runtime.ts'
import { spelling } from '../runtime-shared/platform.ts'
import { syscalls } from './ffi.ts'

/** Most outgoing datagrams waiting for flush() or for room in the socket buffer. */
const SEND_BUFFERS = 512
/** Size of a send buffer: slightly more than the payload of an Ethernet frame. */
const SEND_BUFFER_BYTES = 1536
/** Retry interval while the socket buffer is full, ms, in case `drain` is not emitted (ENOBUFS has no event). */
const RETRY_MS = 10

/** A buffer from acquire(). `view` is the part last sent: most datagrams of a flow have one length. */
interface Slot {
  readonly buffer: Uint8Array
  view: Uint8Array
}

/** Common interface to Bun's connected and unconnected sockets. */
interface Sender {
  /** Entries of the sendMany array for one datagram. */
  readonly stride: number
  send(queue: readonly (Uint8Array | number | string)[], at: number): boolean
  sendMany(queue: readonly (Uint8Array | number | string)[]): number
}

class BunUdpSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly #socket: udp.BaseUDPSocket
  readonly #sender: Sender
  readonly #handlers: UdpHandlers
  readonly #sources: SourceCache
  readonly #destinations: DestinationCache
  readonly #slots = new Map<Uint8Array, Slot>()
  readonly #free: Uint8Array[] = []
  /** Waiting datagrams: `stride` entries for each of #queued. */
  readonly #queue: (Uint8Array | number | string)[] = []
  readonly #queued: Uint8Array[] = []
  #retry: ReturnType<typeof setTimeout> | undefined
  #starved = false
  #batchOpen = false
  #closed = false

  constructor(socket: udp.BaseUDPSocket, sender: Sender, options: UdpOptions, handlers: UdpHandlers) {
    // Bun reports no zones: link-local peers have a scope only if the socket is bound or connected to one interface
    const scope = options.bind.scope || (options.connect?.scope ?? 0)
    this.local = spelling.read(socket.address.address, socket.address.port, scope)
    this.#sources = new SourceCache(spelling, scope)
    this.#socket = socket
    this.#sender = sender
    this.#handlers = handlers
    this.#destinations = new DestinationCache(spelling, options.bind.family)
  }

  acquire(): Uint8Array | null {
    const buffer = this.#free.pop()
    if (buffer !== undefined) return buffer
    if (this.#slots.size === SEND_BUFFERS) {
      this.flush()
      const flushed = this.#free.pop()
      this.#starved = flushed === undefined
      return flushed ?? null
    }
    const fresh = new Uint8Array(SEND_BUFFER_BYTES)
    this.#slots.set(fresh, { buffer: fresh, view: fresh })
    return fresh
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const slot = this.#slots.get(buffer)
    if (slot === undefined || this.#closed) return
    if (slot.view.length !== length) slot.view = buffer.subarray(0, length)
    if (this.#sender.stride === 1) this.#queue.push(slot.view)
    else this.#queue.push(slot.view, to.port, this.#destinations.get(to))
    this.#queued.push(buffer)
  }

  sendLarge(data: Uint8Array, to: SocketAddress): void {
    if (this.#closed) return
    try {
      this.#sender.send(this.#sender.stride === 1 ? [data] : [data, to.port, this.#destinations.get(to)], 0)
    } catch (reason) {
      queueMicrotask(() => this.error(toError(reason)))
    }
  }

  flush(): void {
    // while the socket buffer is full, drain() transmits
    if (this.#closed || this.#retry !== undefined) return
    this.#transmit()
    if (this.#starved && this.#free.length >= SEND_BUFFERS / 2) setImmediate(this.#onWritable)
  }

  keepAlive(isKept: boolean): void {
    if (isKept) this.#socket.ref()
    else this.#socket.unref()
  }

  close(): void {
    if (this.#closed) return
    this.flush()
    this.#closed = true
    clearTimeout(this.#retry)
    this.#socket.close()
  }

  /** Retries: the socket buffer may have room again. */
  readonly drain = (): void => {
    if (this.#closed || this.#retry === undefined) return
    clearTimeout(this.#retry)
    this.#retry = undefined
    this.#transmit()
    this.#onWritable()
  }

  receive(data: Uint8Array, port: number, address: string): void {
    if (this.#closed) return
    if (!this.#batchOpen) {
      this.#batchOpen = true
      setImmediate(this.#onBatchEnd)
    }
    this.#handlers.onDatagram(data, this.#sources.get(address, port))
  }

  error(error: NodeJS.ErrnoException): void {
    if (!this.#closed) this.#handlers.onError(error)
  }

  readonly #onBatchEnd = (): void => {
    this.#batchOpen = false
    if (!this.#closed) this.#handlers.onBatchEnd()
  }

  readonly #onWritable = (): void => {
    if (!this.#starved || this.#free.length < SEND_BUFFERS / 2 || this.#closed) return
    this.#starved = false
    this.#handlers.onWritable()
  }

  /** Passes everything queued to the kernel, as far as its buffer has room. */
  #transmit(): void {
    const { stride } = this.#sender
    while (this.#queued.length > 0 && !this.#closed) {
      let sent = 0
      try {
        sent = this.#sender.sendMany(this.#queue)
      } catch {
        // send() below reports the datagram and the reason
      }
      if (sent < this.#queued.length) {
        if (this.#sendOne(sent * stride)) sent += 1
        else this.#retry = setTimeout(this.drain, RETRY_MS)
      }
      this.#forget(sent)
      if (this.#retry !== undefined) return
    }
  }

  /** Removes the first `count` datagrams from the queue. */
  #forget(count: number): void {
    const queued = this.#queued
    if (count === queued.length) {
      for (const buffer of queued) this.#free.push(buffer)
      queued.length = 0
      this.#queue.length = 0
    } else {
      for (const buffer of queued.splice(0, count)) this.#free.push(buffer)
      this.#queue.splice(0, count * this.#sender.stride)
    }
  }

  /**
   * Sends one datagram. One that the kernel rejects is dropped and reported.
   * @returns false if the socket buffer is full
   */
  #sendOne(at: number): boolean {
    try {
      return this.#sender.send(this.#queue, at)
    } catch (reason) {
      // never inside the caller's flush()
      queueMicrotask(() => this.error(toError(reason)))
      return true
    }
  }
}

type Data = Uint8Array<ArrayBuffer>

function tune(socket: udp.BaseUDPSocket, socketOptions: SocketOptions | undefined): void {
  if (socketOptions === undefined) return
  applyBuffers(socketOptions, () => {
    const calls = syscalls()
    const fd = descriptorOf(socket)
    if (fd === undefined) throw new Error('Bun does not expose the descriptor of the socket')
    return descriptorBuffers(calls, fd)
  })
}

/**
 * Binds a UDP socket, and connects it if `options.connect` is given.
 * Rejects with the error of bind or connect (EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, ...).
 */
export async function openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
  const { bind, connect, socketOptions } = options
  const fd = openWithOptions(syscalls, 'udp', bind, socketOptions, false)
  let own: BunUdpSocket | undefined
  // Bun 1.4 adopts a descriptor, though its reference does not list the option
  const where = fd === undefined ? { hostname: spelling.write(bind), port: bind.port } : { fd }
  const local = { ...where, binaryType: 'uint8array' as const }
  const socket = {
    data: (_: unknown, data: Data, port: number, address: string) => own?.receive(data, port, address),
    drain: () => own?.drain(),
    // Bun 1.4 passes only the error; its documentation lists socket and error
    error: (...reasons: unknown[]) => own?.error(toError(reasons.find((reason) => reason instanceof Error))),
  }
  if (connect === undefined) {
    const opened = await Bun.udpSocket<'uint8array'>({ ...local, socket })
    tune(opened, socketOptions)
    const sender: Sender = {
      stride: 3,
      send: (queue, at) => opened.send(queue[at] as Data, queue[at + 1] as number, queue[at + 2] as string),
      sendMany: (queue) => opened.sendMany(queue as (Data | number | string)[]),
    }
    own = new BunUdpSocket(opened, sender, options, handlers)
  } else {
    const remote = { hostname: spelling.writeFor(bind.family, connect), port: connect.port }
    const opened = await Bun.udpSocket<'uint8array'>({ ...local, connect: remote, socket })
    tune(opened, socketOptions)
    const sender: Sender = {
      stride: 1,
      send: (queue, at) => opened.send(queue[at] as Data),
      sendMany: (queue) => opened.sendMany(queue as Data[]),
    }
    own = new BunUdpSocket(opened, sender, options, handlers)
  }
  return own
}
