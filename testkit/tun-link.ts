/**
 * An IP link between two network namespaces: a TUN device in each, and between them delay, loss and a bottleneck, so
 * that kernel TCP and every tunnel meet the same link. Linux, root, Node with koffi. testkit/emulator.ts is its process.
 *
 * The devices take and give runs of segments as the kernel makes them (TSO and USO, with a virtio_net_hdr before each
 * packet), since a system call per segment would limit the link to some hundred Mbit/s. Losses and the queue act on
 * single segments; what survives of a run behind a link without a rate is delivered as runs.
 */
import { closeSync, openSync } from 'node:fs'
import type { LaneCounters } from './fast-link.ts'
import { randomNumbers } from './link.ts'
import { type Koffi, loadKoffi, RELEASE_SLACK_MS, Timer, timerCalls } from './link-timer.ts'
import { type Discipline, type DisciplineName, Fifo, openDiscipline, type Queued } from './queue-discipline.ts'

/** Name of the device in both namespaces. */
export const TUN_DEVICE = 'link0'
/** Memory for packets in flight in one direction: 200 ms at 4 Gbit/s. */
const ARENA_BYTES = 128 << 20
/** Largest packet with its virtio_net_hdr. */
const MAX_PACKET_BYTES = 65_536 + 64
/** Packets read from one device before the other is served. */
const READS_PER_TURN = 64

const VNET_BYTES = 10
const VNET_NEEDS_CSUM = 1
const VNET_GSO_TYPE = 1
const VNET_GSO_SIZE = 4
const VNET_CSUM_START = 6
const IPV4_HEADER_BYTES = 20
const IPV6_HEADER_BYTES = 40
const UDP_HEADER_BYTES = 8
const TCP = 6
const TCP_FIN_PSH = 0x09
const TCP_CWR = 0x80
const TCP_CHECKSUM = 16
const UDP_CHECKSUM = 6

const O_RDWR = 2
const O_NONBLOCK = 0o4000
const CLONE_NEWNET = 0x40000000
const TUNSETIFF = 0x400454ca
const TUNSETOFFLOAD = 0x400454d0
const IFF_TUN = 1
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
/** CSUM, TSO4, TSO6, USO4, USO6. */
const OFFLOADS = 0x01 | 0x02 | 0x04 | 0x20 | 0x40

/** Impairments of one direction. */
export interface TunShape {
  /** One-way delay in ms. */
  readonly delay: number
  /** Probability that a segment is lost. */
  readonly loss: number
  /** Bits per second of IP packets, and the queue before it in bytes; absent: unlimited. */
  readonly rate?: number
  readonly queue?: number
  /** Default: droptail. */
  readonly discipline?: DisciplineName
}

export interface TunLinkOptions {
  /** Names of the namespaces; `up` is from left to right. */
  readonly left: string
  readonly right: string
  readonly up: TunShape
  readonly down: TunShape
  readonly seed: number
}

export interface TunCounters {
  readonly up: LaneCounters
  readonly down: LaneCounters
}

/** A packet as it was read, whose segments are on their way. */
interface Chunk {
  readonly at: number
  readonly length: number
  /** Bytes before the payload of the first segment, without the virtio_net_hdr, and payload bytes of a segment. */
  readonly headers: number
  readonly payload: number
  readonly segments: number
  /** Segments not yet sent or dropped. */
  live: number
}

/** Segments [first, first + count) of a chunk. */
interface Run extends Queued {
  readonly chunk: Chunk
  readonly first: number
  readonly count: number
  /** Time at which it leaves the link, ms. */
  due: number
}

