/**
 * The interfaces that the host layer requires from a runtime, and nothing else. The adapters `runtime-*`
 * implement them; tests implement them in memory.
 *
 * Common rules: callbacks never run inside a call into the same object (no re-entrance) unless stated otherwise; errors
 * are Error objects with a `code` such as ECONNREFUSED; no callback runs after close().
 */

import type { SystemError } from './errors.ts'
import type { SocketAddress } from './net/address.ts'

export interface UdpHandlers {
  /** One datagram. `data` is only valid during the call. `from` may be the same object for one peer's datagrams. */
  onDatagram(data: Uint8Array, from: SocketAddress): void
  /** End of a receive batch of the event loop: called soon after its last onDatagram. */
  onBatchEnd(): void
  /** acquire() succeeds again after it returned null. */
  onWritable(): void
  /** A send or receive error (ICMP, ENOBUFS, EMSGSIZE, ...). Informational: the socket stays open. */
  onError(error: SystemError): void
  /** Datagrams that the system merges on arrival are lost on this host; they arrive one by one now. */
  onMergedLost?(): void
}

export interface UdpOptions {
  readonly bind: SocketAddress
  /** connect() the socket: the kernel drops datagrams of other sources and reports ICMP errors */
  readonly connect?: SocketAddress
  readonly socketOptions?: SocketOptions | undefined
  /** Default: portable. */
  readonly path?: UdpMode
  /** Whether datagrams are merged where the system supports it, when sent (UDP_SEGMENT) and received (UDP_GRO). */
  readonly gso?: boolean
  readonly gro?: boolean
  /**
   * On a wildcard address, answers leave from the address that the peer asked: `from` of a datagram has a number of that
   * address, which is to be part of `to`. Not every path can do it, see UdpSocket.repliesFromAsked.
   */
  readonly replyFromAsked?: boolean
  /** Datagrams may have any length (UdpSocket.sendLarge). Default: none is longer than a packet. */
  readonly isLarge?: boolean
}

/** UDP implementation: the runtime's socket (portable), batched Linux system calls (fast), or the best available. */
export type UdpMode = 'auto' | 'fast' | 'portable'

/**
 * Socket options that not every runtime and system supports. An option that cannot be applied is reported by `refused`
 * and the socket opens without it. The effect is visible in /proc/net and `ss -m`.
 */
export interface SocketOptions {
  /** SO_REUSEPORT */
  readonly reuseport: boolean
  /** SO_SNDBUF and SO_RCVBUF in bytes, 0 = system default */
  readonly sndbuf: number
  readonly rcvbuf: number
  /** SO_BINDTODEVICE, empty = none */
  readonly netdev: string
  /** SO_MARK, and code point in IP_TOS and IPV6_TCLASS, of a UDP socket; 0 = none */
  readonly fwmark?: number
  readonly dscp?: number
  /** Descriptor of a socket to adopt. It is already bound and has the options that must be set before bind. */
  readonly fd?: number | undefined
  /** An option is not, or only partly, in force. May be called for each socket. */
  refused(option: 'reuseport' | 'sndbuf' | 'rcvbuf' | 'netdev' | 'fwmark' | 'dscp', why: string): void
}

/**
 * What is special about a datagram. `size test`: that it is too long (EMSGSIZE) is not reported. `may fragment`: it is
 * sent without don't fragment. Only matters while UdpSocket.dontFragment is in force.
 */
export type DatagramKind = 'size test' | 'may fragment'

