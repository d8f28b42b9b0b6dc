/**
 * Everything the host layer needs from a runtime, and nothing else. `runtime-node` and `runtime-bun` implement it; tests implement it in memory.
 *
 * Rules that hold for all of it: callbacks never run inside a call into the same object (no re-entrance), except where said; errors
 * are Error objects with a `code` such as ECONNREFUSED; after close() no callback comes.
 */

import type { SystemError } from './errors.ts'
import type { SocketAddress } from './net/address.ts'

export interface UdpHandlers {
  /** One datagram. `data` is only valid during the call. `from` may be the same object for successive datagrams of one peer. */
  onDatagram(data: Uint8Array, from: SocketAddress): void
  /** A receive batch of the event loop ended: called soon after the last onDatagram of it. */
  onBatchEnd(): void
  /** acquire() returned null before and would succeed now. */
  onWritable(): void
  /** A send or receive error (ICMP, ENOBUFS, EMSGSIZE, ...). A hint: the socket stays open. */
  onError(error: SystemError): void
}

export interface UdpOptions {
  readonly bind: SocketAddress
  /** connect() the socket: other sources are dropped by the kernel and ICMP errors arrive */
  readonly connect?: SocketAddress
  readonly socketOptions?: SocketOptions | undefined
  /** Default: portable. */
  readonly path?: UdpMode
}

/** How datagrams get in and out: by the runtime's own socket, by batched system calls of Linux, or by what is best here. */
export type UdpMode = 'auto' | 'fast' | 'portable'

/**
 * Socket options that not every runtime and system has. What cannot be applied is reported by `refused`, and the socket opens without it. A reader of
 * /proc/net or `ss -m` sees the effect.
 */
export interface SocketOptions {
  /** SO_REUSEPORT */
  readonly reuseport: boolean
  /** SO_SNDBUF and SO_RCVBUF, bytes, 0 = leave alone */
  readonly sndbuf: number
  readonly rcvbuf: number
  /** SO_BINDTODEVICE, empty = none */
  readonly netdev: string
  /** Descriptor of a socket to adopt, which is bound already and has the options that must be set before. */
  readonly fd?: number | undefined
  /** An option is not, or not quite, in force, and why. May come for each socket anew. */
  refused(option: 'reuseport' | 'sndbuf' | 'rcvbuf' | 'netdev', why: string): void
}

/** One bound UDP socket. */
export interface UdpSocket {
  readonly local: SocketAddress
  /** The path taken, for people: `portable (not available: ...)`. */
  readonly path?: string
  /** A buffer of at least 1500 bytes for one outgoing datagram, or null while too many are in flight (onWritable follows). */
  acquire(): Uint8Array | null
  /** Queues the first `length` bytes of a buffer from acquire(); ownership goes back to the socket. `to` is ignored when connected. */
  send(buffer: Uint8Array, length: number, to: SocketAddress): void
  /** End of a send batch: everything queued goes to the kernel now. */
  flush(): void
  close(): void
}

/** Read at every dial and accept: the owner may change it in place. */
export interface TcpOptions {
  /** TCP_NODELAY */
  readonly nodelay: boolean
  /** SO_KEEPALIVE */
  readonly keepalive: boolean
  /** Of listeners, whose connections inherit it, and of dialled connections. `netdev` does not apply. */
  readonly socketOptions?: SocketOptions | undefined
}

/** Where a connection counts the bytes that it holds beside the system. */
export interface QueuedBytes {
  /** Written to connections, not taken by the system yet. */
  toTcp: number
  /** Read from connections, not taken by the owner yet. */
  fromTcp: number
  /** Bytes that one connection may have queued now. */
  readonly queueLimit: number
}

