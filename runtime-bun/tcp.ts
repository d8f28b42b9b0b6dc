/**
 * TCP by Bun.listen and Bun.connect, with half-close in both directions. Bun's write() hands bytes to the kernel,
 * queues nothing and returns what was taken, so one buffer serves all connections. What the bytes mean and when to end
 * is the driver's business.
 *
 * What Bun 1.4 does, as seen: close comes without `end` before it when FIN follows our own; data that was received
 * before an RST is delivered even while paused; a dial has no handle before `open`, so one that was given up runs into
 * its end unseen. Accept errors (EMFILE) are not reported: Bun closes the excess connection with a spare descriptor and
 * goes on accepting, so onError of a listener is never called.
 */

import type { Socket, SocketHandler, TCPSocketListener } from 'bun'
import { systemError, toError } from '../host/errors.ts'
import { applyBuffers, descriptorBuffers, descriptorOf, openWithOptions } from '../host/linux/socket-options.ts'
import type { SocketAddress } from '../host/net/address.ts'
import { explained } from '../host/net/native-address.ts'
import type {
  QueuedBytes,
  SocketOptions,
  TcpConnection,
  TcpHandlers,
  TcpListener,
  TcpOptions,
} from '../host/runtime.ts'
import { spelling } from '../runtime-shared/platform.ts'
import { descriptor, syscalls } from './ffi.ts'

/** Bytes of the buffer that all connections share. */
const WRITE_BUFFER_BYTES = 65536
/**
 * How long a closed connection stays to read (and drop) what still comes: the kernel answers unread bytes with RST (RFC
 * 1122, 4.2.2.13).
 */
const LINGER_MS = 5000

/** Pending connections: the most that Linux grants untold (net.core.somaxconn). Those beyond wait a second for another SYN. */
const BACKLOG = 4096
/** Pending connections of an adopted listener (protocol.md 9.2); Bun has its own number. */
const ADOPTED_BACKLOG = 16

/** The options of an adopted connection are its maker's. */
const UNTOUCHED = { nodelay: false, keepalive: false }

const scratch = new Uint8Array(WRITE_BUFFER_BYTES)

type BunSocket = Socket<BunConnection | undefined>

class BunConnection implements TcpConnection {
  remote: SocketAddress | undefined
  readonly #options: TcpOptions
  readonly #scope: number
  #socket: BunSocket | undefined
  #handlers: TcpHandlers | undefined
  /**
   * Chunks that came while paused: at most what one wake-up reads. Bun's arrays are fresh ones, so they can be kept.
   */
  readonly #held: Uint8Array[] = []
  /** Where they are counted. */
  #ledger: QueuedBytes | undefined
  #paused = true
  #starved = false
  /** FIN came; it is reported after the held data. */
  #readEnded = false
  #endDelivered = false
  #writeEnded = false
  /** The socket is gone. */
  #over: { error: NodeJS.ErrnoException | undefined } | undefined
  #delivering = false
  /** reset() or close() was called: nothing is reported any more. */
  #released = false
  #linger: ReturnType<typeof setTimeout> | undefined

  /** `scope`: that of the listener */
  constructor(options: TcpOptions, remote: SocketAddress | undefined, scope: number) {
    this.#options = options
    this.#scope = scope
    this.remote = remote
  }

  attach(handlers: TcpHandlers): void {
    this.#handlers = handlers
    this.#ledger = handlers.held
  }

  #count(bytes: number): void {
    if (this.#ledger) this.#ledger.fromTcp += bytes
  }

  #dropHeld(): void {
    for (const chunk of this.#held) this.#count(-chunk.length)
    this.#held.length = 0
  }

  writeBuffer(): Uint8Array {
    return scratch
  }

