/**
 * Typed system calls on the libc functions that a runtime binds by FFI. Failures throw errors with a code. Linux only.
 */

import { codeOf, NotAvailable, type SystemError, systemError } from '../errors.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Libc } from '../runtime.ts'
import {
  AF_INET,
  AF_INET6,
  AF_PACKET,
  AF_UNIX,
  EAGAIN,
  ETH_P_IP,
  ETH_P_IPV6,
  F_DUPFD_CLOEXEC,
  F_SETFL,
  F_SETOWN,
  IP_HDRINCL,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_RAW,
  IPPROTO_TCP,
  IPV6_HDRINCL,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  O_ASYNC,
  O_NONBLOCK,
  POLLOUT,
  SO_ATTACH_FILTER,
  SO_BINDTODEVICE,
  SO_KEEPALIVE,
  SO_MARK,
  SO_RCVBUF,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SO_SNDBUF,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_NODELAY,
  TCP_QUICKACK,
  TCP_WINDOW_CLAMP,
} from './libc.ts'
import { readSockaddr, SOCKADDR_IN6_BYTES, writeSockaddr } from './sockaddr.ts'

/** Size of struct sockaddr_ll in bytes. */
const SOCKADDR_LL_BYTES = 20
/** Any port: a route lookup sends nothing. */
const ROUTE_PORT = 9
/** Size of sun_path in struct sockaddr_un, bytes. */
const SUN_PATH_BYTES = 108
/** Longest datagram of send() and receive(), bytes. */
const DATAGRAM_BYTES = 8192

const CAP_NET_RAW_REMEDY =
  "Grant it to the runtime's binary (setcap cap_net_raw+ep FILE) or to the service (AmbientCapabilities=CAP_NET_RAW), or start as root and drop privileges with -u"

/** Layout of the arena: a socket address, an int or a name, a length, a datagram. */
const AT_ADDRESS = 0
const AT_VALUE = 128
const AT_LENGTH = 192
const AT_DATA = 256

/** Typed calls on a libc. One instance per process is enough. */
export class Syscalls {
  readonly #libc: Libc
  /** All pointers refer to this buffer, so nothing moves or is collected during a call. */
  readonly #arena = new ArrayBuffer(AT_DATA + DATAGRAM_BYTES)
  readonly #bytes = new Uint8Array(this.#arena)
  readonly #view = new DataView(this.#arena)
  readonly #base: number
  /** Byte order of the machine. */
  readonly littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

  constructor(libc: Libc) {
    this.#libc = libc
    this.#base = libc.address(this.#arena)
  }

  /** Opens a non-blocking, close-on-exec socket. */
  socket(domain: number, type: number, protocol = 0): number {
    return this.#check('socket', this.#libc.socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol))
  }

