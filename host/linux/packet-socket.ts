/**
 * Receives IP packets of one family in batches, directly into the engine's receive descriptors: an AF_PACKET socket
 * with the engine's filter (protocol.md 9.1). The engine parses the packets.
 */

import type { OperatingSystem, Watch } from '../runtime.ts'
import { SO_RCVBUF } from './libc.ts'
import { MessageVector } from './message-vector.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/** Batches per wake-up before yielding to other events. */
const BATCHES_MAX = 4

/** Receive descriptor of the engine (docs/abi.md), u32 words. */
const STRIDE = 8
const PTR = 0
const CAPACITY = 1
const LENGTH = 2

export class PacketSocket {
  readonly #os: OperatingSystem
  readonly #syscalls: Syscalls
  readonly #family: 4 | 6
  readonly #memory: { readonly buffer: ArrayBuffer }
  readonly #descriptors: number
  readonly #slots: number
  readonly #onBatch: (count: number) => void
  readonly #vector: MessageVector
  readonly #fd: number
  #watch: Watch | undefined
  #closed = false
  #u8: Uint8Array
  #u32: Uint32Array
  #base: number

  /**
   * Opens the socket, which receives nothing before attach().
   * @param descriptors address of the engine's array of `slots` receive descriptors
   * @param rcvbuf SO_RCVBUF in bytes, 0 = system default
   * @param onBatch descriptors 0..count-1 hold one packet each. A packet longer than its block is truncated; its length
   *   is the original one
   * @throws NotAvailable without system calls or CAP_NET_RAW
   */
  constructor(
    os: OperatingSystem,
    family: 4 | 6,
    memory: { readonly buffer: ArrayBuffer },
    descriptors: number,
    slots: number,
    rcvbuf: number,
    onBatch: (count: number) => void,
  ) {
    this.#os = os
    this.#syscalls = syscallsOf(os)
    this.#family = family
    this.#memory = memory
    this.#descriptors = descriptors >>> 2
    this.#slots = slots
    this.#onBatch = onBatch
    this.#vector = new MessageVector(this.#syscalls, slots)
    this.#u8 = new Uint8Array(memory.buffer)
    this.#u32 = new Uint32Array(memory.buffer)
    this.#base = this.#syscalls.addressOf(memory.buffer)
    this.#fd = this.#syscalls.packetSocket(family)
    if (rcvbuf > 0) this.#syscalls.setOption(this.#fd, SO_RCVBUF, rcvbuf)
  }

  /**
   * Receives the packets of one interface (0: all) that pass a filter: `count` instructions at `filter` in the engine's
   * memory. May be called again, also without privileges; packets that passed the previous filter may still arrive.
   * @throws ENODEV if the interface is gone
   */
  attach(ifindex: number, filter: number, count: number): void {
    this.#refresh()
    this.#syscalls.attachFilter(this.#fd, this.#base + filter, count)
    this.#syscalls.bindPacket(this.#fd, this.#family, ifindex)
    this.#watch ??= this.#os.watch(this.#fd, this.#onReadable)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#watch?.close()
    this.#syscalls.close(this.#fd)
  }

  /** Recreates the views if the engine's memory has grown. */
  #refresh(): void {
    const { buffer } = this.#memory
    if (buffer === this.#u8.buffer) return
    this.#u8 = new Uint8Array(buffer)
    this.#u32 = new Uint32Array(buffer)
    this.#base = this.#syscalls.addressOf(buffer)
  }

  readonly #onReadable = (first?: Uint8Array): void => {
    let taken = first
    for (let batch = 0; batch < BATCHES_MAX && !this.#closed; batch++) {
      this.#refresh()
      const from = taken === undefined ? 0 : this.#put(taken)
      taken = undefined
      const wanted = this.#slots - from
      const received = this.#receive(from)
      const count = from + Math.max(received, 0)
      if (count > 0) this.#onBatch(count)
      // an error (the interface went down) is cleared, and packets may follow it
      if (received >= 0 && received < wanted) return
    }
  }

  /**
   * Fills the descriptors from `from` on.
   * @returns the number of packets, or -errno
   */
  #receive(from: number): number {
    const vector = this.#vector
    const u32 = this.#u32
    for (let i = from; i < this.#slots; i++) {
      const at = this.#descriptors + i * STRIDE
      vector.setBuffer(i, this.#base + (u32[at + PTR] ?? 0), u32[at + CAPACITY] ?? 0)
    }
    const count = this.#syscalls.recvmmsg(this.#fd, vector.address(from), this.#slots - from)
    for (let i = from; i < from + count; i++) u32[this.#descriptors + i * STRIDE + LENGTH] = vector.length(i)
    return count
  }

  /** Puts a packet that the runtime has read into the first descriptor. */
  #put(packet: Uint8Array): number {
    const at = this.#descriptors
    const ptr = this.#u32[at + PTR] ?? 0
    const capacity = this.#u32[at + CAPACITY] ?? 0
    this.#u8.set(packet.length > capacity ? packet.subarray(0, capacity) : packet, ptr)
    this.#u32[at + LENGTH] = packet.length
    return 1
  }
}
