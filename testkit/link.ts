/**
 * A user-space network link: forwards UDP datagrams between clients and one server with delay, jitter, loss,
 * duplication, reordering, corruption and a rate-limited queue, all drawn from seeded generators. Runs in any Node or
 * Bun process (node:dgram).
 *
 * Each client source address has its own upstream socket, as behind a NAT, so that the server can distinguish clients.
 * Delays are accurate to about a millisecond. Datagrams are opaque.
 */

import type { RemoteInfo, Socket } from 'node:dgram'
import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { type Due, DueHeap } from './due-heap.ts'

/** Limit of clients (source addresses); datagrams of further ones are dropped. */
const MAX_CLIENTS = 4096
/** Limit of datagrams in flight in both directions; further ones are dropped as overflow. */
const MAX_IN_FLIGHT = 65536
/** Requested socket buffer size, so that a busy event loop drops nothing. */
const SOCKET_BUFFER_BYTES = 4 << 20
/** A datagram due within this time is released at once, in ms: half of the timer resolution. */
const RELEASE_SLACK_MS = 0.5
/** Bytes of IP and UDP headers per datagram, counted by a rate-limited link. */
const HEADER_BYTES_IPV4 = 28
const HEADER_BYTES_IPV6 = 48
/** Default queue length of a rate-limited link, in ms at its rate. */
const DEFAULT_QUEUE_MS = 100

/** Impairments of one direction. The default link has none. */
export interface LinkShape {
  /** One-way delay in ms. */
  readonly delay?: number
  /** Additional delay in ms, uniform in [0, jitter]. Order is kept. */
  readonly jitter?: number
  /** Probability that a datagram is lost, 0..1. */
  readonly loss?: number
  /** Mean length of a run of losses in datagrams (two-state Gilbert-Elliott model); 1 or less: independent losses. */
  readonly burst?: number
  /** Probability that a datagram arrives twice. */
  readonly duplicate?: number
  /** Probability that a datagram is overtaken by those sent within `reorderDelay` ms after it. */
  readonly reorder?: number
  /** Extra delay of an overtaken datagram, in ms (default: delay / 4 + 2). */
  readonly reorderDelay?: number
  /** Probability that one random bit is flipped. */
  readonly corrupt?: number
  /** Bits per second, IP and UDP headers counted; absent: unlimited. */
  readonly rate?: number
  /** Queue limit of a rate-limited link in bytes (default: 100 ms at the rate). */
  readonly queue?: number
}

/** Direction of a datagram: `up` is client to server. */
export type Direction = 'up' | 'down'

export interface LinkOptions extends LinkShape {
  /** Address of the server's UDP socket. */
  readonly target: { readonly host: string; readonly port: number }
  /** Address that clients send to (default: loopback of the target's family, an ephemeral port). */
  readonly host?: string
  readonly port?: number
  readonly seed?: number
  /** Overrides of the common shape for one direction. */
  readonly up?: LinkShape
  readonly down?: LinkShape
  /**
   * Called with every datagram that enters the link; `false` drops it (counted as lost). Copy the bytes to keep them.
   */
  readonly tap?: (direction: Direction, datagram: Buffer) => boolean
}

/** Counters of one direction. `packets` and `bytes` (UDP payload) entered the link. */
export interface LinkCounters {
  packets: number
  bytes: number
  delivered: number
  deliveredBytes: number
  lost: number
  overflowed: number
  duplicated: number
  reordered: number
  corrupted: number
}

export interface Link {
  /** Address that clients send to. */
  readonly host: string
  readonly port: number
  readonly counters: { readonly up: LinkCounters; readonly down: LinkCounters }
  /** Source addresses seen so far. */
  readonly clients: number
  /** Changes fields of the shape of a direction (default: both). */
  reshape(shape: LinkShape, direction?: Direction): void
  /** Drops every datagram of a direction (default: both) until heal(). */
  blackhole(direction?: Direction): void
  heal(): void
  /**
   * NAT rebinding: every client gets a new source port at the server, of another loopback address if `host` is given;
   * datagrams to the old one are lost.
   */
  rebind(host?: string): void
  /**
   * Sends bytes, unimpaired, to the server from the address of the latest client (`up`), or to that client from the
   * server's address (`down`).
   * @returns false if there is no client yet
   */
  inject(datagram: Uint8Array, direction?: Direction): boolean
  close(): Promise<void>
}

/** mulberry32: a small seeded generator of uniform numbers in [0, 1). Not for secrets. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

interface Client {
  readonly address: string
  readonly port: number
  upstream: Socket
}

interface InFlight extends Due {
  readonly datagram: Buffer
  readonly client: Client
  readonly lane: Lane
}

interface Lane {
  readonly direction: Direction
  readonly random: () => number
  readonly counters: LinkCounters
  shape: LinkShape
  dark: boolean
  inBurst: boolean
  lastDue: number
  /** Time at which the rate-limited link has sent everything in its queue. */
  busyUntil: number
}

