/**
 * UDP socket on batched Linux system calls. UDP_GRO merges datagrams of one sender into one message; one recvmmsg(2)
 * reads up to 16 messages into preallocated staging buffers. Datagrams of one size for one receiver leave as one
 * message (UDP_SEGMENT); a flush passes all messages to sendmmsg(2), without copying the buffers. Where the system or
 * the route does not support UDP_GRO or UDP_SEGMENT, datagrams are single messages. A socket on a wildcard address can
 * answer from the address that was asked (local-addresses.ts). The contract is that of the runtimes' own sockets
 * (runtime.ts); open-udp.ts opens it.
 */

import { type SystemError, systemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import { ADDRESS_WORDS, AddressCache } from '../net/address-cache.ts'
import type { Clock, DatagramKind, Timer, UdpHandlers, UdpOptions, UdpSocket, Watch } from '../runtime.ts'
import type { FastCalls, Features } from './fast-calls.ts'
import { FragmentOptions } from './fragment-options.ts'
import { LargeDatagram } from './large-datagram.ts'
import { SOL_UDP, UDP_GRO } from './libc.ts'
import { LOCAL_WORDS, type LocalAddresses } from './local-addresses.ts'
import { MergeWatch } from './merge-watch.ts'
import { MessageVector } from './message-vector.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/** Messages per receive call, and bytes of each: the largest UDP message. */
const RX_MESSAGES = 16
const RX_BYTES = 65536
/** Receive calls per wake-up before yielding to other events. */
const RX_CALLS = 2
/** Cached views per message: its datagrams, mostly of one size. */
const RX_VIEWS = 64

/** Datagrams waiting for flush() or for room in the socket buffer; each slot holds a longest one, cache-aligned. */
const TX_SLOTS = 512
const TX_SHIFT = 11
/** Bits of #queueBytes: not to be merged with the datagram before; may be fragmented; tests the size of the path. */
const APART = 0x8000
const FRAGMENT = 0x4000
const TEST = 0x2000
const LENGTH = 0x0fff
/** Receivers whose route rejected a merged message. When full, all are tried again. */
const REJECTED_MAX = 256
/** Messages per send call. */
const TX_MESSAGES = 64
/** The kernel's limits of a segmented message: UDP_MAX_SEGMENTS, and an IP packet's length minus maximum headers. */
const SEGMENTS_MAX = 64
const RUN_BYTES_MAX = 65000
/** Retry interval while the socket buffer is full, ms. */
const RETRY_MS = 1

/** Errors of a message whose source address, or the interface of a link-local one, has vanished. */
const VANISHED: ReadonlySet<string> = new Set(['EINVAL', 'EADDRNOTAVAIL', 'ENETUNREACH', 'ENODEV'])

/** Scratch address record of a sender or receiver. */
const record = new Uint32Array(ADDRESS_WORDS)

/** Bit of the local address's number in the first word of an address record. */
const LOCAL_SHIFT = 8
const NO_LOCALS = new Uint32Array()

export class FastUdpSocket implements UdpSocket {
  readonly local: SocketAddress
  readonly path: string
  readonly #syscalls: Syscalls
  readonly #fd: number
  readonly #clock: Clock
  readonly #handlers: UdpHandlers
  readonly #family: 4 | 6
  readonly #connected: SocketAddress | undefined
  readonly #peers = new AddressCache()
  readonly #locals: LocalAddresses | undefined
  /** The first waiting message is sent without this number's address, because it failed with it; 0: none. */
  #suspected = 0
  readonly #watch: Watch
  #isHeld = false

  readonly #rx: MessageVector
  readonly #staging = new Uint8Array(RX_MESSAGES * RX_BYTES)
  readonly #views: (Uint8Array | undefined)[] = new Array<undefined>(RX_MESSAGES * RX_VIEWS).fill(undefined)
  #again: Timer | undefined
  /** Absent: datagrams are not merged. */
  readonly #mergeWatch: MergeWatch | undefined

  readonly #tx: MessageVector
  readonly #memory = new ArrayBuffer(TX_SLOTS << TX_SHIFT)
  readonly #memoryAt: number
  readonly #slots: Uint8Array[] = []
  /** Stack of free slots. */
  readonly #free = new Uint16Array(TX_SLOTS)
  #freeCount = TX_SLOTS
  /** Ring of waiting datagrams: slot, bytes and receiver of each. */
  readonly #queueSlot = new Uint16Array(TX_SLOTS)
  readonly #queueBytes = new Uint16Array(TX_SLOTS)
  readonly #queueTo: (SocketAddress | undefined)[] = new Array<undefined>(TX_SLOTS).fill(undefined)
  #head = 0
  #queued = 0
  /** Number of datagrams in each message of the last layout. */
  readonly #runs = new Uint16Array(TX_MESSAGES)
  readonly #segments: boolean
  readonly #rejected = new Set<SocketAddress>()
  /** Number of the source address of the first message of the last layout; 0: none. */
  #firstLocal = 0
  readonly #fragments: FragmentOptions
  #large: LargeDatagram | undefined
  /** The first waiting message failed as too long, and is tried again. */
  #isAgain = false
  #retry: Timer | undefined
  #starved = false
  #writable: Timer | undefined
  #closed = false

  constructor(calls: FastCalls, fd: number, features: Features, options: UdpOptions, handlers: UdpHandlers) {
    const syscalls = syscallsOf(calls)
    const { gro, gso, locals } = features
    this.#syscalls = syscalls
    this.#fd = fd
    this.#clock = calls.clock
    this.#handlers = handlers
    this.#family = options.bind.family
    this.#connected = options.connect
    this.#segments = gso
    this.#locals = locals
    this.local = syscalls.localAddress(fd)
    this.path = `fast (recvmmsg${gro ? ' and UDP_GRO' : ''}, sendmmsg${gso ? ' and UDP_SEGMENT' : ''})`
    this.#rx = new MessageVector(syscalls, RX_MESSAGES)
    const stagingAt = syscalls.addressOf(this.#staging.buffer)
    for (let i = 0; i < RX_MESSAGES; i++) {
      this.#rx.setBuffer(i, stagingAt + i * RX_BYTES, RX_BYTES)
      this.#rx.prepare(i)
    }
    this.#fragments = new FragmentOptions(syscalls, fd, options.bind.family)
    this.#tx = new MessageVector(syscalls, TX_MESSAGES, TX_SLOTS)
    this.#memoryAt = syscalls.addressOf(this.#memory)
    for (let slot = 0; slot < TX_SLOTS; slot++) {
      this.#slots.push(new Uint8Array(this.#memory, slot << TX_SHIFT, 1 << TX_SHIFT))
      this.#free[slot] = TX_SLOTS - 1 - slot
    }
    const setMerging = (isOn: boolean): void => {
      try {
        syscalls.setOption(fd, UDP_GRO, isOn ? 1 : 0, SOL_UDP)
      } catch {
        // it stays as it is
      }
    }
    const onLost = (): void => handlers.onMergedLost?.()
    this.#mergeWatch = gro ? new MergeWatch({ now: () => calls.clock.monotonic(), setMerging, onLost }) : undefined
    this.#watch = calls.watch(fd, this.#onReadable)
  }

  get repliesFromAsked(): boolean {
    return this.#locals !== undefined
  }

  leaveFree(local: SocketAddress): void {
    this.#locals?.leaveFree(local)
  }

  acquire(): Uint8Array | null {
    if (this.#freeCount === 0) this.flush()
    if (this.#freeCount === 0) {
      this.#starved = true
      return null
    }
    return this.#slots[this.#free[--this.#freeCount] ?? 0] ?? null
  }

  get gso(): boolean {
    return this.#segments
  }

  dontFragment(on: boolean): boolean {
    return this.#fragments.forbid(on)
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress, apart = false, kind?: DatagramKind): void {
    const slot = buffer.byteOffset >>> TX_SHIFT
    // reading buffer.buffer takes 85 ns in Node
    if (buffer !== this.#slots[slot] || this.#closed) return
    const at = (this.#head + this.#queued) % TX_SLOTS
    this.#queueSlot[at] = slot
    let entry = apart ? length | APART : length
    if (kind !== undefined && this.#fragments.areForbidden) entry |= kind === 'size test' ? TEST : FRAGMENT
    this.#queueBytes[at] = entry
    this.#queueTo[at] = this.#connected ?? to
    this.#queued++
  }

  sendLarge(data: Uint8Array, to: SocketAddress): void {
    if (this.#closed) return
    this.#large ??= new LargeDatagram(this.#syscalls)
    const receiver = this.#connected === undefined ? to : undefined
    const sent = this.#large.send(this.#fd, this.#family, data, receiver, this.#peers, this.#locals)
    if (sent < 0) this.#refuse(this.#error(-sent, 'sendmmsg'), 0)
  }

  flush(): void {
    // while the socket buffer is full, the timer transmits
    if (this.#closed || this.#retry !== undefined) return
    this.#transmit()
    if (this.#starved && this.#freeCount >= TX_SLOTS / 2) this.#writable ??= this.#clock.defer(this.#onWritable)
  }

  hold(isHeld: boolean): void {
    if (isHeld === this.#isHeld || this.#closed || this.#watch.pause === undefined) return
    this.#isHeld = isHeld
    if (isHeld) this.#watch.pause()
    else this.#watch.resume?.()
  }

  collect(): void {
    if (!this.#closed) this.#read()
  }

  keepAlive(isKept: boolean): void {
    this.#watch.keepAlive?.(isKept)
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
    // the signal of another socket
    if (!this.#isHeld) this.#read()
  }

  readonly #read = (): void => {
    this.#clock.clearDeferred(this.#again)
    this.#again = undefined
    const rx = this.#rx
    for (let call = 0; call < RX_CALLS; call++) {
      if (this.#closed) return
      const count = this.#syscalls.recvmmsg(this.#fd, rx.address(0), RX_MESSAGES)
      if (count > 0) this.#deliver(count)
      else if (count === 0) return
      // the error is cleared, and datagrams may follow it
      else this.#onReceiveError(this.#error(-count, 'recvmmsg'))
      if (count > 0 && count < RX_MESSAGES) return
    }
    if (!this.#closed) this.#again ??= this.#clock.defer(this.#read)
  }

  #onReceiveError(error: SystemError): void {
    // an ICMP message about the size of the path, which anybody can forge: the engine finds the size by tests
    if (error.code === 'EMSGSIZE' && this.#fragments.areForbidden) return
    this.#handlers.onError(error)
  }

  #deliver(count: number): void {
    const rx = this.#rx
    for (let i = 0; i < count && !this.#closed; i++) {
      const known = rx.sender(i, record, 0)
      const length = Math.min(rx.length(i), RX_BYTES)
      rx.readControl(i)
      const step = rx.segmentBytes || length
      rx.prepare(i)
      if (!known) continue
      if (rx.hasLocal && this.#locals !== undefined) {
        record[0] = (record[0] ?? 0) | (this.#locals.numberOf(rx.local) << LOCAL_SHIFT)
      }
      const from = this.#peers.read(record, 0)
      this.#mergeWatch?.message(from, length)
      let offset = 0
      let segment = 0
      do {
        const bytes = Math.min(step, length - offset)
        this.#handlers.onDatagram(this.#view(i, segment, offset, bytes), from)
        offset += bytes
        segment++
      } while (offset < length && !this.#closed)
    }
    if (this.#closed) return
    this.#mergeWatch?.endCall()
    this.#handlers.onBatchEnd()
  }

  /** View of a staging buffer; the same object while datagrams keep their size. */
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

  /** Passes everything queued to the kernel, as far as its buffer has room. */
  #transmit(): void {
    while (this.#queued > 0) {
      this.#fragments.allow(((this.#queueBytes[this.#head] ?? 0) & FRAGMENT) !== 0)
      const messages = this.#layOut()
      const sent = messages === 0 ? 0 : this.#syscalls.sendmmsg(this.#fd, this.#tx.address(0), messages)
      if (messages > 0 && sent === 0) {
        this.#retry = this.#clock.setTimer(this.#onRetry, RETRY_MS)
        break
      }
      for (let i = 0; i < sent; i++) this.#forget(this.#runs[i] ?? 0)
      if (sent > 0) this.#isAgain = false
      if (sent < 0) this.#refused(-sent)
      else if (this.#suspected !== 0 && messages > 0) this.#onSentWithout()
      else if (messages === 0) this.#refuse(systemError('EDESTADDRREQ', 'invalid destination address', 'send'))
    }
    this.#fragments.allow(false)
  }

  /** The first message failed: retry it without its source address or segments, or drop it and report the error. */
  #refused(errno: number): void {
    const error = this.#error(errno, 'sendmmsg')
    const count = this.#runs[0] ?? 1
    if (this.#suspected === 0 && this.#firstLocal !== 0 && VANISHED.has(error.code ?? '')) {
      this.#suspected = this.#firstLocal
      return
    }
    // it fails without the address too
    this.#suspected = 0
    if (error.code === 'EMSGSIZE' && this.#fragments.areForbidden && this.#isTooLong(count)) return
    const to = this.#queueTo[this.#head]
    if (
      count > 1 &&
      to !== undefined &&
      (error.code === 'EIO' || error.code === 'EINVAL' || error.code === 'EMSGSIZE')
    ) {
      if (this.#rejected.size === REJECTED_MAX) this.#rejected.clear()
      this.#rejected.add(to)
      return
    }
    this.#refuse(error, count)
  }

  /**
   * The first message is too long, or an ICMP message said so about an earlier one: the system reports that with the next
   * call, whatever it sends.
   * @returns whether there is nothing more to do about it
   */
  #isTooLong(count: number): boolean {
    this.#isAgain = !this.#isAgain
    if (this.#isAgain) return true
    const isTest = ((this.#queueBytes[this.#head] ?? 0) & TEST) !== 0
    if (isTest) this.#forget(count)
    return isTest
  }

  /** The first message failed with its source address and was sent without: the address has vanished. */
  #onSentWithout(): void {
    this.#locals?.forget(this.#suspected)
    this.#suspected = 0
  }

  #refuse(error: SystemError, count = 1): void {
    this.#forget(count)
    // never inside the caller's flush()
    queueMicrotask(() => {
      if (!this.#closed) this.#handlers.onError(error)
    })
  }

  /** Removes the first `count` datagrams from the queue. */
  #forget(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#free[this.#freeCount++] = this.#queueSlot[this.#head] ?? 0
      this.#queueTo[this.#head] = undefined
      this.#head = (this.#head + 1) % TX_SLOTS
    }
    this.#queued -= count
  }

  /**
   * Lays out messages for the waiting datagrams.
   * @returns the number of messages; 0: the first datagram cannot be sent at all
   */
  #layOut(): number {
    const tx = this.#tx
    let message = 0
    let done = 0
    while (done < this.#queued && message < TX_MESSAGES) {
      const first = (this.#head + done) % TX_SLOTS
      const to = this.#queueTo[first]
      // port 0: from a forged source address; must not be taken for a route without segments
      if (to === undefined || to.port === 0 || (to.family === 6 && this.#family === 4)) break
      if ((((this.#queueBytes[first] ?? 0) & FRAGMENT) !== 0) !== this.#fragments.areAllowed) break
      const count = this.#run(done, first, to)
      tx.setRun(message, done, count)
      const segmentBytes = count > 1 ? (this.#queueBytes[first] ?? 0) & LENGTH : 0
      if (this.#connected === undefined) {
        this.#peers.write(to, record, 0)
        tx.setReceiver(message, record, 0, true)
      }
      this.#setControl(message, segmentBytes, to.local ?? 0)
      this.#runs[message++] = count
      done += count
    }
    return message
  }

  #setControl(message: number, segmentBytes: number, local: number): void {
    const locals = this.#locals
    let at = locals?.isKnown(local) === true ? local * LOCAL_WORDS : -1
    if (message === 0) {
      if (this.#suspected !== 0) at = -1
      this.#firstLocal = at < 0 ? 0 : local
    }
    this.#tx.setControl(message, segmentBytes, this.#family, locals?.words ?? NO_LOCALS, at)
  }

  /**
   * Lays out one message: datagrams of one receiver and one size; the last one may be shorter.
   * @returns the number of datagrams
   */
  #run(done: number, first: number, to: SocketAddress): number {
    const bytes = (this.#queueBytes[first] ?? 0) & LENGTH
    const isMerged = this.#segments && bytes > 0 && (this.#rejected.size === 0 || !this.#rejected.has(to))
    const most = isMerged ? Math.min(SEGMENTS_MAX, Math.floor(RUN_BYTES_MAX / bytes)) : 1
    const count = Math.min(most, this.#queued - done)
    let taken = 0
    while (taken < count) {
      const at = (first + taken) % TX_SLOTS
      const entry = this.#queueBytes[at] ?? 0
      const length = entry & LENGTH
      if (taken > 0 && (entry > bytes || length === 0 || this.#queueTo[at] !== to)) break
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
