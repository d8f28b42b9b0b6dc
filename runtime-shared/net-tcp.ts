/**
 * TCP on node:net, for Node and Deno, with half-close in both directions. A net.Socket queues writes without limit; write() limits the
 * queue, so that back-pressure works. The driver interprets the data and decides when to close.
 *
 * Accept errors (EMFILE, ENFILE): libuv accepts and closes the excess connection with a spare descriptor, reports the
 * error and continues to accept, so no pause is needed. A reset received while reading is paused is reported at the
 * next write or resume().
 */

import { type AddressInfo, connect, createServer, type ListenOptions, type OnReadOpts, Socket } from 'node:net'
import { NotAvailable, systemError, toError } from '../host/errors.ts'
import { applyBuffers, descriptorBuffers, descriptorOf, openWithOptions } from '../host/linux/socket-options.ts'
import type { Syscalls } from '../host/linux/syscalls.ts'
import type { SocketAddress } from '../host/net/address.ts'
import type {
  OperatingSystem,
  QueuedBytes,
  Runtime,
  SocketOptions,
  TcpConnection,
  TcpHandlers,
  TcpListener,
  TcpOptions,
} from '../host/runtime.ts'
import { spelling } from './platform.ts'

/** Size of a buffer from writeBuffer(). */
const WRITE_BUFFER_BYTES = 65536
/** Size of the shared read buffer. */
const READ_BUFFER_BYTES = 65536
/** Write buffers kept for reuse after libuv has released them; more are garbage collected. */
const SPARE_WRITE_BUFFERS = 16
/** Writes below this size are copied, so that a slow reader does not hold a nearly empty buffer. */
const COPY_BELOW_BYTES = 16384
/** Default limit of a connection's write queue in Node, bytes. */
const WRITE_QUEUE_BYTES = 262144
/**
 * How long a closed connection keeps reading and dropping data, ms: the kernel would answer unread bytes with RST (RFC
 * 1122, 4.2.2.13).
 */
const LINGER_MS = 5000
/** Listen backlog: Linux's default limit (net.core.somaxconn). Beyond it a client retries its SYN after 1 s. */
const BACKLOG = 4096
/** Listen backlog of an adopted listener (protocol.md 9.2); net ignores its own option for a descriptor. */
const ADOPTED_BACKLOG = 16

const NOTHING = new Uint8Array(0)

/** What the sockets of `node:*` modules require of their runtime. */
export interface SocketCalls {
  /** @throws NotAvailable */
  syscalls(): Syscalls
  /** Whether dgram and net support the option `reusePort`. */
  readonly hasReusePort: boolean
  /**
   * dgram may reorder sends that were not waited for, its connect() does not filter what arrives, and its calls for
   * buffers set none of the socket (Deno).
   */
  readonly isLooseDgram: boolean
  /** Abstract names of Unix sockets are padded with NULs: no other program finds them. */
  readonly padsAbstract?: boolean
}

const readBuffer = new Uint8Array(READ_BUFFER_BYTES)

let current: WriteBuffer | undefined
const spare: WriteBuffer[] = []

/** A write buffer that returns itself to the spare ones. */
class WriteBuffer {
  readonly bytes = new Uint8Array(WRITE_BUFFER_BYTES)
  owner: NodeConnection | undefined

  /** Write callback. */
  readonly done = (): void => {
    const owner = this.owner
    this.owner = undefined
    if (spare.length < SPARE_WRITE_BUFFERS) spare.push(this)
    owner?.written()
  }
}

export class NodeConnection implements TcpConnection {
  readonly remote: SocketAddress | undefined
  readonly path: string | undefined
  readonly #socket: Socket
  #handlers: TcpHandlers | undefined
  #held: QueuedBytes | undefined
  /** Queued bytes already counted in `#held`. */
  #counted = 0
  #error: NodeJS.ErrnoException | undefined
  #starved = false
  #linger: ReturnType<typeof setTimeout> | undefined

  /** @param path of a Unix socket */
  constructor(socket: Socket, remote: SocketAddress | undefined, path?: string) {
    this.#socket = socket
    this.remote = remote
    this.path = path
    socket.pause()
    socket.on('data', (chunk) => this.received(chunk))
    socket.on('end', () => this.#onEnd())
    socket.on('error', (error) => {
      this.#error = error
    })
    socket.on('close', () => {
      clearTimeout(this.#linger)
      this.#count(0)
      const handlers = this.#handlers
      this.#handlers = undefined
      handlers?.onClose(this.#error)
    })
  }

  /**
   * libuv 1.46 treats a hang-up after a short read as EOF, so an RST right behind data (or while paused) looks like
   * FIN. An empty write distinguishes them: it fails after an RST and sends nothing after a FIN. Pending writes fail by
   * themselves. After our own FIN the difference cannot be detected.
   */
  #onEnd(): void {
    const socket = this.#socket
    if (socket.destroyed) return
    if (socket.writableEnded || socket.writableLength > 0) {
      this.#handlers?.onEnd()
      return
    }
    socket.write(NOTHING, (error) => {
      if (!error) this.#handlers?.onEnd()
    })
  }

  get local(): SocketAddress | undefined {
    const { localAddress, localPort } = this.#socket
    return localAddress === undefined || localPort === undefined ? undefined : spelling.read(localAddress, localPort)
  }

  received(chunk: Uint8Array): void {
    this.#handlers?.onData(chunk)
  }

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#held = handlers.held
  }

  #count(queued: number): void {
    if (this.#held) this.#held.toTcp += queued - this.#counted
    this.#counted = queued
  }

  get #queueLimit(): number {
    return this.#held?.queueLimit ?? WRITE_QUEUE_BYTES
  }

