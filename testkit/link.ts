/**
 * A network link in user space: relays UDP datagrams between clients and one server with delay, jitter, loss, duplication, reordering,
 * corruption and a rate-limited queue, all decided by seeded generators. Runs in any Node or Bun process (node:dgram); demo, bench and
 * tests share it.
 *
 * Every client source address gets an upstream socket of its own, as behind a NAT, so the server can tell clients apart.
 * Delay is good to about a millisecond. What it leaves to others: packet contents. It never looks inside a datagram.
 */

import type { RemoteInfo, Socket } from 'node:dgram'
import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'

/** Clients (source addresses) at most; datagrams of further ones are dropped. */
const MAX_CLIENTS = 4096
/** Datagrams under way in both directions at most; further ones are dropped as overflow. */
const MAX_IN_FLIGHT = 65536
/** Bytes asked for as socket buffers, so that a busy event loop loses nothing by itself. */
const SOCKET_BUFFER_BYTES = 4 << 20
/** A datagram due within this time is released at once, in ms: half of the timer resolution. */
const RELEASE_SLACK_MS = 0.5
/** Bytes of IP and UDP headers that a rate-limited link carries with each datagram. */
const HEADER_BYTES_IPV4 = 28
const HEADER_BYTES_IPV6 = 48
/** Default length of the queue of a rate-limited link, in ms of its rate. */
const DEFAULT_QUEUE_MS = 100

/** What happens to datagrams of one direction. All fields are optional; the default link is perfect. */
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
  /** How much later an overtaken datagram comes, in ms (default: delay / 4 + 2). */
  readonly reorderDelay?: number
  /** Probability that one random bit is flipped. */
  readonly corrupt?: number
  /** Bits per second, IP and UDP headers counted; absent: unlimited. */
  readonly rate?: number
  /** Bytes that wait for a rate-limited link; further datagrams are dropped (default: 100 ms of the rate). */
  readonly queue?: number
}

/** Direction of a datagram: `up` is client to server. */
export type Direction = 'up' | 'down'

export interface LinkOptions extends LinkShape {
  /** Address of the server's UDP socket. */
  readonly target: { readonly host: string; readonly port: number }
  /** Where clients send to (default: the loopback address of the target's family, an ephemeral port). */
  readonly host?: string
  readonly port?: number
  readonly seed?: number
  /** Differences of one direction from the common shape. */
  readonly up?: LinkShape
  readonly down?: LinkShape
  /** Sees every datagram that enters the link; `false` drops it (counted as lost). The bytes must not be kept without a copy. */
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
  /** Where clients must send to. */
  readonly host: string
  readonly port: number
  readonly counters: { readonly up: LinkCounters; readonly down: LinkCounters }
  /** Source addresses seen so far. */
  readonly clients: number
  /** Replaces the shape of a direction (both without `direction`), keeping fields that are not given. */
  reshape(shape: LinkShape, direction?: Direction): void
  /** Loses every datagram of a direction (both without one) until heal(). */
  blackhole(direction?: Direction): void
  heal(): void
  /** From now on the server sees every client at a new port, and what it sends to the old one is lost (NAT rebinding). */
  rebind(): void
  /**
   * Sends bytes past the link's rules to the server from the address at which it knows the latest client (`up`), or to that client from
   * the server's address (`down`). False without a client.
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

interface InFlight {
  readonly due: number
  /** Order of entry, for datagrams due at the same time. */
  readonly order: number
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
  /** Time at which the rate-limited link has sent everything that it took. */
  busyUntil: number
}

const before = (a: InFlight, b: InFlight): boolean => a.due < b.due || (a.due === b.due && a.order < b.order)

/** Binary heap of datagrams under way, earliest first. */
class Schedule {
  readonly #heap: InFlight[] = []

  get length(): number {
    return this.#heap.length
  }

  first(): InFlight | undefined {
    return this.#heap[0]
  }

