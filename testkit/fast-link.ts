/**
 * The fast link of the benchmarks, on Linux under Node with koffi: datagrams go from recvmmsg to sendmmsg without a
 * copy, through one ring per direction. Supports one client at a time, IPv4, constant delay and independent seeded
 * losses before a drop-tail queue, the same in both directions. testkit/link.ts does every other kind of link;
 * testkit/emulator.ts is its process.
 */
import { randomNumbers } from './link.ts'
import { bufferOf, type Koffi, loadKoffi, RELEASE_SLACK_MS, setPointer, Timer, timerCalls } from './link-timer.ts'

/** Requested socket buffer size. */
const SOCKET_BUFFER_BYTES = 8 << 20
/** Limit of datagrams in flight per direction: 200 ms at 1.8 Gbit/s. */
const SLOTS = 32768
/** Largest datagram, in bytes. */
const SLOT_BYTES = 1536
/** Largest batch of a system call, in datagrams. */
const BATCH = 64
/** Receive calls on one socket before the other socket is served. */
const BATCHES_PER_TURN = 8
/** Bytes of IPv4 and UDP headers per datagram, counted by a rate-limited link. */
const HEADER_BYTES = 28
const MSGHDR_BYTES = 64
const IOVEC_BYTES = 16
const SOCKADDR_BYTES = 16
/** Word of msg_len in struct mmsghdr. */
const MSG_LEN_WORD = 14

const AF_INET = 2
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const SO_RCVBUFFORCE = 33
const SO_SNDBUF = 7
const SO_SNDBUFFORCE = 32
const MSG_DONTWAIT = 0x40

/** Impairments, the same in both directions. */
export interface EmulatedShape {
  /** One-way delay in ms. */
  readonly delay: number
  /** Probability of loss in each direction. */
  readonly loss: number
  /** Bits per second with IP and UDP headers, and queue limit in bytes; absent: unlimited. */
  readonly rate?: number
  readonly queue?: number
}

/** Counters of one direction: entered (`packets`, `bytes` of UDP payload), dropped by the link, and sent. */
export interface LaneCounters {
  packets: number
  bytes: number
  lost: number
  overflowed: number
  delivered: number
  /** Largest time by which a datagram left late, in ms. */
  late: number
}

export interface EmulatorCounters {
  readonly up: LaneCounters
  readonly down: LaneCounters
  /** Port of the latest client. */
  readonly clientPort: number
}

export interface EmulatorOptions extends EmulatedShape {
  /** UDP port of the server on 127.0.0.1. */
  readonly target: number
  readonly seed: number
}

/** An open link, in the process that runs it. */
export interface Opened {
  readonly kind: 'mmsg' | 'dgram'
  /** Ports of the two sockets (0: unknown). */
  readonly port: number
  readonly upstreamPort: number
  readonly receiveBuffer: number
  counters(): EmulatorCounters
}

/** Opens a link on Linux under Node with koffi; undefined elsewhere. */
export function openFast(options: EmulatorOptions): Opened | undefined {
  const koffi = loadKoffi()
  if (koffi === undefined) return undefined
  const calls = bindCalls(koffi)
  const [listener, upstream] = [openSocket(calls), openSocket(calls)]
  const up = new Lane(calls, listener, upstream, options, options.seed * 2 + 1)
  const down = new Lane(calls, upstream, listener, options, options.seed * 2 + 2)
  up.to.setUint16(0, AF_INET, true)
  up.to.setUint16(2, options.target)
  up.to.setUint32(4, 0x7f000001)

  const timer = new Timer(calls)
  const release = (): void => {
    const now = performance.now()
    const next = Math.min(up.release(now), down.release(now))
    timer.arm(next, now)
  }
  const received = (lane: Lane): void => {
    lane.receive()
    if (lane === up) down.to.setUint32(4, up.from.getUint32(4))
    if (lane === up) down.to.setUint32(0, up.from.getUint32(0))
    release()
  }
  // an unreferenced poll handle is garbage collected and stops polling
  handles.push(
    koffi.node.poll(listener.fd, { readable: true }, () => received(up)),
    koffi.node.poll(upstream.fd, { readable: true }, () => received(down)),
    koffi.node.poll(timer.fd, { readable: true }, () => {
      timer.clear()
      release()
    }),
  )
  return {
    kind: 'mmsg',
    port: listener.port,
    upstreamPort: upstream.port,
    receiveBuffer: Math.min(listener.receiveBuffer, upstream.receiveBuffer),
    counters: () => ({
      up: { ...up.counters },
      down: { ...down.counters },
      clientPort: down.to.getUint16(2),
    }),
  }
}