/** @throws Error where TUN devices cannot be opened */
export function openTun(options: TunLinkOptions): { counters(): TunCounters; close(): void } {
  const koffi = loadKoffi()
  if (koffi === undefined) throw new Error('the TUN link needs Linux, Node and the package koffi')
  const calls = bindCalls(koffi)
  const left = openDevice(calls, options.left)
  const right = openDevice(calls, options.right)
  const up = new Lane(calls, left, right, options.up, options.seed * 2 + 1)
  const down = new Lane(calls, right, left, options.down, options.seed * 2 + 2)
  const timer = new Timer(calls)
  const release = (): void => {
    const now = performance.now()
    timer.arm(Math.min(up.release(now), down.release(now)), now)
  }
  const received = (lane: Lane): void => {
    lane.receive()
    release()
  }
  const handles = [
    koffi.node.poll(left, { readable: true }, () => received(up)),
    koffi.node.poll(right, { readable: true }, () => received(down)),
    koffi.node.poll(timer.fd, { readable: true }, () => {
      timer.clear()
      release()
    }),
  ]
  return {
    counters: () => ({ up: { ...up.counters }, down: { ...down.counters } }),
    // holds the handles too: a poll handle without reference is collected and stops polling
    close() {
      for (const handle of handles) handle.stop()
      for (const fd of [left, right, timer.fd]) closeSync(fd)
    },
  }
}

type Calls = ReturnType<typeof bindCalls>

function bindCalls(koffi: Koffi) {
  const c = koffi.load(null)
  const number = (signature: string): ((...args: number[]) => number) => c.func(signature)
  return {
    ...timerCalls(koffi),
    errno: () => koffi.errno(),
    setns: number('int setns(int, int)'),
    open: number('int open(uintptr_t, int)'),
    ioctl: number('int ioctl(int, unsigned long, uintptr_t)'),
    write: number('intptr_t write(int, uintptr_t, size_t)'),
    writev: number('intptr_t writev(int, uintptr_t, int)'),
  }
}

/** Opens the device of a namespace. */
function openDevice(calls: Calls, namespace: string): number {
  const home = openSync('/proc/self/ns/net', 'r')
  const there = openSync(`/run/netns/${namespace}`, 'r')
  const scratch = new Uint8Array(64)
  const at = calls.address(scratch.buffer)
  try {
    if (calls.setns(there, CLONE_NEWNET) < 0) throw new Error(`setns ${namespace}: errno ${calls.errno()}`)
    scratch.set(new TextEncoder().encode('/dev/net/tun\0'))
    const fd = calls.open(at, O_RDWR | O_NONBLOCK)
    if (fd < 0) throw new Error(`/dev/net/tun: errno ${calls.errno()}`)
    scratch.fill(0)
    scratch.set(new TextEncoder().encode(TUN_DEVICE))
    new DataView(scratch.buffer).setUint16(16, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, true)
    if (calls.ioctl(fd, TUNSETIFF, at) < 0) throw new Error(`TUNSETIFF: errno ${calls.errno()}`)
    if (calls.ioctl(fd, TUNSETOFFLOAD, OFFLOADS) < 0) throw new Error(`TUNSETOFFLOAD: errno ${calls.errno()}`)
    return fd
  } finally {
    calls.setns(home, CLONE_NEWNET)
    closeSync(home)
    closeSync(there)
  }
}

/** One direction. */
class Lane {
  readonly counters: LaneCounters = { packets: 0, bytes: 0, lost: 0, overflowed: 0, delivered: 0, late: 0 }
  readonly #calls: Calls
  readonly #in: number
  readonly #out: number
  readonly #shape: TunShape
  readonly #random: () => number
  readonly #arena = new ArrayBuffer(ARENA_BYTES)
  readonly #view = new DataView(this.#arena)
  readonly #at: number
  /** virtio_net_hdr and headers of a part of a packet, and its two iovecs. */
  readonly #head = new ArrayBuffer(256)
  readonly #headView = new DataView(this.#head)
  readonly #headAt: number
  readonly #vectors = new BigUint64Array(4)
  readonly #vectorsAt: number
  readonly #chunks = new Fifo<Chunk>()
  #end = 0
  readonly #perMs: number
  readonly #queue: Discipline<Run> | undefined
  /** The transmitter of the bottleneck is busy until then; then the packets are on their way. */
  #busyUntil = 0
  #next: Run | undefined
  readonly #flight = new Fifo<Run>()