  push(item: InFlight): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(item)
    while (i > 0) {
      const parent = (i - 1) >> 1
      const above = heap[parent]
      if (above === undefined || !before(item, above)) break
      heap[i] = above
      i = parent
    }
    heap[i] = item
  }

  pop(): InFlight | undefined {
    const heap = this.#heap
    const top = heap[0]
    const item = heap.pop()
    if (top === undefined || item === undefined || heap.length === 0) return top
    let i = 0
    for (;;) {
      const left = 2 * i + 1
      let child = heap[left]
      let at = left
      if (child === undefined) break
      const right = heap[left + 1]
      if (right !== undefined && before(right, child)) {
        child = right
        at = left + 1
      }
      if (!before(child, item)) break
      heap[i] = child
      i = at
    }
    heap[i] = item
    return top
  }

  clear(): void {
    this.#heap.length = 0
  }
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

/** Whether the next datagram is lost. Gilbert-Elliott with all lost in the bad state: P(stay) = 1 - 1/burst. */
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
  const { target, tap } = options
  const v6 = isIPv6(target.host)
  const type = v6 ? 'udp6' : 'udp4'
  const loopback = v6 ? '::1' : '127.0.0.1'
  const headerBytes = v6 ? HEADER_BYTES_IPV6 : HEADER_BYTES_IPV4
  const seed = options.seed ?? 1
  const clients = new Map<string, Client>()
  const retired: Socket[] = []
  const schedule = new Schedule()
  let latest: Client | undefined
  let order = 0
  let timer: NodeJS.Timeout | undefined
  let armedFor = Number.POSITIVE_INFINITY
  let closed = false

  const laneOf = (direction: Direction, laneSeed: number): Lane => ({
    direction,
    random: randomNumbers(laneSeed),
    counters: newCounters(),
    shape: { ...options, ...options[direction] },
    dark: false,
    inBurst: false,
    lastDue: 0,
    busyUntil: 0,
  })
  const up = laneOf('up', seed * 2 + 1)
  const down = laneOf('down', seed * 2 + 2)

  // All addresses are literals: answering the look-up at once saves a turn of the event loop per datagram.
  const newSocket = (): Socket => {
    const socket = createSocket({
      type,
      lookup: (host, _options, done) => done(null, host, v6 ? 6 : 4),
    })
    // A port where nobody listens answers with ICMP; a link does not care.
    socket.on('error', () => undefined)
    socket.on('listening', () => {
      try {
        socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
        socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
      } catch {
        // the default size has to do
      }
    })
    return socket
  }

  const deliver = (item: InFlight): void => {
    const { lane, client, datagram } = item
    lane.counters.delivered++
    lane.counters.deliveredBytes += datagram.length
    if (lane === up) client.upstream.send(datagram, 0, datagram.length, target.port, target.host)
    else listener.send(datagram, 0, datagram.length, client.port, client.address)
  }

  const release = (): void => {
    timer = undefined
    armedFor = Number.POSITIVE_INFINITY
    const limit = performance.now() + RELEASE_SLACK_MS
    for (let item = schedule.first(); item !== undefined && item.due <= limit; item = schedule.first()) {
      schedule.pop()
      deliver(item)
    }
    arm(performance.now())
  }

  const arm = (now: number): void => {
    const item = schedule.first()
    if (item === undefined || item.due >= armedFor || closed) return
    if (timer !== undefined) clearTimeout(timer)
    armedFor = item.due
    timer = setTimeout(release, Math.max(1, Math.round(item.due - now - RELEASE_SLACK_MS)))
  }

  const schedulePacket = (lane: Lane, client: Client, datagram: Buffer, due: number, now: number): void => {
    if (schedule.length >= MAX_IN_FLIGHT) {
      lane.counters.overflowed++
      return
    }
    const item = { due, order: order++, datagram, client, lane }
    if (due <= now && schedule.length === 0) {
      deliver(item)
      return
    }
    schedule.push(item)
    arm(now)
  }

  const enter = (lane: Lane, client: Client, datagram: Buffer): void => {
    const { shape, counters, random } = lane
    counters.packets++
    counters.bytes += datagram.length
    if (tap?.(lane.direction, datagram) === false || lane.dark || drawLoss(lane)) {
      counters.lost++
      return
    }
    const now = performance.now()
    let due = now
    if (shape.rate !== undefined) {
      const perMs = shape.rate / 8000
      const queued = Math.max(0, lane.busyUntil - now) * perMs
      const size = datagram.length + headerBytes
      if (queued + size > Math.max(shape.queue ?? perMs * DEFAULT_QUEUE_MS, size)) {
        counters.overflowed++
        return
      }
      lane.busyUntil = Math.max(lane.busyUntil, now) + size / perMs
      due = lane.busyUntil
    }
    const delay = shape.delay ?? 0
    due += delay
    if (shape.jitter !== undefined && shape.jitter > 0) due = Math.max(due + random() * shape.jitter, lane.lastDue)
    let bytes = datagram
    if (shape.corrupt !== undefined && shape.corrupt > 0 && random() < shape.corrupt && bytes.length > 0) {
      bytes = Buffer.from(datagram)
      const bit = Math.floor(random() * bytes.length * 8)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      counters.corrupted++
    }
    if (shape.reorder !== undefined && shape.reorder > 0 && random() < shape.reorder) {
      counters.reordered++
      due += shape.reorderDelay ?? delay / 4 + 2
    } else lane.lastDue = due
    schedulePacket(lane, client, bytes, due, now)
    if (shape.duplicate !== undefined && shape.duplicate > 0 && random() < shape.duplicate) {
      counters.duplicated++
      schedulePacket(lane, client, bytes, due, now)
    }
  }

  const openUpstream = (client: Client): void => {
    const socket = newSocket()
    client.upstream = socket
    socket.on('message', (datagram: Buffer) => {
      if (client.upstream === socket) enter(down, client, datagram)
    })
    socket.bind(0, loopback)
  }

  const clientOf = (from: RemoteInfo): Client | undefined => {
    if (latest !== undefined && latest.port === from.port && latest.address === from.address) return latest
    const key = `${from.address}|${from.port}`
    let client = clients.get(key)
    if (client === undefined && clients.size < MAX_CLIENTS) {
      client = { address: from.address, port: from.port, upstream: listener }
      openUpstream(client)
      clients.set(key, client)
    }
    if (client !== undefined) latest = client
    return client
  }

  const listener = newSocket()
  listener.on('message', (datagram: Buffer, from: RemoteInfo) => {
    const client = clientOf(from)
    if (client === undefined) up.counters.overflowed++
    else enter(up, client, datagram)
  })
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject)
    listener.bind(options.port ?? 0, options.host ?? loopback, () => {
      listener.off('error', reject)
      resolve()
    })
  })
  const local = listener.address()

  const lanesOf = (direction?: Direction): readonly Lane[] =>
    direction === undefined ? [up, down] : [direction === 'up' ? up : down]

  return {
    host: local.address,
    port: local.port,
    counters: { up: up.counters, down: down.counters },
    get clients() {
      return clients.size
    },
    reshape(shape, direction) {
      for (const lane of lanesOf(direction)) lane.shape = { ...lane.shape, ...shape }
    },
    blackhole(direction) {
      for (const lane of lanesOf(direction)) lane.dark = true
    },
    heal() {
      up.dark = false
      down.dark = false
    },
    rebind() {
      for (const client of clients.values()) {
        // The old socket stays open: a real NAT swallows late answers, it does not refuse them.
        retired.push(client.upstream)
        openUpstream(client)
      }
    },
    inject(datagram, direction = 'up') {
      if (latest === undefined) return false
      if (direction === 'up') latest.upstream.send(datagram, 0, datagram.length, target.port, target.host)
      else listener.send(datagram, 0, datagram.length, latest.port, latest.address)
      return true
    },
    async close() {
      if (closed) return
      closed = true
      if (timer !== undefined) clearTimeout(timer)
      schedule.clear()
      const sockets = [listener, ...retired, ...[...clients.values()].map((client) => client.upstream)]
      await Promise.all(sockets.map((socket) => new Promise<void>((done) => void socket.close(() => done()))))
    },
  }
}
