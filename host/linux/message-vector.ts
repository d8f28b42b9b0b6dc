/**
 * An array of struct mmsghdr for recvmmsg(2) and sendmmsg(2), laid out once: each message has one buffer or a run of
 * them, a socket address, and control messages: the size of segments, the local address. Buffers are anywhere, mostly in
 * an engine's memory. Linux, 64-bit little-endian.
 *
 *     mmsghdr, 64 bytes   0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags  56 len
 *     iovec, 16 bytes     0 base  8 len
 *     control, 24 bytes   0 len   8 level   12 type  16 value (UDP_SEGMENT: u16, UDP_GRO: int)
 *     control, 32 bytes   ...                        16 interface  20 local address  24 destination (IP_PKTINFO)
 *     control, 40 bytes   ...                        16 local address  32 interface (IPV6_PKTINFO)
 */

import { IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, SOL_UDP, UDP_GRO, UDP_SEGMENT } from './libc.ts'
import { LOCAL_WORDS } from './local-addresses.ts'
import { SOCKADDR_IN6_BYTES } from './sockaddr.ts'
import type { Syscalls } from './syscalls.ts'

const HEADER_BYTES = 64
const IOVEC_BYTES = 16
const NAME_BYTES = 32
const CONTROL_BYTES = 64

/** Word offsets. */
const HEADER_WORDS = HEADER_BYTES / 4
const IOVEC_WORDS = IOVEC_BYTES / 4
const NAME_WORDS = NAME_BYTES / 4
const CONTROL_WORDS = CONTROL_BYTES / 4
const AT_NAMELEN = 2
const AT_IOV = 4
const AT_IOVLEN = 6
const AT_CONTROL = 8
const AT_CONTROLLEN = 10
const AT_LEN = 14

const AF_INET = 2
const AF_INET6 = 10
const SOCKADDR_IN_BYTES = 16
/** Control messages: length, and the space they occupy (cmsg(3)). */
const SEGMENT_LEN = 18
const SEGMENT_SPACE = 24
const SEGMENT_SPACE_WORDS = SEGMENT_SPACE / 4
const PKTINFO_LEN = 28
const PKTINFO_SPACE = 32
const PKTINFO6_LEN = 36
const PKTINFO6_SPACE = 40
const CONTROL_LEN_MIN = 16
/** Word offsets in a control message. */
const AT_LEVEL = 2
const AT_TYPE = 3
const AT_DATA = 4
const WORD = 2 ** 32

/** A fixed number of messages. */
export class MessageVector {
  readonly size: number
  readonly #words: Uint32Array
  readonly #address: number
  readonly #iovecs: number
  readonly #names: number
  readonly #controls: number
  /** Results of readControl: size of the merged datagrams except the last (UDP_GRO), 0: one datagram. */
  segmentBytes = 0
  /** The local address, an entry of LocalAddresses; valid if `hasLocal`. */
  readonly local = new Uint32Array(LOCAL_WORDS)
  hasLocal = false

  /**
   * @param size number of messages
   * @param buffers number of buffers; message i has buffer i, unless setRun changes it
   * @throws NotAvailable on a machine with another layout
   */
  constructor(syscalls: Syscalls, size: number, buffers = size) {
    syscalls.checkLayout()
    this.size = size
    const buffer = new ArrayBuffer(size * (HEADER_BYTES + NAME_BYTES + CONTROL_BYTES) + buffers * IOVEC_BYTES)
    this.#words = new Uint32Array(buffer)
    this.#address = syscalls.addressOf(buffer)
    this.#names = size * HEADER_WORDS
    this.#controls = this.#names + size * NAME_WORDS
    this.#iovecs = this.#controls + size * CONTROL_WORDS
    for (let i = 0; i < size; i++) {
      this.setRun(i, i, 1)
      const control = this.#controls + i * CONTROL_WORDS
      this.#words[control] = SEGMENT_LEN
      this.#words[control + 2] = SOL_UDP
      this.#words[control + 3] = UDP_SEGMENT
      this.#pointer(i * HEADER_WORDS + AT_CONTROL, this.#address + control * 4)
    }
  }

  /** Memory address of message `i` and the following ones, for recvmmsg and sendmmsg. */
  address(i: number): number {
    return this.#address + i * HEADER_BYTES
  }

  /** Sets memory address and length of buffer `i`. */
  setBuffer(i: number, address: number, length: number): void {
    const at = this.#iovecs + i * IOVEC_WORDS
    this.#pointer(at, address)
    this.#words[at + 2] = length
  }

  /** Message `i` consists of `count` consecutive buffers from buffer `first` on. */
  setRun(i: number, first: number, count: number): void {
    const at = i * HEADER_WORDS
    this.#pointer(at + AT_IOV, this.#address + (this.#iovecs + first * IOVEC_WORDS) * 4)
    this.#words[at + AT_IOVLEN] = count
  }

  /** Length of message `i` as reported by recvmmsg; more than its buffer if it was truncated. */
  length(i: number): number {
    return this.#words[i * HEADER_WORDS + AT_LEN] ?? 0
  }

