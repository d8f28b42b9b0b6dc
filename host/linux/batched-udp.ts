/**
 * UDP by batched system calls of Linux. Several datagrams of one sender arrive as one message (UDP_GRO), up to 16 messages
 * by one recvmmsg(2) in staging buffers made once; datagrams of one size for one receiver leave as one message
 * (UDP_SEGMENT), all of a flush by one sendmmsg(2), from the very buffers they were written to. A system that cannot do
 * the one or the other, or a route that refuses it, gets single datagrams. The same promises as the runtimes' own sockets
 * (runtime.ts); which of the two is used is chosen there.
 */

import { NotAvailable, type SystemError, systemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import { ADDRESS_WORDS, AddressCache } from '../net/address-cache.ts'
import type { Clock, Libc, Runtime, Timer, UdpHandlers, UdpOptions, UdpSocket, Watch } from '../runtime.ts'
import { SOL_UDP, UDP_GRO, UDP_SEGMENT } from './libc.ts'
import { MessageVector } from './message-vector.ts'
import { applyBuffers, bindWithOptions, descriptorBuffers } from './socket-options.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/** Messages of one receive call, and bytes of each: what UDP can carry at most. */
const RX_MESSAGES = 16
const RX_BYTES = 65536
/** Receive calls of one wake-up before others get their turn. */
const RX_CALLS = 2
/** Views kept for one message: the datagrams in it, mostly of one size. */
const RX_VIEWS = 64

/** Datagrams that wait for flush() or for room in the socket buffer, and bytes of each: room for a longest one, cache-aligned. */
const TX_SLOTS = 512
const TX_SHIFT = 11
/** Messages of one send call. */
const TX_MESSAGES = 64
/** The kernel's bounds of a message with segments: UDP_MAX_SEGMENTS, and an IP packet's length less the longest headers. */
const SEGMENTS_MAX = 64
const RUN_BYTES_MAX = 65000
/** A full socket buffer is tried again after this time, ms. */
const RETRY_MS = 1

/** Room for the address record of a sender or receiver. */
const record = new Uint32Array(ADDRESS_WORDS)

/** What a fast socket needs of its runtime. */
export interface FastCalls {
  readonly clock: Clock
  libc(): Libc
  /** As OperatingSystem.watch, but takes nothing off the socket. May miss what stays there after a callback that did not read to the end. */
  watch(fd: number, onReadable: () => void): Watch
}

class FastUdpSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly path: string
  readonly #syscalls: Syscalls
  readonly #fd: number
  readonly #clock: Clock
  readonly #handlers: UdpHandlers
  readonly #family: 4 | 6
  readonly #connected: SocketAddress | undefined
  readonly #peers = new AddressCache()
  readonly #watch: Watch

  readonly #rx: MessageVector
  readonly #staging = new Uint8Array(RX_MESSAGES * RX_BYTES)
  readonly #views: (Uint8Array | undefined)[] = new Array<undefined>(RX_MESSAGES * RX_VIEWS).fill(undefined)
  #again: Timer | undefined

  readonly #tx: MessageVector
  readonly #memory = new ArrayBuffer(TX_SLOTS << TX_SHIFT)
  readonly #memoryAt: number
  readonly #slots: Uint8Array[] = []
  /** Stack of free slots. */
  readonly #free = new Uint16Array(TX_SLOTS)
  #freeCount = TX_SLOTS
  /** Ring of what waits: slot, bytes and receiver of each datagram. */
  readonly #queueSlot = new Uint16Array(TX_SLOTS)
  readonly #queueBytes = new Uint16Array(TX_SLOTS)
  readonly #queueTo: (SocketAddress | undefined)[] = new Array<undefined>(TX_SLOTS).fill(undefined)
  #head = 0
  #queued = 0
  /** Datagrams of each message that was laid out last. */
  readonly #runs = new Uint16Array(TX_MESSAGES)
  #segments: boolean
  #retry: Timer | undefined
  #starved = false
  #writable: Timer | undefined
  #closed = false

  constructor(calls: FastCalls, fd: number, gro: boolean, gso: boolean, options: UdpOptions, handlers: UdpHandlers) {
    const syscalls = syscallsOf(calls)
    this.#syscalls = syscalls
    this.#fd = fd
    this.#clock = calls.clock
    this.#handlers = handlers
    this.#family = options.bind.family
    this.#connected = options.connect
    this.#segments = gso
    this.local = syscalls.localAddress(fd)
    this.path = `fast (recvmmsg${gro ? ' and UDP_GRO' : ''}, sendmmsg${gso ? ' and UDP_SEGMENT' : ''})`
    this.#rx = new MessageVector(syscalls, RX_MESSAGES)
    const stagingAt = syscalls.addressOf(this.#staging.buffer)
    for (let i = 0; i < RX_MESSAGES; i++) {
      this.#rx.setBuffer(i, stagingAt + i * RX_BYTES, RX_BYTES)
      this.#rx.prepare(i)
    }
    this.#tx = new MessageVector(syscalls, TX_MESSAGES, TX_SLOTS)
    this.#memoryAt = syscalls.addressOf(this.#memory)
    for (let slot = 0; slot < TX_SLOTS; slot++) {
      this.#slots.push(new Uint8Array(this.#memory, slot << TX_SHIFT, 1 << TX_SHIFT))
      this.#free[slot] = TX_SLOTS - 1 - slot
    }
    this.#watch = calls.watch(fd, this.#onReadable)
  }

  acquire(): Uint8Array | null {
    if (this.#freeCount === 0) this.flush()
    if (this.#freeCount === 0) {
      this.#starved = true
      return null
    }
    return this.#slots[this.#free[--this.#freeCount] ?? 0] ?? null
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const slot = buffer.byteOffset >>> TX_SHIFT
    // not by buffer.buffer, which takes 85 ns in Node
    if (buffer !== this.#slots[slot] || this.#closed) return
    const at = (this.#head + this.#queued) % TX_SLOTS
    this.#queueSlot[at] = slot
    this.#queueBytes[at] = length
    this.#queueTo[at] = this.#connected ?? to
    this.#queued++
  }

  flush(): void {
    // while the socket buffer is full, the timer goes on
    if (this.#closed || this.#retry !== undefined) return
    this.#transmit()
    if (this.#starved && this.#freeCount >= TX_SLOTS / 2) this.#writable ??= this.#clock.defer(this.#onWritable)
  }

  close(): void {
    if (this.#closed) return
    this.flush()
    this.#closed = true
    this.#clock.clearTimer(this.#retry)
    this.#clock.clearDeferred(this.#again)
    this.#clock.clearDeferred(this.#writable)
    this.#watch.close()
    this.#syscalls.close(this.#fd)
  }

  // Receive

  readonly #onReadable = (): void => {
    this.#again = undefined
    const rx = this.#rx
    for (let call = 0; call < RX_CALLS; call++) {
      if (this.#closed) return
      const count = this.#syscalls.recvmmsg(this.#fd, rx.address(0), RX_MESSAGES)
      if (count > 0) this.#deliver(count)
      else if (count === 0) return
      // an ICMP error has gone now, and datagrams may stand behind it
      else this.#handlers.onError(this.#error(-count, 'recvmmsg'))
      if (count > 0 && count < RX_MESSAGES) return
    }
    if (!this.#closed) this.#again ??= this.#clock.defer(this.#onReadable)
  }

  #deliver(count: number): void {
    const rx = this.#rx
    for (let i = 0; i < count && !this.#closed; i++) {
      const known = rx.sender(i, record, 0)
      const length = Math.min(rx.length(i), RX_BYTES)
      const step = rx.segmentBytes(i) || length
      rx.prepare(i)
      if (!known) continue
      const from = this.#peers.read(record, 0)
      let offset = 0
      let segment = 0
      do {
        const bytes = Math.min(step, length - offset)
        this.#handlers.onDatagram(this.#view(i, segment, offset, bytes), from)
        offset += bytes
        segment++
      } while (offset < length && !this.#closed)
    }
    if (!this.#closed) this.#handlers.onBatchEnd()
  }

  /** Bytes of a staging buffer; the same object again while datagrams keep their size. */
  #view(message: number, segment: number, offset: number, bytes: number): Uint8Array {
    const slot = message * RX_VIEWS + (segment % RX_VIEWS)
    const start = message * RX_BYTES + offset
    const known = this.#views[slot]
    if (known !== undefined && known.length === bytes && known.byteOffset === start) return known
    const view = this.#staging.subarray(start, start + bytes)
    this.#views[slot] = view
    return view
  }

  // Transmit

  readonly #onWritable = (): void => {
    this.#writable = undefined
    if (!this.#starved || this.#freeCount < TX_SLOTS / 2 || this.#closed) return
    this.#starved = false
    this.#handlers.onWritable()
  }

  readonly #onRetry = (): void => {
    this.#retry = undefined
    if (this.#closed) return
    this.#transmit()
    this.#onWritable()
  }

  /** Hands everything queued to the kernel, or as much as its buffer takes. */
  #transmit(): void {
    while (this.#queued > 0) {
      const messages = this.#layOut()
      const sent = messages === 0 ? 0 : this.#syscalls.sendmmsg(this.#fd, this.#tx.address(0), messages)
      if (messages > 0 && sent === 0) {
        this.#retry = this.#clock.setTimer(this.#onRetry, RETRY_MS)
        return
      }
      for (let i = 0; i < sent; i++) this.#forget(this.#runs[i] ?? 0)
      if (sent < 0) this.#refused(-sent)
      else if (messages === 0) this.#refuse(systemError('EDESTADDRREQ', 'no datagram can go there', 'send'))
    }
  }

  /** The first message did not leave: without segments it may, else it is given up with a hint. */
  #refused(errno: number): void {
    const error = this.#error(errno, 'sendmmsg')
    const count = this.#runs[0] ?? 1
    if (count > 1 && (error.code === 'EIO' || error.code === 'EINVAL' || error.code === 'EMSGSIZE')) {
      this.#segments = false
      return
    }
    this.#refuse(error, count)
  }

  #refuse(error: SystemError, count = 1): void {
    this.#forget(count)
    // never inside the caller's flush()
    queueMicrotask(() => {
      if (!this.#closed) this.#handlers.onError(error)
    })
  }

  /** The first `count` datagrams are done with. */
  #forget(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#free[this.#freeCount++] = this.#queueSlot[this.#head] ?? 0
      this.#queueTo[this.#head] = undefined
      this.#head = (this.#head + 1) % TX_SLOTS
    }
    this.#queued -= count
  }

  /**
   * Makes messages of what waits.
   * @returns how many; 0: the first datagram cannot be sent at all
   */
  #layOut(): number {
    const tx = this.#tx
    let message = 0
    let done = 0
    while (done < this.#queued && message < TX_MESSAGES) {
      const first = (this.#head + done) % TX_SLOTS
      const to = this.#queueTo[first]
      // port 0: of a forged source address. It must not look like a route without segments
      if (to === undefined || to.port === 0 || (to.family === 6 && this.#family === 4)) break
      const count = this.#run(done, first, to)
      tx.setRun(message, done, count)
      tx.setSegmentBytes(message, count > 1 ? (this.#queueBytes[first] ?? 0) : 0)
      if (this.#connected === undefined) {
        this.#peers.write(to, record, 0)
        tx.setReceiver(message, record, 0, true)
      }
      this.#runs[message++] = count
      done += count
    }
    return message
  }

  /**
   * Lays out the datagrams of one message: one receiver, one size, but for the last which may be shorter.
   * @returns how many
   */
  #run(done: number, first: number, to: SocketAddress): number {
    const bytes = this.#queueBytes[first] ?? 0
    const most = this.#segments && bytes > 0 ? Math.min(SEGMENTS_MAX, Math.floor(RUN_BYTES_MAX / bytes)) : 1
    const count = Math.min(most, this.#queued - done)
    let taken = 0
    while (taken < count) {
      const at = (first + taken) % TX_SLOTS
      const length = this.#queueBytes[at] ?? 0
      if (taken > 0 && (length > bytes || length === 0 || this.#queueTo[at] !== to)) break
      this.#tx.setBuffer(done + taken, this.#memoryAt + ((this.#queueSlot[at] ?? 0) << TX_SHIFT), length)
      taken++
      if (length < bytes) break
    }
    return Math.max(taken, 1)
  }

  #error(errno: number, syscall: string): SystemError {
    const code = this.#syscalls.errorName(errno)
    return systemError(
      code,
      `${syscall} on ${this.#connected === undefined ? 'the' : 'a connected'} UDP socket`,
      syscall,
    )
  }
}

/** A sandbox may forbid the batch calls: better known now than at every datagram. @throws NotAvailable */
function checkBatches(syscalls: Syscalls, fd: number): void {
  for (const call of ['recvmmsg', 'sendmmsg'] as const) {
    // no messages at all: nothing happens to those that wait
    const result = syscalls[call](fd, 0, 0)
    if (result < 0) throw new NotAvailable(`not available: ${call} ${syscalls.errorName(-result)}`)
  }
}

/** An option of UDP that the system may not know. */
function tryOption(set: () => void): boolean {
  try {
    set()
    return true
  } catch {
    return false
  }
}

/**
 * Binds a UDP socket by system calls, and connects it when `options.connect` is given.
 * @throws NotAvailable, or the error of bind or connect (EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, ...)
 */
export function openFastUdp(calls: FastCalls, options: UdpOptions, handlers: UdpHandlers): UdpSocket {
  const syscalls = syscallsOf(calls)
  syscalls.checkLayout()
  const { bind, connect, socketOptions } = options
  const fd = bindWithOptions(syscalls, 'udp', bind, socketOptions)
  try {
    if (socketOptions !== undefined) applyBuffers(socketOptions, () => descriptorBuffers(syscalls, fd))
    if (connect !== undefined) syscalls.connect(fd, connect)
    checkBatches(syscalls, fd)
    const gro = tryOption(() => syscalls.setOption(fd, UDP_GRO, 1, SOL_UDP))
    // a kernel that does not know it would send a run as one datagram
    const gso = tryOption(() => syscalls.getOption(fd, UDP_SEGMENT, SOL_UDP))
    return new FastUdpSocket(calls, fd, gro, gso, options, handlers)
  } catch (error) {
    // one that was brought serves the portable path then
    if (fd !== socketOptions?.fd) syscalls.close(fd)
    throw error
  }
}

/** Runtime.openUdp: by system calls where `options.path` asks for them or, with auto, where they can be made; else by `portable`. */
export function openUdpByMode(calls: FastCalls, portable: Runtime['openUdp']): Runtime['openUdp'] {
  return async (options, handlers) => {
    let path = 'portable'
    if (options.path !== undefined && options.path !== 'portable') {
      try {
        return openFastUdp(calls, options, handlers)
      } catch (error) {
        if (options.path === 'fast' || !(error instanceof NotAvailable)) throw error
        path += ` (fast: ${error.message})`
      }
    }
    return Object.assign(await portable(options, handlers), { path })
  }
}