  /** Binds to an IP address. The error contains the address, as Node's does. */
  bind(fd: number, address: SocketAddress, what: string): void {
    const length = this.#writeInet(address)
    if (this.#libc.bind(fd, this.#base + AT_ADDRESS, length) < 0) throw this.#error('bind', what)
  }

  /** Binds a unix socket to a path. */
  bindUnix(fd: number, path: string): void {
    const length = this.#writeUnix(path)
    this.#check(`bind ${path}`, this.#libc.bind(fd, this.#base + AT_ADDRESS, length))
  }

  /** Connects a unix socket; a path that starts with `@` or NUL is an abstract name (unix(7)). */
  connectUnix(fd: number, path: string): void {
    const length = this.#writeUnix(path)
    this.#check(`connect ${path}`, this.#libc.connect(fd, this.#base + AT_ADDRESS, length))
  }

  /** Connects an IP socket, or starts to. */
  connect(fd: number, address: SocketAddress): void {
    const length = this.#writeInet(address)
    if (this.#libc.connect(fd, this.#base + AT_ADDRESS, length) >= 0) return
    const error = this.#error('connect', formatAddress(address))
    if (error.code !== 'EINPROGRESS') throw error
  }

  listen(fd: number, backlog: number): void {
    this.#check('listen', this.#libc.listen(fd, backlog))
  }

  /** Local address of an IP socket. */
  localAddress(fd: number): SocketAddress {
    this.#view.setUint32(AT_LENGTH, SOCKADDR_IN6_BYTES, this.littleEndian)
    this.#check('getsockname', this.#libc.getsockname(fd, this.#base + AT_ADDRESS, this.#base + AT_LENGTH))
    const address = readSockaddr(this.#view, AT_ADDRESS, this.littleEndian)
    if (address === undefined) throw systemError('EAFNOSUPPORT', 'not an IP socket', 'getsockname')
    return address
  }

  /** Local port of an IP socket. */
  port(fd: number): number {
    return this.localAddress(fd).port
  }

  /**
   * Source address of packets to `to` with a mark, with port 0. Throws the error of the route (ENETUNREACH, ...) or of
   * the mark.
   */
  sourceFor(to: SocketAddress, fwmark = 0): SocketAddress {
    const fd = this.socket(to.family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM)
    try {
      if (fwmark !== 0) this.setOption(fd, SO_MARK, fwmark | 0)
      this.connect(fd, to.port === 0 ? { ...to, port: ROUTE_PORT } : to)
      return { ...this.localAddress(fd), port: 0 }
    } finally {
      this.close(fd)
    }
  }

  setOption(fd: number, name: number, value: number, level = SOL_SOCKET): void {
    this.#view.setInt32(AT_VALUE, value, this.littleEndian)
    this.#check('setsockopt', this.#libc.setsockopt(fd, level, name, this.#base + AT_VALUE, 4))
  }

  /**
   * Index of a network interface.
   * @throws ENODEV
   */
  interfaceIndex(name: string): number {
    const encoded = new TextEncoder().encode(name)
    this.#bytes.fill(0, AT_VALUE, AT_LENGTH)
    this.#bytes.set(encoded.subarray(0, AT_LENGTH - AT_VALUE - 1), AT_VALUE)
    const index = this.#libc.if_nametoindex(this.#base + AT_VALUE)
    if (index <= 0) throw systemError('ENODEV', `no such interface: ${name}`, 'if_nametoindex')
    return index
  }

  /**
   * Opens a TCP socket with minimal windows for the cover of dpi/tcp-wnd, options in the order of protocol.md 9.2. The
   * caller binds and listens, or connects.
   * @param listener for a listening socket, which gets SO_REUSEADDR first
   */
  coverSocket(family: 4 | 6, listener?: { readonly reuseport: boolean }): number {
    const fd = this.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM)
    try {
      if (listener !== undefined) this.setOption(fd, SO_REUSEADDR, 1)
      if (listener?.reuseport === true) this.setOption(fd, SO_REUSEPORT, 1)
      // packets of one family are captured: an IPv4 client of [::] would only appear to be served
      if (listener !== undefined && family === 6) this.setOption(fd, IPV6_V6ONLY, 1, IPPROTO_IPV6)
      this.setOption(fd, SO_SNDBUF, 1)
      this.setOption(fd, SO_RCVBUF, 1)
      this.setOption(fd, TCP_NODELAY, 1, IPPROTO_TCP)
      this.setOption(fd, SO_KEEPALIVE, 0)
      this.setOption(fd, TCP_WINDOW_CLAMP, 1, IPPROTO_TCP)
      this.setOption(fd, TCP_QUICKACK, 0, IPPROTO_TCP)
      return fd
    } catch (error) {
      this.close(fd)
      throw error
    }
  }

  /**
   * Opens a socket for incoming packets of one family, starting with the IP header. It receives nothing before
   * bindPacket.
   * @throws NotAvailable without CAP_NET_RAW
   */
  packetSocket(family: 4 | 6): number {
    // protocol 0: any other would queue unfiltered packets before the filter is attached
    return this.#privileged(() => this.socket(AF_PACKET, SOCK_DGRAM), `IPv${family} packets`)
  }

  /** Binds a packet socket to one interface, or to all (0). Requires no privilege; may be repeated. */
  bindPacket(fd: number, family: 4 | 6, ifindex: number): void {
    this.#bytes.fill(0, AT_ADDRESS, AT_ADDRESS + SOCKADDR_LL_BYTES)
    this.#view.setUint16(AT_ADDRESS, AF_PACKET, this.littleEndian)
    this.#view.setUint16(AT_ADDRESS + 2, family === 4 ? ETH_P_IP : ETH_P_IPV6)
    this.#view.setInt32(AT_ADDRESS + 4, ifindex, this.littleEndian)
    this.#check('bind', this.#libc.bind(fd, this.#base + AT_ADDRESS, SOCKADDR_LL_BYTES))
  }

  /** Attaches a classic BPF program of `count` instructions at memory address `program`; replaces the previous one. */
  attachFilter(fd: number, program: number, count: number): void {
    // struct sock_fprog
    this.#view.setUint32(AT_VALUE, 0)
    this.#view.setUint16(AT_VALUE, count, this.littleEndian)
    this.#view.setBigUint64(AT_VALUE + 8, BigInt(program), this.littleEndian)
    const result = this.#libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, this.#base + AT_VALUE, 16)
    this.#check('setsockopt', result)
  }

  /**
   * Opens a socket for outgoing packets of one family that include their IP header.
   * @throws NotAvailable without CAP_NET_RAW
   */
  rawSocket(family: 4 | 6): number {
    const fd = this.#privileged(
      () => this.socket(family === 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_RAW),
      `IPv${family} packets`,
    )
    try {
      if (family === 4) this.setOption(fd, IP_HDRINCL, 1, IPPROTO_IP)
      else this.setOption(fd, IPV6_HDRINCL, 1, IPPROTO_IPV6)
      return fd
    } catch (error) {
      this.close(fd)
      throw error
    }
  }

  #privileged(open: () => number, what: string): number {
    try {
      return open()
    } catch (error) {
      if (codeOf(error) !== 'EPERM' && codeOf(error) !== 'EACCES') throw error
      throw new NotAvailable(`not permitted: raw ${what} require CAP_NET_RAW. ${CAP_NET_RAW_REMEDY}`)
    }
  }