/** One bound UDP socket. */
export interface UdpSocket {
  readonly local: SocketAddress
  /** Text for users on the mode in use: `portable (not available: ...)`. */
  readonly path?: string
  /** Whether datagrams are sent in merged messages. */
  readonly gso?: boolean
  /** Whether UdpOptions.replyFromAsked is in force. */
  readonly repliesFromAsked?: boolean
  /** Peers that ask at this local address are answered from the address that the system selects: it may move. */
  leaveFree?(local: SocketAddress): void
  /** A buffer of at least 1500 bytes for one datagram, or null while too many are in flight (onWritable follows). */
  acquire(): Uint8Array | null
  /**
   * Queues the first `length` bytes of a buffer from acquire() and takes it back. `to` is ignored when connected.
   * @param apart the datagram must not be in one message to the kernel with the one before it (UDP_SEGMENT)
   */
  send(buffer: Uint8Array, length: number, to: SocketAddress, apart?: boolean, kind?: DatagramKind): void
  /** Passes a datagram of any length to the system at once; without room there it is dropped. Absent: not possible. */
  sendLarge?(data: Uint8Array, to: SocketAddress): void
  /**
   * Sets or clears don't fragment for all datagrams, whatever the system believes about the path. Absent: not possible.
   * @returns whether it is in force
   */
  dontFragment?(on: boolean): boolean
  /** End of a send batch: passes everything queued to the kernel. */
  flush(): void
  /** Held, the socket leaves datagrams in the system until collect() is called or the hold ends. Absent: not possible. */
  hold?(isHeld: boolean): void
  /** Reports the datagrams that have arrived, before it returns. */
  collect?(): void
  /** Whether the socket keeps the event loop alive, which it does by default. Absent: it always does. */
  keepAlive?(isKept: boolean): void
  close(): void
}

/** Read at each dial and accept: the owner may change it in place. */
export interface TcpOptions {
  /** TCP_NODELAY */
  readonly nodelay: boolean
  /** SO_KEEPALIVE */
  readonly keepalive: boolean
  /** For listeners, whose connections inherit them, and for dialled connections. `netdev` does not apply. */
  readonly socketOptions?: SocketOptions | undefined
}

/** Counters of the bytes that connections buffer in the process. */
export interface QueuedBytes {
  /** Written to connections, not yet taken by the kernel. */
  toTcp: number
  /** Read from connections, not yet taken by the owner. */
  fromTcp: number
  /** Most bytes that one connection may queue at present. */
  readonly queueLimit: number
}

/** Handlers of one TCP connection; set by the owner before the first event can arrive. */
export interface TcpHandlers {
  /** Where the connection counts its buffered bytes; absent: they are not counted. */
  readonly held?: QueuedBytes
  /** Bytes from TCP, only valid during the call. None arrive between pause() and resume(). */
  onData(chunk: Uint8Array): void
  /** The peer sent FIN. Reading ended; writing may continue (half-close). */
  onEnd(): void
  /** The socket accepts bytes again after a short write(). */
  onDrain(): void
  /** The socket closed; called once. `error` for RST, timeout or a failed dial; undefined if both directions ended. */
  onClose(error?: SystemError): void
  /** The application, which is in this process, gave up: the peer is to notice it. Absent: onClose is called instead. */
  onReset?(): void
}

/** One TCP connection with half-close. Starts paused: call resume() to receive data. */
export interface TcpConnection {
  readonly remote: SocketAddress | undefined
  /** Its own end; undefined if it is not known. */
  readonly local?: SocketAddress | undefined
  /** Of a Unix socket, which has no address: its path. */
  readonly path?: string | undefined
  /** What is sent is soon of no use: segments that may wait unsent. Absent: as many as throughput requires. */
  readonly unsentLimit?: number
  /** Replaces the handlers. Both have the same `held`; nothing was written or delivered before. */
  attach(handlers: TcpHandlers): void
  /** A buffer of at least 65536 bytes to fill for the next write(). The caller owns it until write(). */
  writeBuffer(): Uint8Array
  /**
   * Writes the first `length` bytes of the buffer from writeBuffer(). An adapter that queues inside the runtime counts
   * the queue and limits it (`QueuedBytes.queueLimit`, at most 256 KiB), so that back-pressure works.
   * @returns bytes taken (0..length). After a short write the caller keeps the rest and retries after onDrain.
   */
  write(buffer: Uint8Array, length: number): number
  pause(): void
  resume(): void
  /** Sends FIN after everything written; reading continues. */
  end(): void
  /**
   * Aborts with RST. Nothing more is delivered; onClose is not called.
   * @param reason why, for a connection whose other end is in this process
   */
  reset(reason?: string): void
  /** Closes gracefully: flushes what was written, then sends FIN. Reading stops; onClose is not called. */
  close(): void
  /** Client: the peer answered the session. Absent: not of interest. */
  onAnswered?(): void
}

