/**
 * Sends IP packets of one family in batches, directly from the engine's transmit descriptors (protocol.md 9.1).
 */

import type { OperatingSystem } from '../runtime.ts'
import { SO_SNDBUF } from './libc.ts'
import { MessageVector } from './message-vector.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/** Packets per system call. */
const BATCH = 64

/** Transmit descriptor of the engine (docs/abi.md), u32 words. */
const STRIDE = 16
const PACKET = 4
const LENGTH = 5
const RECEIVER = 8

export class RawSocket {
  readonly #syscalls: Syscalls
  readonly #family: 4 | 6
  readonly #memory: { readonly buffer: ArrayBuffer }
  readonly #onError: (code: string) => void
  readonly #vector: MessageVector
  readonly #fd: number
  #closed = false
  #u32: Uint32Array
  #base: number

  /**
   * @param sndbuf SO_SNDBUF in bytes, 0 = system default
   * @param onError reports each packet that was not sent (EPERM from a firewall, ENETUNREACH, EMSGSIZE, ENOBUFS, ...)
   * @param prepare sets further options
   * @throws NotAvailable without system calls or CAP_NET_RAW
   */
  constructor(
    os: OperatingSystem,
    family: 4 | 6,
    memory: { readonly buffer: ArrayBuffer },
    sndbuf: number,
    onError: (code: string) => void,
    prepare?: (syscalls: Syscalls, fd: number) => void,
  ) {
    this.#syscalls = syscallsOf(os)
    this.#family = family
    this.#memory = memory
    this.#onError = onError
    this.#vector = new MessageVector(this.#syscalls, BATCH)
    this.#u32 = new Uint32Array(memory.buffer)
    this.#base = this.#syscalls.addressOf(memory.buffer)
    this.#fd = this.#syscalls.rawSocket(family)
    if (sndbuf > 0) this.#syscalls.setOption(this.#fd, SO_SNDBUF, sndbuf)
    prepare?.(this.#syscalls, this.#fd)
  }

  /**
   * Sends the packets of `count` descriptors, starting at index `from` of the array at `descriptors`. Skips descriptors
   * without a packet (length 0) and packets that the system refuses.
   * @returns the number of processed descriptors; less than `count` while the system accepts no more
   */
  send(descriptors: number, from: number, count: number): number {
    if (this.#closed) return count
    if (this.#memory.buffer !== this.#u32.buffer) {
      this.#u32 = new Uint32Array(this.#memory.buffer)
      this.#base = this.#syscalls.addressOf(this.#memory.buffer)
    }
    const end = from + count
    let next = from
    while (next < end) {
      const done = this.#sendRun(descriptors >>> 2, next, end)
      if (done === next) break
      next = done
    }
    return next - from
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#syscalls.close(this.#fd)
  }

  /**
   * Sends one run of packets.
   * @returns index of the first unprocessed descriptor
   */
  #sendRun(descriptors: number, from: number, end: number): number {
    const u32 = this.#u32
    let filled = 0
    let at = descriptors + from * STRIDE
    let next = from
    // a run ends before an empty descriptor, so that the result is unambiguous
    for (; next < end && filled < BATCH; next++, at += STRIDE) {
      const length = u32[at + LENGTH] ?? 0
      if (length === 0 || ((u32[at + RECEIVER] ?? 0) & 0xff) !== this.#family) break
      this.#vector.setBuffer(filled, this.#base + (u32[at + PACKET] ?? 0), length)
      this.#vector.setReceiver(filled, u32, at + RECEIVER, false)
      filled++
    }
    if (filled === 0) return from + 1
    const sent = this.#syscalls.sendmmsg(this.#fd, this.#vector.address(0), filled)
    if (sent >= 0) return from + sent
    this.#onError(this.#syscalls.errorName(-sent))
    return from + 1
  }
}
