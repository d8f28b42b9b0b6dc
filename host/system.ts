/**
 * System calls behind one small face: the table of libc functions that a runtime binds by FFI, and typed calls on it
 * that throw errors with a code. Linux only; numbers are those of asm-generic. What the calls are used for is in
 * tuning.ts (socket options), syslog.ts and notify.ts.
 */
import { ADDRESS_RECORD_BYTES, writeRecord } from './address.ts'
import type { SocketAddress } from './runtime.ts'
import { systemError } from './sockaddr.ts'

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_REUSEPORT = 15
export const SO_BINDTODEVICE = 25
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

/** Bytes of struct sockaddr_in, sockaddr_in6 and of sun_path in sockaddr_un. */
const SOCKADDR_IN_BYTES = 16
const SOCKADDR_IN6_BYTES = 28
const SUN_PATH_BYTES = 108
/** Longest datagram sent or received here, bytes. */
const DATAGRAM_BYTES = 8192

/** Why a call that this program could use is not there. The message is for people. */
export class NotAvailable extends Error {
  override readonly name = 'NotAvailable'
}

/**
 * libc functions as the runtime's FFI gives them: -1 means failure, then `errno` tells. Pointers are numbers from
 * `address`. Calls never block here: descriptors are non-blocking.
 */
export interface Libc {
  /** Where the bytes of a buffer are. Valid while the buffer lives. */
  address(buffer: ArrayBuffer): number
  socket(domain: number, type: number, protocol: number): number
  bind(fd: number, address: number, length: number): number
  connect(fd: number, address: number, length: number): number
  setsockopt(fd: number, level: number, name: number, value: number, length: number): number
  getsockopt(fd: number, level: number, name: number, value: number, length: number): number
  getsockname(fd: number, address: number, length: number): number
  send(fd: number, data: number, length: number, flags: number): number
  recv(fd: number, data: number, length: number, flags: number): number
  close(fd: number): number
  /** CLOCK_MONOTONIC, nanoseconds. */
  monotonic(): bigint
  /** errno of the call just made. */
  errno(): number
  /** `EADDRINUSE` for its number. */
  errorName(errno: number): string
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
  readonly #littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

  constructor(libc: Libc) {
    this.#libc = libc
    this.#base = libc.address(this.#arena)
  }

  /** A non-blocking socket that child processes do not inherit. */
  socket(domain: number, type: number): number {
    return this.#check('socket', this.#libc.socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))
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

  /** Port that an IP socket is bound to. */
  port(fd: number): number {
    this.#view.setUint32(AT_LENGTH, SOCKADDR_IN6_BYTES, this.#littleEndian)
    this.#check('getsockname', this.#libc.getsockname(fd, this.#base + AT_ADDRESS, this.#base + AT_LENGTH))
    return this.#view.getUint16(AT_ADDRESS + 2)
  }

  setOption(fd: number, name: number, value: number): void {
    this.#view.setInt32(AT_VALUE, value, this.#littleEndian)
    this.#check('setsockopt', this.#libc.setsockopt(fd, SOL_SOCKET, name, this.#base + AT_VALUE, 4))
  }

  /** SO_BINDTODEVICE. ENODEV for a name that is no interface. */
  bindToDevice(fd: number, name: string): void {
    const encoded = new TextEncoder().encode(name)
    this.#bytes.set(encoded.subarray(0, AT_LENGTH - AT_VALUE), AT_VALUE)
    const result = this.#libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, this.#base + AT_VALUE, encoded.length)
    this.#check('setsockopt', result)
  }

  getOption(fd: number, name: number): number {
    this.#view.setUint32(AT_LENGTH, 4, this.#littleEndian)
    const [value, length] = [this.#base + AT_VALUE, this.#base + AT_LENGTH]
    this.#check('getsockopt', this.#libc.getsockopt(fd, SOL_SOCKET, name, value, length))
    return this.#view.getInt32(AT_VALUE, this.#littleEndian)
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
    const record = new Uint8Array(ADDRESS_RECORD_BYTES)
    writeRecord(address, record, 0)
    this.#bytes.fill(0, AT_ADDRESS, AT_ADDRESS + SOCKADDR_IN6_BYTES)
    this.#view.setUint16(AT_ADDRESS, address.family === 4 ? AF_INET : AF_INET6, this.#littleEndian)
    this.#view.setUint16(AT_ADDRESS + 2, address.port)
    if (address.family === 4) {
      this.#bytes.set(record.subarray(8, 12), AT_ADDRESS + 4)
      return SOCKADDR_IN_BYTES
    }
    this.#bytes.set(record.subarray(8, 24), AT_ADDRESS + 8)
    this.#view.setUint32(AT_ADDRESS + 24, address.scope, this.#littleEndian)
    return SOCKADDR_IN6_BYTES
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
    this.#view.setUint16(AT_ADDRESS, AF_UNIX, this.#littleEndian)
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