/** Handlers of one TCP connection; set by the owner before the first event can arrive. */
export interface TcpHandlers {
  /** Where the connection counts what it holds beside the system; absent: it is not counted. */
  readonly held?: QueuedBytes
  /** Bytes from TCP, only valid during the call. No more arrive after pause() until resume(). */
  onData(chunk: Uint8Array): void
  /** The other side sent FIN. Reading ended; writing may go on (half-close). */
  onEnd(): void
  /** The socket takes bytes again after write() returned less than it was given. */
  onDrain(): void
  /** The socket is gone, once. `error` when it broke (RST, timeout, refused dial), undefined after a clean end of both directions. */
  onClose(error?: SystemError): void
}

/** One TCP connection with half-close. Starts paused: call resume() to get data. */
export interface TcpConnection {
  readonly remote: SocketAddress | undefined
  /** A buffer of at least 65536 bytes to fill for the next write(). It belongs to the caller until write(). */
  writeBuffer(): Uint8Array
  /**
   * Writes the first `length` bytes of the buffer got from writeBuffer().
   * @returns bytes taken (0..length). When it is less than `length`, the caller
   * keeps the rest and repeats it after onDrain. An adapter that queues inside the runtime takes bytes only while that queue is short
   * (`QueuedBytes.queueLimit`, at most 256 KiB), so that back-pressure is real, and counts them.
   */
  write(buffer: Uint8Array, length: number): number
  pause(): void
  resume(): void
  /** Sends FIN after everything written; reading goes on. */
  end(): void
  /** Aborts with RST; nothing more is delivered; onClose is not called. */
  reset(): void
  /** Closes in the normal way: what was written is flushed, then FIN; reading stops; onClose is not called. */
  close(): void
}

export interface TcpListener {
  readonly local: SocketAddress
  close(): void
}

export interface HttpServer {
  readonly local: SocketAddress
  close(): void
}

/** The connection that a request came on. */
export interface HttpConnection {
  /** IP address of who asks, as the runtime spells it; undefined when the connection is gone. */
  readonly remote?: string | undefined
  /** The answer is a stream that lasts: the limit on the life of a connection ends for this one. */
  hold(): void
  /** The stream was ended by us: the limit counts again, from now on. */
  release?(): void
  /** Closes it at once. */
  cut(): void
}

export type HttpHandler = (request: Request, target: string, connection: HttpConnection) => Response | Promise<Response>

/** Changes of the process's identity, as node:process has them. They throw when the system refuses. */
export interface IdentityCalls {
  getuid(): number
  geteuid(): number
  getgid(): number
  setgroups(groups: readonly number[]): void
  initgroups(user: string | number, group: string | number): void
  setgid(group: string | number): void
  setuid(user: string | number): void
}

/** How a program becomes a daemon: it starts itself again, and that process reports to the first one by a pipe. */
export interface DaemonCalls {
  /** In the process that was started by `start`. */
  readonly inside: boolean
  /**
   * Starts this program again with the same arguments and directory, in a session of its own, without a terminal. `onReport` gets what it writes to
   * report(); `onEnd` comes when the process is gone, and says how it ended.
   */
  start(onReport: (text: string) => void, onEnd: (how: string) => void): { readonly pid: number; kill(): void }
  /** Inside: writes to the pipe. */
  report(text: string): void
  /** Inside: closes the pipe. */
  reported(): void
}

/** The end of OperatingSystem.watch: no callback comes after close(). */
export interface Watch {
  close(): void
}

/** A process that this one started and talks to. */
export interface WorkerProcess {
  readonly pid: number
  /** `message` is any JSON. One that cannot be delivered is lost: the process is ending. */
  send(message: object): void
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
}

/** How a program runs as several processes: it starts itself again, and hands each the bound socket that it is to serve. */
export interface WorkerCalls {
  /** In a process that was started by `start`: its number. */
  readonly inside: number | undefined
  /** Inside: the descriptor of the socket. */
  readonly socket: number
  /**
   * Starts this program again with the same arguments and directory. `socket` is a descriptor of this process, which stays open here. `onMessage` gets
   * what it sends, `onEnd` comes once when the process is gone, and says how it ended.
   */
  start(
    number: number,
    socket: number,
    onMessage: (message: unknown) => void,
    onEnd: (how: string) => void,
  ): WorkerProcess
  /** Inside: sends to the first process; `sent` comes when that is done or impossible. */
  send(message: object, sent?: () => void): void
  /** Inside: calls back with what the first process sends, and when that process is gone. */
  receive(onMessage: (message: unknown) => void, onGone: () => void): void
}