  write(buffer: Uint8Array, length: number): number {
    if (length === 0 || this.#released || this.#writeEnded || this.#over !== undefined) return 0
    // -1: the connection is gone and close follows
    const taken = this.#socket === undefined ? 0 : Math.max(0, this.#socket.write(buffer, 0, length))
    if (taken < length) this.#starved = true
    return taken
  }

  pause(): void {
    this.#paused = true
    if (!this.#released && this.#over === undefined) this.#socket?.pause()
  }

  resume(): void {
    this.#paused = false
    if (this.#held.length > 0 || this.#over !== undefined) this.#deliverLater()
    else this.#socket?.resume()
  }

  end(): void {
    if (this.#writeEnded || this.#released) return
    this.#writeEnded = true
    // nothing is queued here: FIN follows what the kernel took
    if (this.#over === undefined) this.#socket?.shutdown()
  }

  reset(): void {
    this.#release()
    if (this.#over === undefined) this.#socket?.terminate()
  }

  close(): void {
    this.#release()
    const socket = this.#socket
    if (socket === undefined || this.#over !== undefined) return
    this.#linger = setTimeout(() => socket.end(), LINGER_MS)
    if (!this.#writeEnded) socket.shutdown()
    socket.resume()
  }

  /**
   * The connection stands.
   * @returns false when the owner has let go of it before
   */
  opened(socket: BunSocket): boolean {
    if (this.#released) {
      socket.terminate()
      return false
    }
    this.#socket = socket
    this.remote ??= this.#remoteOf(socket)
    socket.setNoDelay(this.#options.nodelay)
    if (this.#options.keepalive) socket.setKeepAlive(true, 0)
    if (this.#paused) socket.pause()
    if (this.#writeEnded) socket.shutdown()
    return true
  }

  /** A connection that was reset before it was accepted has no address any more: Bun has undefined then. */
  #remoteOf(socket: BunSocket): SocketAddress | undefined {
    const text: string | undefined = socket.remoteAddress
    return text === undefined ? undefined : spelling.read(text, socket.remotePort, this.#scope)
  }

  /** The connection stands, or will. */
  adopted(socket: BunSocket): void {
    if (this.#released) {
      socket.terminate()
      return
    }
    this.#socket = socket
    if (this.#paused) socket.pause()
  }

  get released(): boolean {
    return this.#released
  }

  data(chunk: Uint8Array): void {
    if (this.#released) return
    if (this.#paused || this.#held.length > 0) {
      this.#held.push(chunk)
      this.#count(chunk.length)
      if (this.#paused) this.#socket?.pause()
    } else {
      this.#handlers?.onData(chunk)
    }
  }

  ended(): void {
    this.#readEnded = true
    if (this.#held.length === 0) this.#deliverEnd()
  }

  /** Bun calls drain at other times too. */
  drained(): void {
    if (!this.#starved || this.#released) return
    this.#starved = false
    this.#handlers?.onDrain()
  }

  closed(error: NodeJS.ErrnoException | undefined): void {
    clearTimeout(this.#linger)
    if (this.#over !== undefined) return
    // an RST behind a FIN has no error in Bun; but while our direction is open no end is clean
    if (error === undefined && !this.#writeEnded) error = systemError('ECONNRESET', 'connection reset by peer', 'read')
    this.#over = { error }
    // what was held is void after an error, as the kernel's own queue would be
    if (error !== undefined) this.#dropHeld()
    // close may come inside a call of the owner such as end()
    if (this.#held.length === 0) this.#deliverLater()
  }

  /** A handler threw: a fault of ours must not harm more than this connection. */
  broke(error: NodeJS.ErrnoException): void {
    const handlers = this.#handlers
    this.reset()
    handlers?.onClose(error)
  }

  #release(): void {
    this.#released = true
    this.#handlers = undefined
    this.#dropHeld()
    clearTimeout(this.#linger)
  }

  #deliverLater(): void {
    if (this.#delivering) return
    this.#delivering = true
    setImmediate(() => {
      this.#delivering = false
      this.#deliver()
    })
  }

  /** Hands out what was held, then the end. */
  #deliver(): void {
    const held = this.#held
    while (held.length > 0 && !this.#paused) {
      const chunk = held.shift()
      if (chunk === undefined) break
      this.#count(-chunk.length)
      this.#handlers?.onData(chunk)
    }
    if (held.length > 0) return
    const over = this.#over
    if (this.#readEnded || (over !== undefined && over.error === undefined)) this.#deliverEnd()
    if (over === undefined) {
      if (!this.#paused && !this.#released) this.#socket?.resume()
      return
    }
    const handlers = this.#handlers
    this.#handlers = undefined
    handlers?.onClose(over.error)
  }

  #deliverEnd(): void {
    if (this.#endDelivered) return
    this.#endDelivered = true
    this.#handlers?.onEnd()
  }
}

type Handler = SocketHandler<BunConnection | undefined>

/** Events of an open connection, for both directions of opening it. */
const events: Handler = {
  binaryType: 'uint8array',
  data: (socket, chunk: Uint8Array) => socket.data?.data(chunk),
  end: (socket) => socket.data?.ended(),
  drain: (socket) => socket.data?.drained(),
  close: (socket, error) => socket.data?.closed(error),
  error: (socket, error) => {
    if (socket.data === undefined) socket.terminate()
    else socket.data.broke(toError(error))
  },
}

/** A dialled connection gets its buffers here, which is as good as before the handshake: the window scale allows for the system's maximum. */
function tuneConnection(socket: BunSocket, socketOptions: SocketOptions): void {
  applyBuffers(socketOptions, () => {
    const calls = syscalls()
    const fd = descriptorOf(socket)
    if (fd === undefined) throw new Error('Bun shows no descriptor of the connection')
    return descriptorBuffers(calls, fd)
  })
}

/**
 * Dials `address`. `onOpen` or `handlers.onClose(error)` follows, never inside this call.
 * write() takes nothing before onOpen.
 */
export function dialTcp(
  address: SocketAddress,
  options: TcpOptions,
  handlers: TcpHandlers,
  onOpen: () => void,
): TcpConnection {
  const connection = new BunConnection(options, address, address.scope)
  connection.attach(handlers)
  const fail = (reason: unknown): void => connection.closed(explained('connect', address, reason))
  try {
    Bun.connect<BunConnection | undefined>({
      hostname: spelling.write(address),
      port: address.port,
      allowHalfOpen: true,
      data: connection,
      socket: {
        ...events,
        open: (socket) => {
          if (!connection.opened(socket)) return
          if (options.socketOptions !== undefined) tuneConnection(socket, options.socketOptions)
          onOpen()
          // what a write() before the handshake was promised
          connection.drained()
        },
        connectError: (_, error) => fail(error),
      },
    }).catch(fail)
  } catch (reason) {
    fail(reason)
  }
  return connection
}

/** See OperatingSystem.adoptConnection. */
export function adoptConnection(fd: number, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
  const connection = new BunConnection(UNTOUCHED, undefined, 0)
  connection.attach(handlers)
  let opened = false
  const fail = (reason: unknown): void => connection.closed(toError(reason))
  Bun.connect<BunConnection | undefined>({
    ...descriptor(fd),
    allowHalfOpen: true,
    data: connection,
    socket: {
      ...events,
      // open comes at once, drain when the connection stands
      open: (socket) => connection.adopted(socket),
      drain: (socket) => {
        if (!opened && !connection.released) {
          opened = true
          onOpen()
        }
        socket.data?.drained()
      },
    },
  }).catch(fail)
  return connection
}

/** See OperatingSystem.adoptListener. */
export async function adoptListener(
  fd: number,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  _onError: (error: NodeJS.ErrnoException) => void,
): Promise<TcpListener> {
  const local = syscalls().localAddress(fd)
  return listen({ hostname: '', port: 0, fd }, local, options, accept, ADOPTED_BACKLOG)
}

/** Listens on `address`. Rejects with the error of bind or listen (EADDRINUSE, EADDRNOTAVAIL, EACCES, ...). */
export async function listenTcp(
  address: SocketAddress,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  _onError: (error: NodeJS.ErrnoException) => void,
): Promise<TcpListener> {
  const fd = openWithOptions(syscalls, 'tcp', address, options.socketOptions, true)
  // Bun does not report the port of a descriptor
  const local = fd === undefined ? address : { ...address, port: syscalls().port(fd) }
  const reusePort = fd === undefined && options.socketOptions?.reuseport === true
  const where = { hostname: spelling.write(address), port: address.port, reusePort }
  return listen(fd === undefined ? where : { ...where, fd }, local, options, accept, BACKLOG)
}

/** Bun takes no length of the queue: it is set afterwards, where that can be done. */
function lengthen(listener: object, backlog: number): void {
  const fd = descriptorOf(listener)
  if (fd === undefined || process.platform !== 'linux') return
  try {
    syscalls().listen(fd, backlog)
  } catch {
    // a libc that cannot be bound: Bun's own number it is
  }
}

interface Where {
  readonly hostname: string
  readonly port: number
  readonly reusePort?: boolean
  readonly fd?: number
}

/** `address`: where it listens, but for a port that is 0. */
function listen(
  where: Where,
  address: SocketAddress,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  backlog: number,
): TcpListener {
  let closed = false
  let listener: TCPSocketListener<BunConnection | undefined>
  try {
    listener = Bun.listen<BunConnection | undefined>({
      ...where,
      allowHalfOpen: true,
      data: undefined,
      socket: {
        ...events,
        open: (socket) => {
          const connection = new BunConnection(options, undefined, address.scope)
          socket.data = connection
          connection.opened(socket)
          const handlers = closed ? null : accept(connection)
          if (handlers === null) connection.reset()
          else connection.attach(handlers)
        },
      },
    })
  } catch (reason) {
    throw explained('listen', address, reason)
  }
  lengthen(listener, backlog)
  return {
    local: address.port === 0 ? { ...address, port: listener.port } : address,
    close() {
      closed = true
      listener.stop()
    },
  }
}
