/**
 * System calls behind one small face: the table of libc functions that a runtime binds by FFI, and typed calls on it
 * that throw errors with a code. Linux only; numbers are those of asm-generic. What the calls are used for is in
 * tuning.ts (socket options), syslog.ts and notify.ts.
 */
import { ADDRESS_RECORD_BYTES, formatAddress, readRecord, writeRecord } from '../net/address.ts'
import { systemError } from '../net/native-address.ts'
import type { SocketAddress } from '../runtime.ts'

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
const AF_PACKET = 17
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const IPPROTO_IP = 0
const IPPROTO_TCP = 6
const IPPROTO_IPV6 = 41
const IPPROTO_RAW = 255
const IP_HDRINCL = 3
const IPV6_HDRINCL = 36
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd
const TCP_NODELAY = 1
const TCP_WINDOW_CLAMP = 10
const TCP_QUICKACK = 12
export const SOL_UDP = 17
export const UDP_SEGMENT = 103
export const UDP_GRO = 104
export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
const SO_KEEPALIVE = 9
export const SO_REUSEPORT = 15
export const SO_BINDTODEVICE = 25
const SO_ATTACH_FILTER = 26
const F_SETFL = 4
const F_SETOWN = 8
const F_DUPFD_CLOEXEC = 1030
const O_NONBLOCK = 0o4000
const O_ASYNC = 0o20000
/** Of all Linux machines but alpha, mips, parisc and sparc, which neither runtime knows. */
const EAGAIN = 11
const MSG_TRUNC = 0x20
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

/** Bytes of struct sockaddr_in, sockaddr_in6, sockaddr_ll, and of sun_path in sockaddr_un. */
const SOCKADDR_IN_BYTES = 16
export const SOCKADDR_IN6_BYTES = 28
const SOCKADDR_LL_BYTES = 20
/** A port that nobody needs to serve: asking for a route sends nothing. */
const ROUTE_PORT = 9
const SUN_PATH_BYTES = 108
/** Longest datagram sent or received here, bytes. */
const DATAGRAM_BYTES = 8192

/** Why a call that this program could use is not there. The message is for people. */
export class NotAvailable extends Error {
  override readonly name = 'NotAvailable'
}

const CAP_NET_RAW_REMEDY =
  "Give it to the runtime's binary (setcap cap_net_raw+ep FILE), or to the service (AmbientCapabilities=CAP_NET_RAW), or start as root with -u to give root up"

/**
 * libc functions as the runtime's FFI gives them: -1 means failure, then `errno` tells. Pointers are numbers from
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

/** Writes a struct sockaddr_in or sockaddr_in6 at `at`, where 28 bytes are free. Result: its length. */
export function writeSockaddr(address: SocketAddress, view: DataView, at: number, littleEndian: boolean): number {
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  writeRecord(address, record, 0)
  for (let i = 0; i < SOCKADDR_IN6_BYTES; i += 4) view.setUint32(at + i, 0)
  view.setUint16(at, address.family === 4 ? AF_INET : AF_INET6, littleEndian)
  view.setUint16(at + 2, address.port)
  const [start, length] = address.family === 4 ? [at + 4, 4] : [at + 8, 16]
  for (let i = 0; i < length; i++) view.setUint8(start + i, record[8 + i] ?? 0)
  if (address.family === 4) return SOCKADDR_IN_BYTES
  view.setUint32(at + 24, address.scope, littleEndian)
  return SOCKADDR_IN6_BYTES
}

/** The address in a struct sockaddr_in or sockaddr_in6; undefined when it is of another kind. */
export function readSockaddr(view: DataView, at: number, littleEndian: boolean): SocketAddress | undefined {
  const family = view.getUint16(at, littleEndian)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  const fields = new DataView(record.buffer)
  fields.setUint16(0, family === AF_INET ? 4 : 6, true)
  fields.setUint16(2, view.getUint16(at + 2), true)
  const [from, length] = family === AF_INET ? [at + 4, 4] : [at + 8, 16]
  for (let i = 0; i < length; i++) record[8 + i] = view.getUint8(from + i)
  if (family === AF_INET6) fields.setUint32(4, view.getUint32(at + 24, littleEndian), true)
  return readRecord(record, 0)
}

/** Layout of the arena below: a socket address, an int or a name, a length, a datagram. */
const AT_ADDRESS = 0
const AT_VALUE = 128
const AT_LENGTH = 192
const AT_DATA = 256

/** Typed calls on a libc. One for each process is enough. */
export class Sys {
  readonly #libc: Libc
  /** Every pointer handed out points in here: nothing moves and nothing is collected during a call. */
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