  /**
   * Sets the receiver of message `i`: the engine's address record at word `record` of `u32` (docs/abi.md).
   * @param port whether to set its port; raw sockets require 0
   */
  setReceiver(i: number, u32: Uint32Array, record: number, port: boolean): void {
    const words = this.#words
    const name = this.#names + i * NAME_WORDS
    const first = u32[record] ?? 0
    const header = i * HEADER_WORDS
    this.#pointer(header, this.#address + name * 4)
    // family, and port in network order
    const portWord = port ? swapped(first >>> 16) << 16 : 0
    if ((first & 0xff) === 4) {
      words[name] = AF_INET | portWord
      words[name + 1] = u32[record + 2] ?? 0
      words[name + 2] = 0
      words[name + 3] = 0
      words[header + AT_NAMELEN] = SOCKADDR_IN_BYTES
      return
    }
    words[name] = AF_INET6 | portWord
    words[name + 1] = 0
    for (let word = 0; word < 4; word++) words[name + 2 + word] = u32[record + 2 + word] ?? 0
    words[name + 6] = u32[record + 1] ?? 0
    words[header + AT_NAMELEN] = SOCKADDR_IN6_BYTES
  }

  /**
   * Sets the control messages of message `i`.
   * @param bytes the kernel splits it into datagrams of this size (UDP_SEGMENT); 0: one datagram
   * @param family of the local address: that of the socket
   * @param locals its source is the entry of LocalAddresses at word `at` of this array; `at` < 0: the system selects it
   */
  setControl(i: number, bytes: number, family: 4 | 6, locals: Uint32Array, at: number): void {
    const words = this.#words
    const header = i * HEADER_WORDS
    const control = this.#controls + i * CONTROL_WORDS
    const space = bytes === 0 ? 0 : SEGMENT_SPACE
    // the local address is behind the place of the segment size, which is left out if there is none
    const info = control + SEGMENT_SPACE_WORDS
    words[control + AT_DATA] = bytes
    this.#pointer(header + AT_CONTROL, this.#address + (bytes === 0 ? info : control) * 4)
    if (at < 0) {
      words[header + AT_CONTROLLEN] = space
      return
    }
    words[info + 1] = 0
    if (family === 4) {
      words[header + AT_CONTROLLEN] = space + PKTINFO_SPACE
      words[info] = PKTINFO_LEN
      words[info + AT_LEVEL] = IPPROTO_IP
      words[info + AT_TYPE] = IP_PKTINFO
      words[info + AT_DATA] = 0
      words[info + AT_DATA + 1] = locals[at] ?? 0
      words[info + AT_DATA + 2] = 0
      return
    }
    words[header + AT_CONTROLLEN] = space + PKTINFO6_SPACE
    words[info] = PKTINFO6_LEN
    words[info + AT_LEVEL] = IPPROTO_IPV6
    words[info + AT_TYPE] = IPV6_PKTINFO
    for (let word = 0; word < LOCAL_WORDS; word++) words[info + AT_DATA + word] = locals[at + word] ?? 0
  }

  /** Prepares message `i` to receive sender and control messages. The system overwrites what is set here. */
  prepare(i: number): void {
    const header = i * HEADER_WORDS
    this.#pointer(header, this.#address + (this.#names + i * NAME_WORDS) * 4)
    this.#words[header + AT_NAMELEN] = NAME_BYTES
    this.#words[header + AT_CONTROLLEN] = CONTROL_BYTES
  }

  /** Reads the control messages of received message `i` into `segmentBytes`, `local` and `hasLocal`. */
  readControl(i: number): void {
    const words = this.#words
    const bytes = words[i * HEADER_WORDS + AT_CONTROLLEN] ?? 0
    this.segmentBytes = 0
    this.hasLocal = false
    let at = this.#controls + i * CONTROL_WORDS
    const end = at + (bytes >>> 2)
    while (end - at >= AT_DATA) {
      const length = words[at] ?? 0
      if (length < CONTROL_LEN_MIN) return
      const level = words[at + AT_LEVEL]
      const type = words[at + AT_TYPE]
      if (level === SOL_UDP && type === UDP_GRO) this.segmentBytes = words[at + AT_DATA] ?? 0
      else if (level === IPPROTO_IP && type === IP_PKTINFO) {
        this.#setLocal(at + AT_DATA + 1, 1, words[at + AT_DATA] ?? 0)
      } else if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) {
        this.#setLocal(at + AT_DATA, LOCAL_WORDS - 1, words[at + AT_DATA + LOCAL_WORDS - 1] ?? 0)
      }
      // cmsg lengths are multiples of 8
      at += ((length + 7) >>> 3) << 1
    }
  }

  #setLocal(at: number, count: number, index: number): void {
    for (let word = 0; word < count; word++) this.local[word] = this.#words[at + word] ?? 0
    this.local[LOCAL_WORDS - 1] = index
    this.hasLocal = true
  }

  /**
   * Writes the sender of received message `i` as an engine's address record to word `record` of `u32`.
   * @returns false if the sender is not an IP address
   */
  sender(i: number, u32: Uint32Array, record: number): boolean {
    const words = this.#words
    const name = this.#names + i * NAME_WORDS
    const first = words[name] ?? 0
    const port = swapped(first >>> 16) << 16
    const family = first & 0xffff
    if (family !== AF_INET && family !== AF_INET6) return false
    const isIPv4 = family === AF_INET
    u32[record] = (isIPv4 ? 4 : 6) | port
    u32[record + 1] = isIPv4 ? 0 : (words[name + 6] ?? 0)
    u32[record + 2] = words[name + (isIPv4 ? 1 : 2)] ?? 0
    for (let word = 1; word < 4; word++) u32[record + 2 + word] = isIPv4 ? 0 : (words[name + 2 + word] ?? 0)
    return true
  }

  #pointer(at: number, address: number): void {
    this.#words[at] = address % WORD
    this.#words[at + 1] = Math.floor(address / WORD)
  }
}

/** Swaps the bytes of a 16-bit value. */
function swapped(value: number): number {
  return ((value & 255) << 8) | (value >>> 8)
}