/**
 * libc functions as the runtime's FFI gives them: -1 means failure, with the code in `errno`. Pointers are numbers from
 * `address`. Calls never block here: descriptors are non-blocking.
 */
export interface Libc {
  /** Bytes of a pointer. */
  readonly pointerBytes: number
  /** Where the bytes of a buffer are. Valid while the buffer lives; of a WebAssembly memory until it grows. */
  address(buffer: ArrayBuffer): number
  socket(domain: number, type: number, protocol: number): number
  bind(fd: number, address: number, length: number): number
  connect(fd: number, address: number, length: number): number
  listen(fd: number, backlog: number): number
  setsockopt(fd: number, level: number, name: number, value: number, length: number): number
  getsockopt(fd: number, level: number, name: number, value: number, length: number): number
  getsockname(fd: number, address: number, length: number): number
  send(fd: number, data: number, length: number, flags: number): number
  recv(fd: number, data: number, length: number, flags: number): number
  recvmmsg(fd: number, messages: number, count: number, flags: number, timeout: number): number
  sendmmsg(fd: number, messages: number, count: number, flags: number): number
  if_nametoindex(name: number): number
  /** fcntl(2) with a number. */
  fcntl(fd: number, command: number, argument: number): number
  close(fd: number): number
  /** CLOCK_MONOTONIC, nanoseconds. */
  monotonic(): bigint
  /** errno of the call just made. */
  errno(): number
  /** `EADDRINUSE` for its number. */
  errorName(errno: number): string
}

/** What the operating system offers a service beyond sockets. */
export interface OperatingSystem {
  readonly pid: number
  /** A variable of the environment. */
  env(name: string): string | undefined
  /** Text of a small system file such as /etc/passwd. @throws Error */
  readText(path: string): string
  /** libc by FFI, bound at the first call. @throws NotAvailable saying why there is none */
  libc(): Libc
  /**
   * Calls back whenever a descriptor of syscalls() has something to read, or an error. The callee reads by syscalls() until nothing is left. `first`: a datagram
   * that the runtime took off the socket already (Bun); it comes before what is read then, and is the callee's. The descriptor stays the caller's: close()
   * first, then it. A datagram without bytes may be lost. The event loop goes on for as long as it is watched.
   * @throws NotAvailable
   */
  watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch
  /**
   * A TCP listener on a bound descriptor of syscalls(), which becomes the runtime's. It listens with the backlog of protocol.md 9.2. Of `options` nodelay and
   * keepalive count. `accept` and `onError` as in Runtime.listenTcp.
   */
  adoptListener(
    fd: number,
    options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: SystemError) => void,
  ): Promise<TcpListener>
  /**
   * A TCP connection on a descriptor of syscalls() that connects or is connected; it becomes the runtime's. Its options are left alone, its `remote` is
   * undefined. Exactly one of onOpen or handlers.onClose(error) comes first, never inside this call.
   */
  adoptConnection(fd: number, handlers: TcpHandlers, onOpen: () => void): TcpConnection
  /** Undefined where users are no numbers (Windows). */
  readonly identity: IdentityCalls | undefined
  /** Undefined where there are no sessions of processes (Windows). */
  readonly daemon: DaemonCalls | undefined
  /** Undefined where processes cannot share a port so that each peer sticks to one of them. */
  readonly workers?: WorkerCalls | undefined
}