  /** @throws NotAvailable if the layout of structures with pointers differs from that of message-vector.ts */
  checkLayout(): void {
    if (this.#libc.pointerBytes !== 8 || !this.littleEndian) {
      throw new NotAvailable('not available: only on 64-bit little-endian machines')
    }
  }

  /** Memory address of a buffer, for message vectors. For WebAssembly memory, valid until it grows. */
  addressOf(buffer: ArrayBuffer): number {
    return this.#libc.address(buffer)
  }

  /**
   * recvmmsg(2) without waiting. Lengths are those on the wire, also of truncated messages.
   * @returns how many of the `count` mmsghdr at `messages` were filled; 0: no data; below 0: -errno
   */
  recvmmsg(fd: number, messages: number, count: number): number {
    const result = this.#libc.recvmmsg(fd, messages, count, MSG_DONTWAIT | MSG_TRUNC, 0)
    return result >= 0 ? result : this.#failure()
  }

  /**
   * sendmmsg(2) without waiting.
   * @returns how many messages were sent; 0: would block; below 0: -errno of the first one
   */
  sendmmsg(fd: number, messages: number, count: number): number {
    const result = this.#libc.sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL)
    return result >= 0 ? result : this.#failure()
  }

  #failure(): number {
    const errno = this.#libc.errno()
    return errno === EAGAIN ? 0 : -errno
  }

  /** Name of a batch call's error number, such as `ENETDOWN`. */
  errorName(errno: number): string {
    return this.#libc.errorName(errno)
  }

  /** Requests SIGIO when data arrives at a socket. Install a handler first: the default action ends the process. */
  signalArrivals(fd: number, pid: number): void {
    this.#check('fcntl', this.#libc.fcntl(fd, F_SETOWN, pid))
    this.#check('fcntl', this.#libc.fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC))
  }

  /** Ends that. */
  ignoreArrivals(fd: number): void {
    this.#check('fcntl', this.#libc.fcntl(fd, F_SETFL, O_NONBLOCK))
  }

  /** Whether a write of some bytes would not wait now, or would fail. */
  isWritable(fd: number): boolean {
    // struct pollfd
    this.#view.setInt32(AT_VALUE, fd, this.littleEndian)
    this.#view.setInt16(AT_VALUE + 4, POLLOUT, this.littleEndian)
    this.#view.setInt16(AT_VALUE + 6, 0, this.littleEndian)
    return this.#libc.poll(this.#base + AT_VALUE, 1, 0) !== 0
  }

  /** Duplicates a descriptor, close-on-exec. */
  duplicate(fd: number): number {
    return this.#check('fcntl', this.#libc.fcntl(fd, F_DUPFD_CLOEXEC, 0))
  }

  /** SO_BINDTODEVICE. Throws ENODEV if `name` is not an interface. */
  bindToDevice(fd: number, name: string): void {
    const encoded = new TextEncoder().encode(name)
    this.#bytes.set(encoded.subarray(0, AT_LENGTH - AT_VALUE), AT_VALUE)
    const result = this.#libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, this.#base + AT_VALUE, encoded.length)
    this.#check('setsockopt', result)
  }

  getOption(fd: number, name: number, level = SOL_SOCKET): number {
    this.#view.setUint32(AT_LENGTH, 4, this.littleEndian)
    const [value, length] = [this.#base + AT_VALUE, this.#base + AT_LENGTH]
    this.#check('getsockopt', this.#libc.getsockopt(fd, level, name, value, length))
    return this.#view.getInt32(AT_VALUE, this.littleEndian)
  }

  /** Sends a datagram on a connected socket, truncated to 8192 bytes. */
  send(fd: number, data: Uint8Array): void {
    const length = Math.min(data.length, DATAGRAM_BYTES)
    this.#bytes.set(data.subarray(0, length), AT_DATA)
    this.#check('send', this.#libc.send(fd, this.#base + AT_DATA, length, MSG_DONTWAIT | MSG_NOSIGNAL))
  }

  /** Receives one datagram, or returns undefined if none is waiting. */
  receive(fd: number): Uint8Array | undefined {
    const length = this.#libc.recv(fd, this.#base + AT_DATA, DATAGRAM_BYTES, MSG_DONTWAIT)
    if (length >= 0) return this.#bytes.slice(AT_DATA, AT_DATA + length)
    const error = this.#error('recv')
    if (error.code === 'EAGAIN') return undefined
    throw error
  }

  /** The system's monotonic clock in microseconds, comparable with other programs. */
  monotonicMicroseconds(): bigint {
    return this.#libc.monotonic() / 1000n
  }

  close(fd: number): void {
    this.#libc.close(fd)
  }

  #writeInet(address: SocketAddress): number {
    return writeSockaddr(address, this.#view, AT_ADDRESS, this.littleEndian)
  }

  #writeUnix(path: string): number {
    const name = new TextEncoder().encode(path)
    const abstract = name[0] === 0x40 || name[0] === 0
    // a path ends with a NUL, an abstract name does not
    const length = name.length + (abstract ? 0 : 1)
    if (name.length === 0 || length > SUN_PATH_BYTES) {
      throw systemError('ENAMETOOLONG', `invalid unix socket path: ${path}`)
    }
    this.#bytes.fill(0, AT_ADDRESS, AT_VALUE)
    this.#view.setUint16(AT_ADDRESS, AF_UNIX, this.littleEndian)
    this.#bytes.set(name, AT_ADDRESS + 2)
    if (abstract) this.#bytes[AT_ADDRESS + 2] = 0
    return 2 + length
  }

  #check(what: string, result: number): number {
    if (result < 0) throw this.#error(what)
    return result
  }

  #error(syscall: string, what = ''): SystemError {
    const code = this.#libc.errorName(this.#libc.errno())
    const [call = syscall] = syscall.split(' ')
    const error: SystemError = new Error(`${syscall} ${code}${what === '' ? '' : ` ${what}`}`)
    error.code = code
    error.syscall = call
    return error
  }
}

const bound = new WeakMap<Libc, Syscalls>()

/**
 * The system calls of a runtime, created at first use.
 * @throws NotAvailable with the reason
 */
export function syscallsOf(os: { libc(): Libc }): Syscalls {
  const libc = os.libc()
  let calls = bound.get(libc)
  if (calls === undefined) {
    calls = new Syscalls(libc)
    bound.set(libc, calls)
  }
  return calls
}