const handles: object[] = []

type Calls = ReturnType<typeof bindCalls>

function bindCalls(koffi: Koffi) {
  const c = koffi.load(null)
  const number = (signature: string): ((...args: number[]) => number) => c.func(signature)
  return {
    errno: () => koffi.errno(),
    socket: number('int socket(int, int, int)'),
    bind: number('int bind(int, uintptr_t, uint32_t)'),
    setsockopt: number('int setsockopt(int, int, int, uintptr_t, uint32_t)'),
    getsockopt: number('int getsockopt(int, int, int, uintptr_t, uintptr_t)'),
    getsockname: number('int getsockname(int, uintptr_t, uintptr_t)'),
    recvmmsg: number('int recvmmsg(int, uintptr_t, uint32_t, int, uintptr_t)'),
    sendmmsg: number('int sendmmsg(int, uintptr_t, uint32_t, int)'),
    ...timerCalls(koffi),
  }
}

interface FastSocket {
  readonly fd: number
  readonly port: number
  readonly receiveBuffer: number
}

function openSocket(calls: Calls): FastSocket {
  const fd = calls.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  const scratch = new DataView(new ArrayBuffer(32))
  const at = calls.address(scratch.buffer)
  const option = (name: number, value: number): number => {
    scratch.setInt32(0, value, true)
    return calls.setsockopt(fd, SOL_SOCKET, name, at, 4)
  }
  // SO_*BUFFORCE exceeds the sysctl limit but requires root
  if (option(SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES) < 0) option(SO_RCVBUF, SOCKET_BUFFER_BYTES)
  if (option(SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES) < 0) option(SO_SNDBUF, SOCKET_BUFFER_BYTES)
  scratch.setInt32(16, 4, true)
  calls.getsockopt(fd, SOL_SOCKET, SO_RCVBUF, at, at + 16)
  const receiveBuffer = scratch.getInt32(0, true)
  scratch.setUint16(0, AF_INET, true)
  scratch.setUint16(2, 0)
  scratch.setUint32(4, 0x7f000001)
  if (fd < 0 || calls.bind(fd, at, SOCKADDR_BYTES) < 0)
    throw new Error(`the emulator cannot bind: errno ${calls.errno()}`)
  scratch.setInt32(16, SOCKADDR_BYTES, true)
  calls.getsockname(fd, at, at + 16)
  return { fd, port: scratch.getUint16(2), receiveBuffer }
}

/** One direction: a FIFO ring of datagrams. */
class Lane {
  readonly counters: LaneCounters = { packets: 0, bytes: 0, lost: 0, overflowed: 0, delivered: 0, late: 0 }
  /** Source of the latest datagram; destination of all datagrams. */
  readonly from = new DataView(new ArrayBuffer(SOCKADDR_BYTES))
  readonly to = new DataView(new ArrayBuffer(SOCKADDR_BYTES))
  readonly #calls: Calls
  readonly #in: number
  readonly #out: number
  readonly #shape: EmulatedShape
  readonly #random: () => number
  readonly #data = new ArrayBuffer(SLOTS * SLOT_BYTES)
  readonly #rx = new Uint32Array(SLOTS * (MSGHDR_BYTES / 4))
  readonly #tx = new Uint32Array(SLOTS * (MSGHDR_BYTES / 4))
  readonly #rxIov = new Uint32Array(SLOTS * (IOVEC_BYTES / 4))
  readonly #txIov = new Uint32Array(SLOTS * (IOVEC_BYTES / 4))
  /** Departure time of each datagram; 0: dropped. */
  readonly #due = new Float64Array(SLOTS)
  readonly #rxAt: number
  readonly #txAt: number
  /** Slots [first, end) are in flight, counted without wrapping. */
  #first = 0
  #end = 0
  #busyUntil = 0

