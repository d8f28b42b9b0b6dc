/** TCP and Unix sockets on Bun.listen and Bun.connect; tcp-connection.ts is about their connections. */

import { codeOf, NotAvailable, systemError, toError } from '../host/errors.ts'
import { AF_UNIX, SOCK_STREAM } from '../host/linux/libc.ts'
import { applyBuffers, descriptorBuffers, descriptorOf, openWithOptions } from '../host/linux/socket-options.ts'
import type { SocketAddress } from '../host/net/address.ts'
import { explained } from '../host/net/native-address.ts'
import type { SocketOptions, TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../host/runtime.ts'
import { spelling } from '../runtime-shared/platform.ts'
import { type UnixCalls, unixSockets } from '../runtime-shared/unix-socket.ts'
import { descriptor, syscalls } from './ffi.ts'
import { BunConnection, type BunSocket, events, UNTOUCHED } from './tcp-connection.ts'

/** Listen backlog: Linux's default limit (net.core.somaxconn). Beyond it a client retries its SYN after 1 s. */
const BACKLOG = 4096
/** Listen backlog of an adopted listener (protocol.md 9.2); Bun uses its own number. */
const ADOPTED_BACKLOG = 16

/**
 * Sets the buffers of a dialled connection. After the handshake is early enough: the window scale covers the system's
 * maximum.
 */
function tuneConnection(socket: BunSocket, socketOptions: SocketOptions): void {
  applyBuffers(socketOptions, () => {
    const calls = syscalls()
    const fd = descriptorOf(socket)
    if (fd === undefined) throw new Error('Bun does not expose the descriptor of the connection')
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
          // required after a short write() before the handshake
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

/** @throws NotAvailable, or the error of the dial, which comes at once */
function connectUnix(path: string): number {
  const calls = syscalls()
  const fd = calls.socket(AF_UNIX, SOCK_STREAM)
  try {
    calls.connectUnix(fd, path)
    return fd
  } catch (error) {
    calls.close(fd)
    throw error
  }
}

/**
 * Dials a Unix socket. By system calls where there are some: Bun does not tell a socket whose backlog is full from one
 * that nobody listens at.
 */
function dialUnix(path: string, shown: string, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
  const connection = new BunConnection(UNTOUCHED, undefined, 0, shown)
  connection.attach(handlers)
  try {
    adopt(connection, connectUnix(shown), onOpen)
    return connection
  } catch (error) {
    if (!(error instanceof NotAvailable)) {
      connection.closed(toError(error))
      return connection
    }
  }
  // the message of Bun names nothing
  const fail = (reason: unknown): void =>
    connection.closed(systemError(codeOf(reason) || 'ECONNREFUSED', `connect ${shown}`, 'connect'))
  Bun.connect<BunConnection | undefined>({
    unix: path,
    allowHalfOpen: true,
    data: connection,
    socket: {
      ...events,
      open: (socket) => {
        if (connection.opened(socket)) onOpen()
      },
      connectError: (_, error) => fail(error),
    },
  }).catch(fail)
  return connection
}

/** See OperatingSystem.adoptConnection. */
export function adoptConnection(fd: number, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
  const connection = new BunConnection(UNTOUCHED, undefined, 0)
  connection.attach(handlers)
  adopt(connection, fd, onOpen)
  return connection
}

/** Gives a connection the socket of a descriptor. */
function adopt(connection: BunConnection, fd: number, onOpen: () => void): void {
  let opened = false
  const fail = (reason: unknown): void => connection.closed(toError(reason))
  Bun.connect<BunConnection | undefined>({
    ...descriptor(fd),
    allowHalfOpen: true,
    data: connection,
    socket: {
      ...events,
      // open is emitted at once, drain when the connection is established
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

/** Sets the listen backlog, where possible: Bun has no option for it. */
function lengthen(listener: object, backlog: number): void {
  const fd = descriptorOf(listener)
  if (fd === undefined || process.platform !== 'linux') return
  try {
    syscalls().listen(fd, backlog)
  } catch {
    // libc cannot be bound: Bun's own backlog applies
  }
}

interface Where {
  readonly hostname: string
  readonly port: number
  readonly reusePort?: boolean
  readonly fd?: number
}

/** `address`: the listening address; its port may be 0. */
function listen(
  where: Where,
  address: SocketAddress,
  options: TcpOptions,
  accept: (connection: TcpConnection) => TcpHandlers | null,
  backlog: number,
): TcpListener {
  try {
    const connect = (): BunConnection => new BunConnection(options, undefined, address.scope)
    const { port, ...listener } = listenOn(where, accept, connect, backlog)
    return { local: address.port === 0 ? { ...address, port } : address, ...listener }
  } catch (reason) {
    throw explained('listen', address, reason)
  }
}

/** @param connect makes the connection of an accepted socket */
function listenOn(
  where: Where | { readonly unix: string },
  accept: (connection: TcpConnection) => TcpHandlers | null,
  connect: () => BunConnection,
  backlog: number,
): Omit<TcpListener, 'local'> & { readonly port: number } {
  let closed = false
  const options = {
    ...where,
    allowHalfOpen: true,
    data: undefined,
    socket: {
      ...events,
      open: (socket: BunSocket) => {
        const connection = connect()
        socket.data = connection
        connection.opened(socket)
        // accepted while the listener was being closed: refused, as the next one will be
        const handlers = closed ? undefined : accept(connection)
        if (handlers === undefined) connection.reset()
        else if (handlers === null) connection.close()
        else connection.attach(handlers)
      },
    },
  }
  // its types tell listeners of ports and of paths apart
  const listener = Bun.listen<BunConnection | undefined>(
    options as Parameters<typeof Bun.listen<BunConnection | undefined>>[0],
  )
  lengthen(listener, backlog)
  return {
    port: 'port' in listener ? Number(listener.port) : 0,
    close() {
      closed = true
      listener.stop()
    },
    keepAlive: (isKept) => (isKept ? listener.ref() : listener.unref()),
  }
}

/** Listens on a Unix socket. */
const listenUnix: UnixCalls['listen'] = async (where, shown, accept) => {
  const connect = (): BunConnection => new BunConnection(UNTOUCHED, undefined, 0, shown)
  const place = 'fd' in where ? { hostname: '', port: 0, fd: where.fd } : { unix: where.path }
  try {
    return listenOn(place, accept, connect, BACKLOG)
  } catch (reason) {
    throw systemError(codeOf(reason), `listen ${shown}`, 'listen')
  }
}

/** On Windows such paths are those of named pipes. */
export const unix = process.platform === 'win32' ? undefined : unixSockets({ listen: listenUnix, dial: dialUnix })