export interface TcpListener {
  readonly local: SocketAddress
  close(): void
  /** Whether it keeps the event loop alive, which it does by default; its connections do. */
  keepAlive?(isKept: boolean): void
}

/** A path of a Unix socket that this process bound. */
export interface BoundPath<Result> {
  readonly bound: Result
  /** Closes the socket by `close`, and removes its file if it is still that one. */
  release(close?: () => void): void
}

/** Unix sockets. Paths are as in net/unix-path.ts; connections are as TCP ones, but cannot be reset. */
export interface UnixSockets {
  /**
   * Binds to a path: replaces the file of a socket that nobody listens at. The file has the permission bits `mode` from
   * the first moment, and is created before `bind` returns.
   * @throws EADDRINUSE, EEXIST for anything but a socket, or the error of bind
   */
  claim<Result>(
    path: string,
    mode: number,
    bind: (path: string) => Result | Promise<Result>,
  ): Promise<BoundPath<Result>>
  /** As Runtime.listenTcp. `fd`: a bound socket to adopt, whose file remains its creator's. */
  listen(
    path: string,
    mode: number,
    fd: number | undefined,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: SystemError) => void,
  ): Promise<Omit<TcpListener, 'local'>>
  /** As Runtime.dialTcp. */
  dial(path: string, handlers: TcpHandlers, onOpen: () => void): TcpConnection
  /** Changes permission bits, or user and group, of a socket's file. */
  setMode(path: string, mode: number): void
  setOwner(path: string, uid: number | undefined, gid: number | undefined): void
}

export interface HttpServer {
  readonly local: SocketAddress
  close(): void
  /** See TcpListener.keepAlive. */
  keepAlive?(isKept: boolean): void
}

/** The connection of a request. */
export interface HttpConnection {
  /** IP address of the client in the runtime's spelling; undefined if the connection is closed. */
  readonly remote?: string | undefined
  /** The response is a long-lived stream: suspends the connection's lifetime limit. */
  hold(): void
  /** The host ended the stream: the lifetime limit applies again from now on. */
  release?(): void
  /** Closes the connection immediately. */
  cut(): void
}

export type HttpHandler = (request: Request, target: string, connection: HttpConnection) => Response | Promise<Response>

/** Changes the process's identity; signatures as in node:process. The calls throw if the system refuses. */
export interface IdentityCalls {
  getuid(): number
  geteuid(): number
  getgid(): number
  setgroups(groups: readonly number[]): void
  initgroups(user: string | number, group: string | number): void
  setgid(group: string | number): void
  setuid(user: string | number): void
}

/** Daemon support: the program starts itself again, and the child reports to the parent over a pipe. */
export interface DaemonCalls {
  /** Whether this process was started by `start`. */
  readonly inside: boolean
  /**
   * Starts this program again with the same arguments and directory, in a new session without a terminal. `onReport`
   * receives what the child passes to report(); `onEnd` runs when the child is gone, with its exit status as text.
   */
  start(onReport: (text: string) => void, onEnd: (how: string) => void): { readonly pid: number; kill(): void }
  /** Child: writes to the pipe. */
  report(text: string): void
  /** Child: closes the pipe. */
  reported(): void
}

/** Handle of OperatingSystem.watch. No callback runs after close(). */
export interface Watch {
  close(): void
  /** Reports nothing until resume(), which reports what arrived meanwhile. Absent: not possible. */
  pause?(): void
  resume?(): void
  /** Whether it keeps the event loop alive, which it does by default. */
  keepAlive?(isKept: boolean): void
}