const newCounters = (): LinkCounters => ({
  packets: 0,
  bytes: 0,
  delivered: 0,
  deliveredBytes: 0,
  lost: 0,
  overflowed: 0,
  duplicated: 0,
  reordered: 0,
  corrupted: 0,
})

/** Whether the next datagram is lost. Gilbert-Elliott with total loss in the bad state: P(stay) = 1 - 1/burst. */
function drawLoss(lane: Lane): boolean {
  const loss = lane.shape.loss ?? 0
  const burst = lane.shape.burst ?? 1
  if (loss <= 0) return false
  if (burst <= 1) return lane.random() < loss
  const r = lane.random()
  lane.inBurst = lane.inBurst ? r >= 1 / burst : r < loss / Math.max(1e-9, (1 - loss) * burst)
  return lane.inBurst
}

/** Starts a link. Rejects when the address cannot be bound. */
export async function openLink(options: LinkOptions): Promise<Link> {
  const link = new EmulatedLink(options)
  await link.bind()
  return link
}

class EmulatedLink implements Link {
  host = ''
  port = 0
  readonly counters: { readonly up: LinkCounters; readonly down: LinkCounters }
  readonly #options: LinkOptions
  readonly #loopback: string
  readonly #headerBytes: number
  readonly #up: Lane
  readonly #down: Lane
  readonly #listener: Socket
  readonly #clients = new Map<string, Client>()
  /** Sockets from before a rebinding, kept open: a NAT drops late datagrams without an ICMP error. */
  readonly #retired: Socket[] = []
  readonly #schedule = new DueHeap<InFlight>()
  #latest: Client | undefined
  #order = 0
  #timer: NodeJS.Timeout | undefined
  #armedFor = Number.POSITIVE_INFINITY
  #closed = false

