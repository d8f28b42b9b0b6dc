/**
 * An array of struct mmsghdr for recvmmsg(2) and sendmmsg(2), laid out once: each message has one buffer, and a place for
 * a socket address. Buffers are anywhere, mostly in an engine's memory. Linux, 64 bits, little-endian.
 *
 *     mmsghdr, 64 bytes   0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags  56 len
 *     iovec, 16 bytes     0 base  8 len
 */
import { SOCKADDR_IN6_BYTES, type Sys } from './system.ts'

const HEADER_BYTES = 64
const IOVEC_BYTES = 16
const NAME_BYTES = 32
const MESSAGE_BYTES = HEADER_BYTES + IOVEC_BYTES + NAME_BYTES

/** Word offsets. */
const HEADER_WORDS = HEADER_BYTES / 4
const IOVEC_WORDS = IOVEC_BYTES / 4
const NAME_WORDS = NAME_BYTES / 4
const AT_NAMELEN = 2
const AT_IOV = 4
const AT_IOVLEN = 6
const AT_LEN = 14

const AF_INET = 2
const AF_INET6 = 10
const SOCKADDR_IN_BYTES = 16
const WORD = 2 ** 32

/** A fixed number of messages. */
export class MessageVector {
  readonly size: number
  readonly #words: Uint32Array
  readonly #address: number
  readonly #iovecs: number
  readonly #names: number

  /**
   * @param size messages
   * @throws NotAvailable on a machine with another layout
   */
  constructor(sys: Sys, size: number) {
    sys.checkLayout()
    this.size = size
    const buffer = new ArrayBuffer(size * MESSAGE_BYTES)
    this.#words = new Uint32Array(buffer)
    this.#address = sys.addressOf(buffer)
    this.#iovecs = size * HEADER_WORDS
    this.#names = this.#iovecs + size * IOVEC_WORDS
    for (let i = 0; i < size; i++) {
      this.#pointer(i * HEADER_WORDS + AT_IOV, this.#address + (this.#iovecs + i * IOVEC_WORDS) * 4)
      this.#words[i * HEADER_WORDS + AT_IOVLEN] = 1
    }
  }

  /** Memory address of message `i` and those behind it, for recvmmsg and sendmmsg. */
  address(i: number): number {
    return this.#address + i * HEADER_BYTES
  }

  /** Where the bytes of message `i` are: a memory address, and how many. */
  setBuffer(i: number, address: number, length: number): void {
    const at = this.#iovecs + i * IOVEC_WORDS
    this.#pointer(at, address)
    this.#words[at + 2] = length
  }

  /** Bytes of message `i` as recvmmsg told; more than the buffer holds when it was cut. */
  length(i: number): number {
    return this.#words[i * HEADER_WORDS + AT_LEN] ?? 0
  }

  /**
   * The receiver of message `i`: the engine's address record at word `record` of `u32` (docs/abi.md).
   * @param port whether its port is given, too; raw sockets want 0
   */
  setReceiver(i: number, u32: Uint32Array, record: number, port: boolean): void {
    const words = this.#words
    const name = this.#names + i * NAME_WORDS
    const first = u32[record] ?? 0
    const header = i * HEADER_WORDS
    this.#pointer(header, this.#address + name * 4)
    // family, and the port in network order
    const portWord = port ? ((first >>> 24) << 16) | (((first >>> 16) & 255) << 24) : 0
    if ((first & 0xffff) === 4) {
      words[name] = (AF_INET | portWord) >>> 0
      words[name + 1] = u32[record + 2] ?? 0
      words[name + 2] = 0
      words[name + 3] = 0
      words[header + AT_NAMELEN] = SOCKADDR_IN_BYTES
      return
    }
    words[name] = (AF_INET6 | portWord) >>> 0
    words[name + 1] = 0
    for (let word = 0; word < 4; word++) words[name + 2 + word] = u32[record + 2 + word] ?? 0
    words[name + 6] = u32[record + 1] ?? 0
    words[header + AT_NAMELEN] = SOCKADDR_IN6_BYTES
  }

  #pointer(at: number, address: number): void {
    this.#words[at] = address % WORD
    this.#words[at + 1] = Math.floor(address / WORD)
  }
}