/** A child process with a message channel. */
export interface WorkerProcess {
  readonly pid: number
  /** `message` is any JSON. An undeliverable message is lost: the process is ending. */
  send(message: object): void
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
}

/** Multi-process support: the program starts itself again and passes each child the bound sockets to serve. */
export interface WorkerCalls {
  /** Worker: its number; undefined in a process that was not started by `start`. */
  readonly inside: number | undefined
  /** Worker: the descriptor of its first socket; the others follow. */
  readonly socket: number
  /**
   * Starts this program again with the same arguments and directory. `sockets` are descriptors of this process that
   * stay open here. `onMessage` receives the worker's messages; `onEnd` runs once when the process is gone, with its exit
   * status as text.
   */
  start(
    number: number,
    sockets: readonly number[],
    onMessage: (message: unknown) => void,
    onEnd: (how: string) => void,
  ): WorkerProcess
  /** Worker: sends to the first process. `sent` runs when the message is sent or cannot be sent. */
  send(message: object, sent?: () => void): void
  /** Worker: receives messages of the first process; `onGone` runs when that process is gone. */
  receive(onMessage: (message: unknown) => void, onGone: () => void): void
}

/**
 * libc functions as bound by the runtime's FFI. A result of -1 means failure, with the code in `errno`. Pointers are
 * numbers from `address`. Calls never block: all descriptors are non-blocking.
 */
export interface Libc {
  /** Size of a pointer in bytes. */
  readonly pointerBytes: number
  /** Memory address of a buffer. Valid while the buffer lives; for WebAssembly memory, until it grows. */
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
  poll(descriptors: number, count: number, timeout: number): number
  timerfd_create(clock: number, flags: number): number
  timerfd_settime(fd: number, flags: number, value: number, old: number): number
  /** pidfd_open(2): readable when the process has ended. */
  pidfd_open(pid: number, flags: number): number
  /** fcntl(2) with an integer argument. */
  fcntl(fd: number, command: number, argument: number): number
  close(fd: number): number
  /** CLOCK_MONOTONIC, nanoseconds. */
  monotonic(): bigint
  /** errno of the preceding call. */
  errno(): number
  /** Name of an error number, such as `EADDRINUSE`. */
  errorName(errno: number): string
}

/** Packages with a binary, and functions bound by FFI. */
export interface NativeCode {
  /** Why none is loaded; undefined: it is loaded where it is available. */
  readonly refusal: string | undefined
  /** Loads none from now on. */
  forbid(why: string): void
}

/** Operating system services other than sockets. */
export interface OperatingSystem {
  readonly pid: number
  /** The process that started this one, or that took it over when that had ended. */
  parentPid?(): number
  /** Whether a process exists. */
  isAlive?(pid: number): boolean
  readonly native?: NativeCode | undefined
  /** An environment variable. */
  env(name: string): string | undefined
  /**
   * Reads a small system text file such as /etc/passwd.
   * @throws Error
   */
  readText(path: string): string
  /**
   * libc by FFI, bound at the first call.
   * @throws NotAvailable with the reason
   */
  libc(): Libc
  /**
   * Calls back when a descriptor of syscalls() is readable or has an error. The callback reads with syscalls() until
   * nothing is left. `first` is a datagram that the runtime has already read (Bun); it precedes all others, and the
   * callback owns it. The caller keeps the descriptor and closes the watch before it. An empty datagram may be lost.
   * A watch keeps the event loop alive.
   * @throws NotAvailable
   */
  watch(fd: number, onReadable: (first?: Uint8Array) => void): Watch
  /**
   * Creates a TCP listener on a bound descriptor of syscalls(), which the runtime then owns. Its backlog is that of
   * protocol.md 9.2. Of `options`, nodelay and keepalive apply. `accept` and `onError` as in Runtime.listenTcp.
   */
  adoptListener(
    fd: number,
    options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: SystemError) => void,
  ): Promise<TcpListener>
  /**
   * Creates a TCP connection on a connecting or connected descriptor of syscalls(), which the runtime then owns. Its
   * options are not changed; its `remote` is undefined. Exactly one of onOpen or handlers.onClose(error) runs first,
   * never inside this call.
   */
  adoptConnection(fd: number, handlers: TcpHandlers, onOpen: () => void): TcpConnection
  /** Undefined where user ids are not numeric (Windows). */
  readonly identity: IdentityCalls | undefined
  /** Undefined where process sessions do not exist (Windows). */
  readonly daemon: DaemonCalls | undefined
  /** Undefined where processes cannot share a port with each peer bound to one of them. */
  readonly workers?: WorkerCalls | undefined
}