  constructor(options: LinkOptions) {
    const isV6 = isIPv6(options.target.host)
    const seed = options.seed ?? 1
    this.#options = options
    this.#loopback = isV6 ? '::1' : '127.0.0.1'
    this.#headerBytes = isV6 ? HEADER_BYTES_IPV6 : HEADER_BYTES_IPV4
    this.#up = laneOf('up', seed * 2 + 1, options)
    this.#down = laneOf('down', seed * 2 + 2, options)
    this.counters = { up: this.#up.counters, down: this.#down.counters }
    this.#listener = newSocket(isV6)
    this.#listener.on('message', (datagram: Buffer, from: RemoteInfo) => {
      const client = this.#clientOf(from)
      if (client === undefined) this.#up.counters.overflowed++
      else this.#enter(this.#up, client, datagram)
    })
  }

  bind(): Promise<void> {
    const { port = 0, host = this.#loopback } = this.#options
    return new Promise((resolve, reject) => {
      this.#listener.once('error', reject)
      this.#listener.bind(port, host, () => {
        this.#listener.off('error', reject)
        const local = this.#listener.address()
        this.host = local.address
        this.port = local.port
        resolve()
      })
    })
  }

  get clients(): number {
    return this.#clients.size
  }

  reshape(shape: LinkShape, direction?: Direction): void {
    for (const lane of this.#lanes(direction)) lane.shape = { ...lane.shape, ...shape }
  }

  blackhole(direction?: Direction): void {
    for (const lane of this.#lanes(direction)) lane.dark = true
  }

  heal(): void {
    for (const lane of this.#lanes()) lane.dark = false
  }

  rebind(host = this.#loopback): void {
    for (const client of this.#clients.values()) {
      this.#retired.push(client.upstream)
      this.#openUpstream(client, host)
    }
  }

  inject(datagram: Uint8Array, direction: Direction = 'up'): boolean {
    const client = this.#latest
    if (client === undefined) return false
    this.#send(direction === 'up' ? this.#up : this.#down, client, datagram)
    return true
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    this.#schedule.clear()
    const upstreams = [...this.#clients.values()].map((client) => client.upstream)
    const sockets = [this.#listener, ...this.#retired, ...upstreams]
    await Promise.all(sockets.map((socket) => new Promise<void>((done) => void socket.close(() => done()))))
  }

  #lanes(direction?: Direction): readonly Lane[] {
    return direction === undefined ? [this.#up, this.#down] : [direction === 'up' ? this.#up : this.#down]
  }

  #openUpstream(client: Client, host = this.#loopback): void {
    const socket = newSocket(this.#loopback === '::1')
    client.upstream = socket
    socket.on('message', (datagram: Buffer) => {
      if (client.upstream === socket) this.#enter(this.#down, client, datagram)
    })
    socket.bind(0, host)
  }

  #clientOf(from: RemoteInfo): Client | undefined {
    const latest = this.#latest
    if (latest !== undefined && latest.port === from.port && latest.address === from.address) return latest
    const key = `${from.address}|${from.port}`
    let client = this.#clients.get(key)
    if (client === undefined && this.#clients.size < MAX_CLIENTS) {
      client = { address: from.address, port: from.port, upstream: this.#listener }
      this.#openUpstream(client)
      this.#clients.set(key, client)
    }
    if (client !== undefined) this.#latest = client
    return client
  }

  /** Applies the shape to a datagram that enters the link. */
  #enter(lane: Lane, client: Client, datagram: Buffer): void {
    const { shape, counters, random } = lane
    counters.packets++
    counters.bytes += datagram.length
    if (this.#options.tap?.(lane.direction, datagram) === false || lane.dark || drawLoss(lane)) {
      counters.lost++
      return
    }
    const now = performance.now()
    const sent = this.#queue(lane, datagram.length, now)
    if (sent === undefined) {
      counters.overflowed++
      return
    }
    const delay = shape.delay ?? 0
    let due = sent + delay
    if (shape.jitter !== undefined && shape.jitter > 0) due = Math.max(due + random() * shape.jitter, lane.lastDue)
    const bytes = drawCorruption(lane, datagram)
    if (shape.reorder !== undefined && shape.reorder > 0 && random() < shape.reorder) {
      counters.reordered++
      due += shape.reorderDelay ?? delay / 4 + 2
    } else lane.lastDue = due
    this.#scheduleAt(lane, client, bytes, due, now)
    if (shape.duplicate !== undefined && shape.duplicate > 0 && random() < shape.duplicate) {
      counters.duplicated++
      this.#scheduleAt(lane, client, bytes, due, now)
    }
  }

  /** Time at which the bottleneck has sent `length` more bytes; undefined when its queue is full. */
  #queue(lane: Lane, length: number, now: number): number | undefined {
    const { rate, queue } = lane.shape
    if (rate === undefined) return now
    const perMs = rate / 8000
    const queued = Math.max(0, lane.busyUntil - now) * perMs
    const size = length + this.#headerBytes
    if (queued + size > Math.max(queue ?? perMs * DEFAULT_QUEUE_MS, size)) return undefined
    lane.busyUntil = Math.max(lane.busyUntil, now) + size / perMs
    return lane.busyUntil
  }

  #scheduleAt(lane: Lane, client: Client, datagram: Buffer, due: number, now: number): void {
    if (this.#schedule.length >= MAX_IN_FLIGHT) {
      lane.counters.overflowed++
      return
    }
    const item = { due, order: this.#order++, datagram, client, lane }
    if (due <= now && this.#schedule.length === 0) {
      this.#deliver(item)
      return
    }
    this.#schedule.push(item)
    this.#arm(now)
  }

  #arm(now: number): void {
    const item = this.#schedule.first()
    if (item === undefined || item.due >= this.#armedFor || this.#closed) return
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    this.#armedFor = item.due
    this.#timer = setTimeout(this.#release, Math.max(1, Math.round(item.due - now - RELEASE_SLACK_MS)))
  }

  readonly #release = (): void => {
    this.#timer = undefined
    this.#armedFor = Number.POSITIVE_INFINITY
    const schedule = this.#schedule
    const limit = performance.now() + RELEASE_SLACK_MS
    for (let item = schedule.first(); item !== undefined && item.due <= limit; item = schedule.first()) {
      schedule.pop()
      this.#deliver(item)
    }
    this.#arm(performance.now())
  }

  #deliver({ lane, client, datagram }: InFlight): void {
    lane.counters.delivered++
    lane.counters.deliveredBytes += datagram.length
    this.#send(lane, client, datagram)
  }

  #send(lane: Lane, client: Client, datagram: Uint8Array): void {
    const { target } = this.#options
    if (lane === this.#up) client.upstream.send(datagram, 0, datagram.length, target.port, target.host)
    else this.#listener.send(datagram, 0, datagram.length, client.port, client.address)
  }
}

const laneOf = (direction: Direction, seed: number, options: LinkOptions): Lane => ({
  direction,
  random: randomNumbers(seed),
  counters: newCounters(),
  shape: { ...options, ...options[direction] },
  dark: false,
  inBurst: false,
  lastDue: 0,
  busyUntil: 0,
})

/** The datagram, or a copy with one bit flipped. */
function drawCorruption({ shape, counters, random }: Lane, datagram: Buffer): Buffer {
  const { corrupt = 0 } = shape
  if (corrupt <= 0 || random() >= corrupt || datagram.length === 0) return datagram
  const bytes = Buffer.from(datagram)
  const bit = Math.floor(random() * bytes.length * 8)
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  counters.corrupted++
  return bytes
}

function newSocket(isV6: boolean): Socket {
  const socket = createSocket({
    type: isV6 ? 'udp6' : 'udp4',
    // all addresses are literals: a synchronous lookup saves one event loop turn per datagram
    lookup: (host, _options, done) => done(null, host, isV6 ? 6 : 4),
  })
  // ICMP port unreachable, which a link ignores
  socket.on('error', () => undefined)
  socket.on('listening', () => {
    try {
      socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
      socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
    } catch {
      // the default size is used
    }
  })
  return socket
}