  constructor(calls: Calls, from: number, to: number, shape: TunShape, seed: number) {
    this.#calls = calls
    this.#in = from
    this.#out = to
    this.#shape = shape
    this.#random = randomNumbers(seed)
    this.#at = calls.address(this.#arena)
    this.#headAt = calls.address(this.#head)
    this.#vectorsAt = calls.address(this.#vectors.buffer)
    this.#perMs = (shape.rate ?? 0) / 8000
    if (shape.rate !== undefined) {
      const limit = shape.queue ?? Number.POSITIVE_INFINITY
      this.#queue = openDiscipline<Run>(shape.discipline ?? 'droptail', this.#perMs, limit, (run) => {
        this.counters.overflowed++
        run.chunk.live -= run.count
      })
    }
  }

  /** @returns place for a packet in the arena, or -1 if it is full */
  #place(): number {
    for (let first = this.#chunks.peek(); first?.live === 0; first = this.#chunks.peek()) this.#chunks.shift()
    const first = this.#chunks.peek()
    if (first === undefined) this.#end = 0
    else if (this.#end < first.at) return first.at - this.#end > MAX_PACKET_BYTES ? this.#end : -1
    if (ARENA_BYTES - this.#end >= MAX_PACKET_BYTES) return this.#end
    if (first !== undefined && first.at <= MAX_PACKET_BYTES) return -1
    this.#end = 0
    return 0
  }

  /** Reads until the device is empty or the arena full; then the kernel queues and drops packets. */
  receive(): void {
    for (let turn = 0; turn < READS_PER_TURN; turn++) {
      const at = this.#place()
      if (at < 0) return
      const n = this.#calls.read(this.#in, this.#at + at, MAX_PACKET_BYTES)
      if (n <= VNET_BYTES) return
      this.#end = at + ((n + 7) & ~7)
      this.#enter(this.#chunkAt(at, n), performance.now())
    }
  }

  #chunkAt(at: number, length: number): Chunk {
    const view = this.#view
    const ip = at + VNET_BYTES
    const total = length - VNET_BYTES
    const size = view.getUint8(at + VNET_GSO_TYPE) === 0 ? 0 : view.getUint16(at + VNET_GSO_SIZE, true)
    let headers = 0
    if (size > 0) {
      const transport = view.getUint16(at + VNET_CSUM_START, true)
      headers = transport + (this.#isTcp(ip) ? (view.getUint8(ip + transport + 12) >> 4) * 4 : UDP_HEADER_BYTES)
    }
    const payload = size > 0 ? size : total
    const segments = Math.max(1, Math.ceil((total - headers) / payload))
    return { at, length, headers, payload, segments, live: segments }
  }

  #isIpv4(ip: number): boolean {
    return this.#view.getUint8(ip) >> 4 === 4
  }

  #isTcp(ip: number): boolean {
    return this.#view.getUint8(ip + (this.#isIpv4(ip) ? 9 : 6)) === TCP
  }

  /** Ports and protocol. */
  #flowOf(ip: number): number {
    const isIpv4 = this.#isIpv4(ip)
    const ports = this.#view.getUint32(ip + (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES))
    return (Math.imul(ports, 0x9e3779b1) >>> 8) + (this.#isTcp(ip) ? 1 : 0)
  }

  #enter(chunk: Chunk, now: number): void {
    const { counters } = this
    const { delay, loss } = this.#shape
    this.#chunks.push(chunk)
    const total = chunk.length - VNET_BYTES
    counters.packets += chunk.segments
    counters.bytes += total + (chunk.segments - 1) * chunk.headers
    const flow = this.#flowOf(chunk.at + VNET_BYTES)
    let first = 0
    const pass = (count: number): void => {
      if (count <= 0) return
      const end = Math.min((first + count) * chunk.payload, total - chunk.headers)
      const bytes = end - first * chunk.payload + count * chunk.headers
      const run: Run = { chunk, first, count, bytes, flow, at: now, due: now + delay }
      if (this.#queue === undefined) this.#flight.push(run)
      else this.#queue.enqueue(run)
    }
    for (let i = 0; i < chunk.segments; i++) {
      const isLost = loss > 0 && this.#random() < loss
      if (!isLost && this.#queue === undefined) continue
      if (isLost) {
        pass(i - first)
        counters.lost++
        chunk.live--
      } else {
        first = i
        pass(1)
      }
      first = i + 1
    }
    pass(chunk.segments - first)
    if (this.#queue !== undefined) this.#transmit(now)
  }

  /** Moves packets through the bottleneck until `now`. */
  #transmit(now: number): void {
    for (;;) {
      const run = this.#next
      if (run !== undefined) {
        if (this.#busyUntil > now) return
        run.due = this.#busyUntil + this.#shape.delay
        this.#flight.push(run)
        this.#next = undefined
      }
      const next = this.#queue?.dequeue(Math.min(now, this.#busyUntil))
      if (next === undefined) return
      this.#next = next
      this.#busyUntil = Math.max(this.#busyUntil, next.at)
      if (this.#shape.discipline !== 'policer') this.#busyUntil += next.bytes / this.#perMs
    }
  }

  /**
   * Sends packets that are due.
   * @returns time of the next event, or infinity
   */
  release(now: number): number {
    this.#transmit(now)
    const limit = now + RELEASE_SLACK_MS
    const { counters } = this
    for (let run = this.#flight.peek(); run !== undefined && run.due <= limit; run = this.#flight.peek()) {
      counters.late = Math.max(counters.late, now - run.due)
      this.#flight.shift()
      if (this.#write(run) > 0) counters.delivered += run.count
      run.chunk.live -= run.count
    }
    const due = this.#flight.peek()?.due ?? Number.POSITIVE_INFINITY
    return this.#next === undefined ? due : Math.min(due, this.#busyUntil)
  }

  #write({ chunk, first, count }: Run): number {
    if (count === chunk.segments) return this.#calls.write(this.#out, this.#at + chunk.at, chunk.length)
    const ip = chunk.at + VNET_BYTES
    const start = first * chunk.payload
    const bytes = Math.min(chunk.payload * count, chunk.length - VNET_BYTES - chunk.headers - start)
    this.#makeHeaders(chunk, first, count, bytes)
    const head = VNET_BYTES + chunk.headers
    this.#vectors[0] = BigInt(this.#headAt)
    this.#vectors[1] = BigInt(head)
    this.#vectors[2] = BigInt(this.#at + ip + chunk.headers + start)
    this.#vectors[3] = BigInt(bytes)
    return this.#calls.writev(this.#out, this.#vectorsAt, 2)
  }

  /** Headers of a part of a run, as segmentation makes them. */
  #makeHeaders(chunk: Chunk, first: number, count: number, bytes: number): void {
    const head = this.#headView
    const ip = VNET_BYTES
    const length = chunk.headers + bytes
    new Uint8Array(this.#head).set(new Uint8Array(this.#arena, chunk.at, VNET_BYTES + chunk.headers))
    head.setUint8(0, VNET_NEEDS_CSUM)
    if (count === 1) {
      head.setUint8(VNET_GSO_TYPE, 0)
      head.setUint16(VNET_GSO_SIZE, 0, true)
    }
    const transport = ip + head.getUint16(VNET_CSUM_START, true)
    const isIpv4 = this.#isIpv4(chunk.at + VNET_BYTES)
    if (isIpv4) {
      head.setUint16(ip + 2, length)
      head.setUint16(ip + 4, (head.getUint16(ip + 4) + first) & 0xffff)
      head.setUint16(ip + 10, 0)
      head.setUint16(ip + 10, ~sum(head, ip, transport - ip, 0) & 0xffff)
    } else head.setUint16(ip + 4, length - IPV6_HEADER_BYTES)
    const isTcp = this.#isTcp(chunk.at + VNET_BYTES)
    if (isTcp) {
      head.setUint32(transport + 4, (head.getUint32(transport + 4) + first * chunk.payload) >>> 0)
      let flags = head.getUint8(transport + 13)
      if (first + count < chunk.segments) flags &= ~TCP_FIN_PSH
      if (first > 0) flags &= ~TCP_CWR
      head.setUint8(transport + 13, flags)
    } else head.setUint16(transport + 4, UDP_HEADER_BYTES + bytes)
    // the sum of the pseudo header, to which the receiver adds the rest
    const addresses = isIpv4 ? 8 : 32
    const pseudo = length - (transport - ip) + (isTcp ? TCP : 17)
    head.setUint16(
      transport + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM),
      sum(head, ip + (isIpv4 ? 12 : 8), addresses, pseudo),
    )
  }
}

/** Internet checksum (RFC 1071) without the final complement. */
function sum(view: DataView, at: number, bytes: number, start: number): number {
  let total = start
  for (let i = 0; i < bytes; i += 2) total += view.getUint16(at + i)
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return total
}