  writeBuffer(): Uint8Array {
    current ??= spare.pop() ?? new WriteBuffer()
    return current.bytes
  }

  /** Takes all or nothing, so that a buffer never has two owners. */
  write(buffer: Uint8Array, length: number): number {
    const socket = this.#socket
    if (length === 0 || this.#handlers === undefined || socket.destroyed || socket.writableEnded) return 0
    const queued = socket.writableLength
    if (queued > 0 && queued + length > this.#queueLimit) {
      this.#starved = true
      return 0
    }
    if (current !== undefined && buffer === current.bytes && length > COPY_BELOW_BYTES) {
      const taken = current
      current = undefined
      taken.owner = this
      socket.write(length === buffer.length ? buffer : buffer.subarray(0, length), taken.done)
    } else {
      socket.write(buffer.slice(0, length), this.written)
    }
    this.#count(socket.writableLength)
    return length
  }

  /** Write callback: reports room once half of the queue is gone. */
  readonly written = (): void => {
    const queued = this.#socket.writableLength
    if (!this.#socket.destroyed) this.#count(queued)
    if (!this.#starved || queued > this.#queueLimit / 2 || this.#socket.destroyed) return
    this.#starved = false
    this.#handlers?.onDrain()
  }

  pause(): void {
    if (this.#handlers !== undefined) this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  end(): void {
    this.#socket.end()
  }

  reset(): void {
    this.#handlers = undefined
    const socket = this.#socket
    if (socket.destroyed) return
    if (socket.connecting || this.path !== undefined) {
      // a Unix socket cannot be reset
      socket.destroy()
    } else if (socket.writableEnded && !socket.writableFinished && socket.writableLength === 0) {
      // libuv rejects a reset while a shutdown request is pending; that lasts one turn of the loop
      socket.once('finish', () => socket.resetAndDestroy())
    } else {
      socket.resetAndDestroy()
    }
  }

  close(): void {
    this.#handlers = undefined
    const socket = this.#socket
    if (socket.destroyed) return
    if (socket.connecting && socket.writableLength === 0) {
      socket.destroy()
      return
    }
    const linger = (): void => {
      clearTimeout(this.#linger)
      this.#linger = setTimeout(() => socket.destroy(), LINGER_MS)
    }
    if (socket.writableFinished) linger()
    else socket.once('finish', linger)
    socket.end()
    socket.resume()
  }
}

/**
 * Options for reading into one shared buffer. A fresh 64 KiB buffer per read would spend a tenth of all work on garbage
 * collection. node:net has no such option for accepted connections. libuv reads and reports data in one step; on
 * Windows it reads ahead, so a buffer cannot be shared there.
 */
export function reading(connection: () => NodeConnection): { onread?: OnReadOpts } {
  if (process.platform === 'win32') return {}
  const callback = (bytes: number): boolean => {
    connection().received(bytes === readBuffer.length ? readBuffer : readBuffer.subarray(0, bytes))
    return true
  }
  return { onread: { buffer: readBuffer, callback } }
}

/**
 * Dials `address`. `onOpen` or `handlers.onClose(error)` follows, never inside this call.
 * Bytes written before are queued (up to the limit) and sent after the handshake.
 */
function dialTcp(
  calls: SocketCalls,
  address: SocketAddress,
  options: TcpOptions,
  handlers: TcpHandlers,
  onOpen: () => void,
): TcpConnection {
  const socket = connect({
    host: spelling.write(address),
    port: address.port,
    allowHalfOpen: true,
    noDelay: options.nodelay,
    keepAlive: options.keepalive,
    autoSelectFamily: false,
    ...reading(() => connection),
  })
  const connection = new NodeConnection(socket, address)
  connection.attach(handlers)
  onConnect(socket, () => {
    if (options.socketOptions !== undefined) tuneConnection(calls, socket, options.socketOptions)
    onOpen()
  })
  return connection
}

/** Calls back when a dial succeeds, unless the socket was closed before. */
export function onConnect(socket: Socket, onOpen: () => void): void {
  let wanted = true
  socket.once('close', () => {
    wanted = false
  })
  socket.once('connect', () => {
    if (wanted) onOpen()
  })
}

/**
 * Sets the buffers of a dialled connection. After the handshake is early enough: the window scale covers the system's
 * maximum.
 */
function tuneConnection({ syscalls }: SocketCalls, socket: Socket, socketOptions: SocketOptions): void {
  applyBuffers(socketOptions, () => {
    const calls = syscalls()
    const fd = descriptorOf(Reflect.get(socket, '_handle'))
    if (fd === undefined)
      throw new NotAvailable('not available: this runtime does not expose the descriptor of a connection')
    return descriptorBuffers(calls, fd)
  })
}

function remoteOf(socket: Socket): SocketAddress | undefined {
  const { remoteAddress, remotePort } = socket
  return remoteAddress === undefined || remotePort === undefined ? undefined : spelling.read(remoteAddress, remotePort)
}

/** See OperatingSystem.adoptConnection. */
export function adoptConnection(fd: number, handlers: TcpHandlers, onOpen: () => void, path?: string): TcpConnection {
  const socket = new Socket({ fd, allowHalfOpen: true })
  const connection = new NodeConnection(socket, undefined, path)
  connection.attach(handlers)
  let wanted = true
  socket.once('close', () => {
    wanted = false
  })
  // net emits no connect event for a descriptor: an empty write completes once connected, or reports the error
  socket.write(NOTHING, (error) => {
    if (!error && wanted) onOpen()
  })
  return connection
}

/** See OperatingSystem.adoptListener. */
async function adoptListener(
  { syscalls }: SocketCalls,
  fd: number,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  onError: (error: NodeJS.ErrnoException) => void,
): Promise<TcpListener> {
  const listener = await listenInet({ fd }, options, accept, onError)
  syscalls().listen(fd, ADOPTED_BACKLOG)
  return listener
}

/** Listens on `address`. Rejects with the error of bind or listen (EADDRINUSE, EADDRNOTAVAIL, EACCES, ...). */
async function listenTcp(
  { syscalls, hasReusePort }: SocketCalls,
  address: SocketAddress,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  onError: (error: NodeJS.ErrnoException) => void,
): Promise<TcpListener> {
  const fd = openWithOptions(syscalls, 'tcp', address, options.socketOptions, hasReusePort)
  const reusePort = fd === undefined && options.socketOptions?.reuseport === true && hasReusePort
  const where = fd === undefined ? { host: spelling.write(address), port: address.port } : { fd }
  // Node 20 ignores this option
  const listener = await listenInet({ ...where, ...(reusePort && { reusePort }) }, options, accept, onError)
  if (fd !== undefined) syscalls().listen(fd, BACKLOG)
  return listener
}

/** Listens on an IP address. */
async function listenInet(...[where, ...words]: Parameters<typeof listen>): Promise<TcpListener> {
  const { address, ...listener } = await listen(where, ...words)
  if (address === null || typeof address === 'string')
    throw systemError('EINVAL', 'the listener has no address', 'listen')
  return { local: spelling.read(address.address, address.port), ...listener }
}

export function listen(
  where: ListenOptions & { fd?: number },
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  onError: (error: NodeJS.ErrnoException) => void,
  path?: string,
): Promise<Omit<TcpListener, 'local'> & { readonly address: AddressInfo | string | null }> {
  const server = createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
  })
  let closed = false
  server.on('connection', (socket) => {
    try {
      // not as options of createServer: they may change while it listens
      if (options.nodelay) socket.setNoDelay(true)
      if (options.keepalive) socket.setKeepAlive(true)
      const connection = new NodeConnection(socket, remoteOf(socket), path)
      // accepted while the listener was being closed: refused, as the next one will be
      const handlers = closed ? undefined : accept(connection)
      if (handlers === undefined) connection.reset()
      else if (handlers === null) connection.close()
      else connection.attach(handlers)
    } catch (error) {
      // a bug here must not affect other connections
      socket.destroy()
      onError(toError(error))
    }
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ ...where, backlog: BACKLOG, exclusive: true }, () => {
      server.off('error', reject)
      server.on('error', (error) => {
        if (!closed) onError(toError(error))
      })
      resolve({
        address: server.address(),
        close() {
          closed = true
          server.close()
        },
        keepAlive: (isKept) => (isKept ? server.ref() : server.unref()),
      })
    })
  })
}

/** The TCP calls of a runtime. */
export interface NetTcp {
  readonly dialTcp: Runtime['dialTcp']
  readonly listenTcp: Runtime['listenTcp']
  readonly adoptListener: OperatingSystem['adoptListener']
  readonly adoptConnection: OperatingSystem['adoptConnection']
}

export const netTcp = (calls: SocketCalls): NetTcp => ({
  dialTcp: (...words) => dialTcp(calls, ...words),
  listenTcp: (...words) => listenTcp(calls, ...words),
  adoptListener: (...words) => adoptListener(calls, ...words),
  adoptConnection: (fd, handlers, onOpen) => adoptConnection(fd, handlers, onOpen),
})