/** Size of a terminal, in characters. */
export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** The terminal of a process. */
export interface Terminal {
  /** Size of standard output. */
  size(): TerminalSize
  /** Calls back when the size changes. */
  onResize(callback: () => void): void
  /** Enters raw mode: each key is reported at once and not echoed, as its input sequence, such as `q` or `\x1b[A`. */
  onKeys(callback: (keys: string) => void): void
  /** Leaves raw mode. */
  endKeys(): void
  /** Calls back when the process ends, if the runtime can detect it; the callback must be synchronous. */
  onExit(callback: () => void): void
}

/** Services for subcommands: files, a terminal, and the program's command line. */
export interface CommandConsole {
  /**
   * The words that started the program, without its arguments: the runtime as typed, words that it requires before the
   * script, and the path of the script: empty where the program is one executable, whose path is `command`.
   */
  readonly started: { readonly command: string; readonly words?: readonly string[]; readonly script: string }
  readonly directory: string
  /**
   * Creates a file that only its owner can read. Does not overwrite or follow links. A partly written file is removed.
   * @throws Error, with code EEXIST if the name exists
   */
  createFile(path: string, text: string): void
  /**
   * The same in place of a file or a link that exists, which stays as it is if the new file cannot be written.
   * @param isChange the new file is where the link leads, and keeps owner and permission bits if the system permits it
   */
  replaceFile(path: string, text: string, isChange?: boolean): void
  removeFile(path: string): void
  /** Creates a directory that only its owner can use, and those above it; one that exists is left as it is. */
  createDirectory(path: string): void
  /**
   * Permission bits; undefined where files have none (Windows).
   * @throws Error, with code ENOENT if the file does not exist
   */
  fileMode(path: string): number | undefined
  isTerminal(stream: 'stdin' | 'stdout' | 'stderr'): boolean
  /** Prints a question to standard error and reads a line of standard input; undefined at end of file. */
  ask(question: string): Promise<string | undefined>
  /**
   * Reads standard input to its end, or until `isComplete` says that nothing has to follow, which a terminal asks for.
   * @throws Error if it is longer than `limit` bytes
   */
  readInput(limit: number, isComplete: (bytes: Uint8Array) => boolean): Promise<Uint8Array>
}

/** Handle of a pending callback, for the clock that created it. */
export type Timer = object

/** Time, timers and event loop turns. Tests implement it in virtual time. */
export interface Clock {
  /** Monotonic milliseconds with a fraction. */
  monotonic(): number
  /** Wall clock, milliseconds since 1970. */
  wall(): number
  /** Calls back once after `ms`, which is at most 2^31 - 1. */
  setTimer(callback: () => void, ms: number): Timer
  clearTimer(timer: Timer | undefined): void
  /** Calls back once, after the I/O events of the current event loop turn. */
  defer(callback: () => void): Timer
  clearDeferred(timer: Timer | undefined): void
}

/**
 * Writes a line of the log, without waiting for its reader.
 * @returns false if the line is dropped because the reader is slow
 */
export type LogPrint = (stream: 'stdout' | 'stderr', text: string) => boolean

