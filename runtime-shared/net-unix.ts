/** Unix sockets on node:net, for Node and Deno. */

import { connect, Socket } from 'node:net'
import { toError } from '../host/errors.ts'
import { AF_UNIX, SOCK_STREAM } from '../host/linux/libc.ts'
import type { Syscalls } from '../host/linux/syscalls.ts'
import type { TcpConnection, TcpHandlers, TcpOptions, UnixSockets } from '../host/runtime.ts'
import { adoptConnection, listen, NodeConnection, onConnect, reading, type SocketCalls } from './net-tcp.ts'
import { type UnixCalls, unixSockets } from './unix-socket.ts'

/** Listen backlog: Linux's default limit (net.core.somaxconn). */
const BACKLOG = 4096
/** The options of a Unix socket. */
const UNTOUCHED: TcpOptions = { nodelay: false, keepalive: false }

const isAbstract = (path: string): boolean => path.startsWith('\0')

/** Opens a socket by system calls. @throws NotAvailable, or the error of `use` */
function openSocket(syscalls: Syscalls, use: (fd: number) => void): number {
  const fd = syscalls.socket(AF_UNIX, SOCK_STREAM)
  try {
    use(fd)
    return fd
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}

/** Dials an abstract name by system calls. The kernel answers at once. */
function dialAbstract(calls: SocketCalls, shown: string, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
  try {
    const syscalls = calls.syscalls()
    const fd = openSocket(syscalls, (socket) => syscalls.connectUnix(socket, shown))
    return adoptConnection(fd, handlers, onOpen, shown)
  } catch (error) {
    const failed = new Socket()
    const connection = new NodeConnection(failed, undefined, shown)
    connection.attach(handlers)
    failed.destroy(toError(error))
    return connection
  }
}

function dial(path: string, shown: string, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
  const socket = connect({ path, allowHalfOpen: true, ...reading(() => connection) })
  const connection = new NodeConnection(socket, undefined, shown)
  connection.attach(handlers)
  onConnect(socket, onOpen)
  return connection
}

/** The Unix sockets of Node or Deno. */
export function netUnix(calls: SocketCalls): UnixSockets | undefined {
  // on Windows such paths are those of named pipes
  if (process.platform === 'win32') return undefined
  const bySyscalls = (path: string): boolean => calls.padsAbstract === true && isAbstract(path)
  const listenUnix: UnixCalls['listen'] = async (where, shown, accept, onError) => {
    if ('fd' in where || !bySyscalls(where.path)) return listen(where, UNTOUCHED, accept, onError, shown)
    const syscalls = calls.syscalls()
    const fd = openSocket(syscalls, (socket) => {
      syscalls.bindUnix(socket, shown)
      syscalls.listen(socket, BACKLOG)
    })
    return listen({ fd }, UNTOUCHED, accept, onError, shown)
  }
  return unixSockets({
    listen: listenUnix,
    dial: (path, shown, handlers, onOpen) =>
      bySyscalls(path) ? dialAbstract(calls, shown, handlers, onOpen) : dial(path, shown, handlers, onOpen),
  })
}