/** Size of a terminal, in characters. */
export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** The terminal of a process. */
export interface Terminal {
  /** Of standard output. */
  size(): TerminalSize
  /** Calls back when the size changed. */
  onResize(callback: () => void): void
  /** From now on each key comes at once and is not echoed: what it sends, such as `q` or `\x1b[A`. */
  onKeys(callback: (keys: string) => void): void
  /** Keys come as usual again. */
  endKeys(): void
  /** Calls back when the process ends, for whatever reason it can know of; only synchronous things happen then. */
  onExit(callback: () => void): void
}

/** What subcommands need that a service does not: files, a terminal, how the program was called. */
export interface CommandConsole {
  /** The words that started the program, without its arguments: the runtime as it was typed, and the path of the script. */
  readonly started: { readonly command: string; readonly script: string }
  readonly directory: string
  /**
   * Creates a file that only its owner can read. Never overwrites, follows no link; a file that could not be written to its end is removed.
   * @throws Error, with code EEXIST when the name is taken
   */
  createFile(path: string, text: string): void
  removeFile(path: string): void
  /** Permission bits; undefined where files have none (Windows). @throws Error, with code ENOENT when nothing has that name */
  fileMode(path: string): number | undefined
  isTerminal(stream: 'stdin' | 'stdout' | 'stderr'): boolean
  /** Prints a question to standard error and reads a line of standard input; undefined at its end. */
  ask(question: string): Promise<string | undefined>
}

/** A callback that is to come: handed back to the clock that made it. */
export type Timer = object

/** Time and the turns of the event loop. Tests implement it in virtual time. */
export interface Clock {
  /** Monotonic milliseconds with a fraction. */
  monotonic(): number
  /** Wall clock, milliseconds since 1970. */
  wall(): number
  /** Calls back once after `ms`, at most 2^31 - 1. */
  setTimer(callback: () => void, ms: number): Timer
  clearTimer(timer: Timer | undefined): void
  /** Calls back once, after the I/O events of this turn of the event loop. */
  defer(callback: () => void): Timer
  clearDeferred(timer: Timer | undefined): void
}

export interface Runtime {
  readonly name: 'node' | 'bun'
  readonly version: string
  readonly clock: Clock
  /** All addresses of a host, in getaddrinfo's order (AI_ADDRCONFIG). `host` may be an IP literal. Rejects with an Error that has a code. */
  resolve(host: string): Promise<readonly Omit<SocketAddress, 'port'>[]>
  /** Rejects with NotAvailable for a fast path where there is none. */
  openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket>
  /** SO_REUSEADDR is set. `accept` returns the handlers of the new connection, or null to refuse it (it is reset). */
  listenTcp(
    address: SocketAddress,
    options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: SystemError) => void,
  ): Promise<TcpListener>
  /** Non-blocking dial. Exactly one of onOpen or handlers.onClose(error) comes first. */
  dialTcp(address: SocketAddress, options: TcpOptions, handlers: TcpHandlers, onOpen: () => void): TcpConnection
  /** Milliseconds of CPU time, of user and system, that the process has used. */
  cpuTime(): number
  /**
   * Serves a fetch handler (hono's app.fetch), one request per connection, within the limits of protocol.md 11. `target` is the request target as it
   * stood on the wire: what stands in `request.url` is repaired.
   */
  serveHttp(address: SocketAddress, fetch: HttpHandler): Promise<HttpServer>
  /** Calls back on a termination signal (SIGINT, SIGTERM). */
  onTerminate(callback: (signal: string) => void): void
  /** Calls back on SIGHUP: the configuration is to be read again. Never on Windows. */
  onReload(callback: () => void): void
  /** Bytes of a file as they are. */
  readFile(path: string): Promise<Uint8Array>
  /** Writes to standard output or standard error, synchronously as far as the runtime allows. */
  print(stream: 'stdout' | 'stderr', text: string): void
  exit(status: number): never
  /** Undefined in hosts that are no programs of an operating system. */
  readonly os?: OperatingSystem | undefined
  /** Undefined where there are no subcommands. */
  readonly commandConsole?: CommandConsole | undefined
  /** Undefined in hosts without standard streams. */
  readonly terminal?: Terminal | undefined
}