  /** A non-blocking socket that child processes do not inherit. */
  socket(domain: number, type: number, protocol = 0): number {
    return this.#check('socket', this.#libc.socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol))
  }

  /** Binds to an IP address. The error says the address, as Node's own does. */
  bind(fd: number, address: SocketAddress, what: string): void {
    const length = this.#writeInet(address)
    if (this.#libc.bind(fd, this.#base + AT_ADDRESS, length) < 0) throw this.#error('bind', what)
  }

  /** Binds a unix socket to a path. */
  bindUnix(fd: number, path: string): void {
    const length = this.#writeUnix(path)
    this.#check(`bind ${path}`, this.#libc.bind(fd, this.#base + AT_ADDRESS, length))
  }

  /** Connects a unix socket; a path that begins with `@` or NUL is an abstract name (unix(7)). */
  connectUnix(fd: number, path: string): void {
    const length = this.#writeUnix(path)
    this.#check(`connect ${path}`, this.#libc.connect(fd, this.#base + AT_ADDRESS, length))
  }

  /** Connects an IP socket, or begins to. */
  connect(fd: number, address: SocketAddress): void {
    const length = this.#writeInet(address)
    if (this.#libc.connect(fd, this.#base + AT_ADDRESS, length) >= 0) return
    const error = this.#error('connect', formatAddress(address))
    if (error.code !== 'EINPROGRESS') throw error
  }

  listen(fd: number, backlog: number): void {
    this.#check('listen', this.#libc.listen(fd, backlog))
  }

  /** Where an IP socket is bound. */
  localAddress(fd: number): SocketAddress {
    this.#view.setUint32(AT_LENGTH, SOCKADDR_IN6_BYTES, this.littleEndian)
    this.#check('getsockname', this.#libc.getsockname(fd, this.#base + AT_ADDRESS, this.#base + AT_LENGTH))
    const address = readSockaddr(this.#view, AT_ADDRESS, this.littleEndian)
    if (address === undefined) throw systemError('EAFNOSUPPORT', 'not an IP socket', 'getsockname')
    return address
  }

  /** Port that an IP socket is bound to. */
  port(fd: number): number {
    return this.localAddress(fd).port
  }

  /** The address that packets to `to` leave with; its port is 0. The error is that of the route (ENETUNREACH, ...). */
  sourceFor(to: SocketAddress): SocketAddress {
    const fd = this.socket(to.family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM)
    try {
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

  /** Number of a network interface. @throws ENODEV */
  interfaceIndex(name: string): number {
    const encoded = new TextEncoder().encode(name)
    this.#bytes.fill(0, AT_VALUE, AT_LENGTH)
    this.#bytes.set(encoded.subarray(0, AT_LENGTH - AT_VALUE - 1), AT_VALUE)
    const index = this.#libc.if_nametoindex(this.#base + AT_VALUE)
    if (index <= 0) throw systemError('ENODEV', `no such interface: ${name}`, 'if_nametoindex')
    return index
  }

  /**
   * A TCP socket with the least of windows, for the cover of dpi/tcp-wnd: its options in the order of protocol.md 9.2. Then come bind and listen, or
   * connect.
   * @param listener for a listening socket, which gets SO_REUSEADDR first
   */
  coverSocket(family: 4 | 6, listener?: { readonly reuseport: boolean }): number {
    const fd = this.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM)
    try {
      if (listener !== undefined) this.setOption(fd, SO_REUSEADDR, 1)
      if (listener?.reuseport === true) this.setOption(fd, SO_REUSEPORT, 1)
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
   * A socket for incoming packets of one family, from the IP header on. It gets nothing before bindPacket.
   * @throws NotAvailable without CAP_NET_RAW
   */
  packetSocket(family: 4 | 6): number {
    // protocol 0: with another one packets of everybody would wait in it before it has a filter
    return this.#privileged(() => this.socket(AF_PACKET, SOCK_DGRAM), `IPv${family} packets`)
  }

  /** Lets a packet socket hear one interface, or with 0 all of them. Needs no privilege; may come again. */
  bindPacket(fd: number, family: 4 | 6, ifindex: number): void {
    this.#bytes.fill(0, AT_ADDRESS, AT_ADDRESS + SOCKADDR_LL_BYTES)
    this.#view.setUint16(AT_ADDRESS, AF_PACKET, this.littleEndian)
    this.#view.setUint16(AT_ADDRESS + 2, family === 4 ? ETH_P_IP : ETH_P_IPV6)
    this.#view.setInt32(AT_ADDRESS + 4, ifindex, this.littleEndian)
    this.#check('bind', this.#libc.bind(fd, this.#base + AT_ADDRESS, SOCKADDR_LL_BYTES))
  }

  /** Attaches a classic BPF program of `count` instructions that stands at `program` (a memory address), in place of the one before. */
  attachFilter(fd: number, program: number, count: number): void {
    // struct sock_fprog
    this.#view.setUint32(AT_VALUE, 0)
    this.#view.setUint16(AT_VALUE, count, this.littleEndian)
    this.#view.setBigUint64(AT_VALUE + 8, BigInt(program), this.littleEndian)
    const result = this.#libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, this.#base + AT_VALUE, 16)
    this.#check('setsockopt', result)
  }

  /**
   * A socket for outgoing packets of one family, with their IP header.
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
      if (!(error instanceof Error && 'code' in error && (error.code === 'EPERM' || error.code === 'EACCES')))
        throw error
      throw new NotAvailable(`not permitted: raw ${what} need CAP_NET_RAW. ${CAP_NET_RAW_REMEDY}`)
    }
  }

  /** @throws NotAvailable where structures with pointers have another layout than message-vector.ts writes */
  checkLayout(): void {
    if (this.#libc.pointerBytes !== 8 || !this.littleEndian) {
      throw new NotAvailable('not available: only on 64-bit little-endian machines')
    }
  }

  /** Memory address of a buffer, as message vectors hold it. Of a WebAssembly memory good until it grows. */
  addressOf(buffer: ArrayBuffer): number {
    return this.#libc.address(buffer)
  }

  /**
   * recvmmsg(2) without waiting; lengths are those on the wire, also of what was cut. Result: how many of the `count` mmsghdr at `messages` were filled;
   * 0: nothing is there; below 0: -errno.
   */
  recvmmsg(fd: number, messages: number, count: number): number {
    const result = this.#libc.recvmmsg(fd, messages, count, MSG_DONTWAIT | MSG_TRUNC, 0)
    return result >= 0 ? result : this.#failure()
  }

  /** sendmmsg(2) without waiting. Result: how many left; 0: it would block; below 0: -errno of the first one. */
  sendmmsg(fd: number, messages: number, count: number): number {
    const result = this.#libc.sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL)
    return result >= 0 ? result : this.#failure()
  }

  #failure(): number {
    const errno = this.#libc.errno()
    return errno === EAGAIN ? 0 : -errno
  }

  /** `ENETDOWN` for the number that a batch call gave as -errno. */
  errorName(errno: number): string {
    return this.#libc.errorName(errno)
  }

  /** The process gets SIGIO whenever something arrives at a socket. Its default action is death: have a handler first. */
  signalArrivals(fd: number, pid: number): void {
    this.#check('fcntl', this.#libc.fcntl(fd, F_SETOWN, pid))
    this.#check('fcntl', this.#libc.fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC))
  }

  /** A second descriptor of the same socket, not inherited by child processes. */
  duplicate(fd: number): number {
    return this.#check('fcntl', this.#libc.fcntl(fd, F_DUPFD_CLOEXEC, 0))
  }

  /** SO_BINDTODEVICE. ENODEV for a name that is no interface. */
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

  /** Sends a datagram of at most 8192 bytes on a connected socket; more is cut off. */
  send(fd: number, data: Uint8Array): void {
    const length = Math.min(data.length, DATAGRAM_BYTES)
    this.#bytes.set(data.subarray(0, length), AT_DATA)
    this.#check('send', this.#libc.send(fd, this.#base + AT_DATA, length, MSG_DONTWAIT | MSG_NOSIGNAL))
  }

  /** One datagram, or undefined when none waits. */
  receive(fd: number): Uint8Array | undefined {
    const length = this.#libc.recv(fd, this.#base + AT_DATA, DATAGRAM_BYTES, MSG_DONTWAIT)
    if (length >= 0) return this.#bytes.slice(AT_DATA, AT_DATA + length)
    const error = this.#error('recv')
    if (error.code === 'EAGAIN') return undefined
    throw error
  }

  /** The system's monotonic clock, microseconds: other programs mean the same by it. */
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
    // a path is closed by a NUL, an abstract name is as long as it is
    const length = name.length + (abstract ? 0 : 1)
    if (name.length === 0 || length > SUN_PATH_BYTES) {
      throw systemError('ENAMETOOLONG', `no path for a unix socket: ${path}`)
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

  #error(syscall: string, what = ''): NodeJS.ErrnoException {
    const code = this.#libc.errorName(this.#libc.errno())
    const [call = syscall] = syscall.split(' ')
    const error: NodeJS.ErrnoException = new Error(`${syscall} ${code}${what === '' ? '' : ` ${what}`}`)
    error.code = code
    error.syscall = call
    return error
  }
}