  constructor(calls: Calls, from: FastSocket, to: FastSocket, shape: EmulatedShape, seed: number) {
    this.#calls = calls
    this.#in = from.fd
    this.#out = to.fd
    this.#shape = shape
    this.#random = randomNumbers(seed)
    const data = calls.address(this.#data)
    const fill = (headers: Uint32Array, vectors: Uint32Array, name: number): number => {
      const [header, vector] = [calls.address(bufferOf(headers)), calls.address(bufferOf(vectors))]
      for (let slot = 0; slot < SLOTS; slot++) {
        const word = slot * (MSGHDR_BYTES / 4)
        setPointer(headers, word, name)
        headers[word + 2] = SOCKADDR_BYTES
        setPointer(headers, word + 4, vector + slot * IOVEC_BYTES)
        headers[word + 6] = 1
        setPointer(vectors, slot * (IOVEC_BYTES / 4), data + slot * SLOT_BYTES)
        vectors[slot * (IOVEC_BYTES / 4) + 2] = SLOT_BYTES
      }
      return header
    }
    this.#rxAt = fill(this.#rx, this.#rxIov, calls.address(this.from.buffer))
    this.#txAt = fill(this.#tx, this.#txIov, calls.address(this.to.buffer))
  }

  /** Receives until the socket is empty or the ring full; then the kernel queues, drops and counts datagrams. */
  receive(): void {
    for (let turn = 0; turn < BATCHES_PER_TURN; turn++) {
      const slot = this.#end % SLOTS
      const room = Math.min(BATCH, SLOTS - slot, SLOTS - (this.#end - this.#first))
      if (room === 0) return
      const n = this.#calls.recvmmsg(this.#in, this.#rxAt + slot * MSGHDR_BYTES, room, MSG_DONTWAIT, 0)
      if (n <= 0) return
      const now = performance.now()
      for (let i = 0; i < n; i++) this.#enter(slot + i, now)
      this.#end += n
      if (n < room) return
    }
  }

  #enter(slot: number, now: number): void {
    const { counters } = this
    const { delay, loss, rate, queue = Number.POSITIVE_INFINITY } = this.#shape
    const length = this.#rx[slot * (MSGHDR_BYTES / 4) + MSG_LEN_WORD] ?? 0
    counters.packets++
    counters.bytes += length
    this.#due[slot] = 0
    if (loss > 0 && this.#random() < loss) {
      counters.lost++
      return
    }
    let at = now
    if (rate !== undefined) {
      const perMs = rate / 8000
      const size = length + HEADER_BYTES
      const queued = Math.max(0, this.#busyUntil - now) * perMs
      if (queued + size > Math.max(queue, size)) {
        counters.overflowed++
        return
      }
      at = Math.max(this.#busyUntil, now) + size / perMs
      this.#busyUntil = at
    }
    this.#due[slot] = at + delay
    this.#txIov[slot * (IOVEC_BYTES / 4) + 2] = length
  }

  /**
   * Sends datagrams that are due.
   * @returns due time of the next datagram, or infinity
   */
  release(now: number): number {
    const limit = now + RELEASE_SLACK_MS
    const { counters } = this
    while (this.#first < this.#end) {
      const slot = this.#first % SLOTS
      const due = this.#due[slot] ?? 0
      if (due === 0) {
        this.#first++
        continue
      }
      if (due > limit) return due
      counters.late = Math.max(counters.late, now - due)
      const most = Math.min(BATCH, SLOTS - slot, this.#end - this.#first)
      let n = 1
      for (; n < most; n++) {
        const next = this.#due[slot + n] ?? 0
        if (next === 0 || next > limit) break
      }
      const sent = this.#calls.sendmmsg(this.#out, this.#txAt + slot * MSGHDR_BYTES, n, MSG_DONTWAIT)
      // a datagram that cannot be sent is lost
      this.#first += Math.max(1, sent)
      counters.delivered += Math.max(0, sent)
    }
    return Number.POSITIVE_INFINITY
  }
}
