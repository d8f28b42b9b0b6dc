/**
 * An array of struct mmsghdr for recvmmsg(2) and sendmmsg(2), laid out once: each message has one buffer or a run of
 * them, a socket address and a UDP control message. Buffers are anywhere, mostly in an engine's memory. Linux, 64-bit
 * little-endian.
 *
 *     mmsghdr, 64 bytes   0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags  56 len
 *     iovec, 16 bytes     0 base  8 len
 *     control, 24 bytes   0 len   8 level   12 type  16 value (UDP_SEGMENT: u16, UDP_GRO: int)
 */

import { SOL_UDP, UDP_GRO, UDP_SEGMENT } from './libc.ts'
import { SOCKADDR_IN6_BYTES } from './sockaddr.ts'
import type { Syscalls } from './syscalls.ts'

const HEADER_BYTES = 64
const IOVEC_BYTES = 16
const NAME_BYTES = 32
const CONTROL_BYTES = 32

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
/** A control message with a u16: its length, and the space it occupies (cmsg(3)). */
const SEGMENT_LEN = 18
const SEGMENT_SPACE = 24
const WORD = 2 ** 32

/** A fixed number of messages. */
export class MessageVector {
  readonly size: number
  readonly #words: Uint32Array
  readonly #address: number
  readonly #iovecs: number
  readonly #names: number
  readonly #controls: number

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
    if ((first & 0xffff) === 4) {
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

  /** The kernel splits message `i` into datagrams of `bytes` bytes (UDP_SEGMENT); 0: one datagram. */
  setSegmentBytes(i: number, bytes: number): void {
    this.#words[i * HEADER_WORDS + AT_CONTROLLEN] = bytes === 0 ? 0 : SEGMENT_SPACE
    this.#words[this.#controls + i * CONTROL_WORDS + 4] = bytes
  }

  /** Prepares message `i` to receive sender and segment size. The system overwrites what is set here. */
  prepare(i: number): void {
    const header = i * HEADER_WORDS
    this.#pointer(header, this.#address + (this.#names + i * NAME_WORDS) * 4)
    this.#words[header + AT_NAMELEN] = NAME_BYTES
    this.#words[header + AT_CONTROLLEN] = CONTROL_BYTES
  }

  /** Size of the datagrams merged into received message `i`, except the last (UDP_GRO); 0: one datagram. */
  segmentBytes(i: number): number {
    if ((this.#words[i * HEADER_WORDS + AT_CONTROLLEN] ?? 0) < SEGMENT_LEN) return 0
    const control = this.#controls + i * CONTROL_WORDS
    return this.#words[control + 3] === UDP_GRO ? (this.#words[control + 4] ?? 0) : 0
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