/** Calls on a file that a log is appended to. Errors are thrown or passed with the system's code in their text. */
export interface LogFileCalls {
  /**
   * Opens a file for appending, creates it if it is missing, and never waits for the reader of a FIFO. Directories,
   * block devices and sockets are refused.
   */
  open(path: string): { readonly fd: number; readonly isNew: boolean }
  /** Why open() would fail, as far as that shows without creating anything. */
  problem(path: string): string | undefined
  /** Appends some of the bytes in the background. `done` never runs inside this call. */
  write(fd: number, bytes: Uint8Array, done: (error: Error | null, written: number) => void): void
  /** The same at once, before the process ends. */
  writeNow(fd: number, bytes: Uint8Array): void
  setOwner(fd: number, uid: number | undefined, gid: number | undefined): void
  close(fd: number): void
  /** Calls back when the process ends, if the runtime can detect it; the callback must be synchronous. */
  onExit(callback: () => void): void
}

export interface Runtime {
  readonly name: 'node' | 'bun' | 'deno' | 'browser'
  readonly version: string
  readonly clock: Clock
  /**
   * All addresses of a host, in getaddrinfo's order (AI_ADDRCONFIG). `host` may be an IP literal. Rejects with an Error
   * that has a code.
   */
  resolve(host: string): Promise<readonly Omit<SocketAddress, 'port'>[]>
  /** Rejects with NotAvailable if mode `fast` is not supported. */
  openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket>
  /** SO_REUSEADDR is set. `accept` returns the handlers of the new connection, or null to close it at once. */
  listenTcp(
    address: SocketAddress,
    options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
    onError: (error: SystemError) => void,
  ): Promise<TcpListener>
  /** Non-blocking dial. Exactly one of onOpen or handlers.onClose(error) runs first. */
  dialTcp(address: SocketAddress, options: TcpOptions, handlers: TcpHandlers, onOpen: () => void): TcpConnection
  /** Undefined where there are none. */
  readonly unix?: UnixSockets | undefined
  /** CPU time of the process, user and system, in milliseconds. */
  cpuTime(): number
  /** Resident memory of the process in bytes. Absent: it cannot be measured. */
  residentBytes?(): number
  /**
   * Serves a fetch handler (hono's app.fetch), one request per connection, within the limits of protocol.md 11.
   * `target` is the request target as received; `request.url` is normalized.
   */
  serveHttp(address: SocketAddress, fetch: HttpHandler): Promise<HttpServer>
  /** Calls back on a termination signal (SIGINT, SIGTERM). */
  onTerminate(callback: (signal: string) => void): void
  /** Calls back on SIGHUP: reload the configuration. Never on Windows. */
  onReload(callback: () => void): void
  /** Calls back on SIGUSR2, which otherwise ends the process: open the log file again. Never on Windows. */
  onReopen?(callback: () => void): void
  /** Reads a file as bytes. */
  readFile(path: string): Promise<Uint8Array>
  /** Writes to standard output or standard error, synchronously as far as the runtime allows. */
  print(stream: 'stdout' | 'stderr', text: string): void
  /**
   * Makes room for WebAssembly, that of the engine and of the runtime's own HTTP parser, in a limited address space.
   * May start the program again in this process: call it while nothing is open.
   * @param warn gets a line if the space hardly suffices: the runtime may abort
   * @param mayRestart false: it only warns
   */
  prepareMemory?(warn: (text: string) => void, mayRestart?: boolean): void
  /**
   * Opens standard output and standard error for the log of a long-lived process. Absent: `print` is used.
   * @param native whether system calls may be loaded for it
   */
  openLog?(native: boolean): LogPrint
  /** Loads the calls for a log in a file. Absent: there are no files. */
  logFiles?(): Promise<LogFileCalls>
  exit(status: number): never
  /** Undefined in hosts that are not operating system processes. */
  readonly os?: OperatingSystem | undefined
  /** Undefined in hosts without subcommands. */
  readonly commandConsole?: CommandConsole | undefined
  /** Undefined in hosts without standard streams. */
  readonly terminal?: Terminal | undefined
}
