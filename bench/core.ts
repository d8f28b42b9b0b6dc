/**
 * `bench core`: nanoseconds per segment of the engine alone (send + deliver + ACK at both endpoints), in memory.
 *
 * Two engines in virtual time, a link of 5 ms each way, no encryption. The sender always has data and the receiver
 * takes all of it at once, so the window is always full. Copies counted: application into segments, segments onto the
 * link, link into receive blocks, payload to the application. The second figure excludes the two copies of the emulated
 * link. --quick is a short run, --json FILE writes the figures.
 */
import { parseArgs } from 'node:util'
import {
  Core,
  Event,
  EventType,
  instantiate,
  Mode,
  NonceStrategy,
  ObfsTx,
  Rx,
  Span,
  Tx,
  UNSET,
} from '../host/engine/core.ts'
import { writeRecord } from '../host/net/address.ts'
import { BlockViews } from '../testkit/block-views.ts'
import { address, ObfsHost } from '../testkit/obfs-host.ts'
import { describe, machine, median } from './peers.ts'
import { writeJson } from './series.ts'

const DELAY_TICKS = 5 * 8
const BLOCK_BYTES = 2048
const SLOT_BYTES = 1344
const KCP_MTU = 1332
/** Exceeds the number of blocks of the largest window. */
const VIEWS = 65536
const PAYLOAD_BYTES = 1308
/** Native upstream KCP in C (-O2) on a comparable machine, ns: window -> [no loss, 2 % loss]. */
const NATIVE: ReadonlyMap<number, readonly [number, number]> = new Map([
  [256, [471, 589]],
  [1024, [666, 692]],
  [4096, [707, 1220]],
  [16384, [1027, 2560]],
])

/** One direction of the link: datagrams in order of arrival. */
class Line {
  readonly #bytes: Uint8Array
  readonly #lengths: Uint16Array
  readonly #due: Float64Array
  readonly #mask: number
  readonly #sources = new BlockViews(VIEWS)
  readonly #slots: Uint8Array[] = []
  #first = 0
  #end = 0

  constructor(slots: number) {
    this.#mask = slots - 1
    this.#bytes = new Uint8Array(slots * SLOT_BYTES)
    this.#lengths = new Uint16Array(slots)
    this.#due = new Float64Array(slots)
  }

  push(from: Uint8Array, offset: number, length: number, due: number): void {
    if (this.#end - this.#first > this.#mask) throw new Error('the link is full')
    const slot = this.#end++ & this.#mask
    this.#bytes.set(this.#sources.at(from, offset, length), slot * SLOT_BYTES)
    this.#lengths[slot] = length
    this.#due[slot] = due
  }

  /** Time of the next arrival, Infinity if the line is empty. */
  next(): number {
    return this.#first === this.#end ? Infinity : (this.#due[this.#first & this.#mask] ?? Infinity)
  }

  /** Copies the next datagram and returns its length. */
  shift(to: Uint8Array, offset: number): number {
    const slot = this.#first++ & this.#mask
    const length = this.#lengths[slot] ?? 0
    let view = this.#slots[slot]
    if (view === undefined || view.length !== length) {
      view = this.#bytes.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + length)
      this.#slots[slot] = view
    }
    to.set(view, offset)
    return length
  }
}

function endpoint(mode: number, window: number): Core {
  const core = new Core(instantiate())
  core.fillEntropy()
  core.configure(
    {
      mode,
      tagBytes: 0,
      nonceBytes: 0,
      nonceStrategy: NonceStrategy.NONE,
      kcpMtu: KCP_MTU,
      sndwnd: window,
      rcvwnd: window,
      nodelay: 2,
      interval: 10,
      resend: 2,
      nc: 1,
      flush: UNSET,
      timeout: 600,
      linger: 30,
      keepalive: 0,
      timeWait: 120,
      memoryCeiling: 512 << 20,
      maxSessions: 65535,
      replayCapacity: 0,
      maxHalfOpen: 0,
      confirm: 0,
      sendOnce: 0,
      searchMtu: 0,
    },
    0,
  )
  return core
}

/** Writes an IPv4 loopback address record. */
function writeAddress(core: Core, word: number, port: number): void {
  core.u32[word] = 4 | (port << 16)
  core.u32[word + 2] = 0x0100007f
}

interface Cost {
  /** Wall nanoseconds per delivered segment. */
  readonly total: number
  /** The same, excluding the emulated link. */
  readonly engine: number
}

/** A client that sends to a server over a link of 5 ms each way, in virtual time. */
class Transfer {
  readonly #client: Core
  readonly #server: Core
  readonly #up: Line
  readonly #down: Line
  readonly #loss: number
  readonly #handle: number
  readonly #chunk = new Uint8Array(65536).fill(85)
  readonly #sink = new Uint8Array(131072)
  readonly #written = new BlockViews(VIEWS)
  readonly #read = new BlockViews(VIEWS)
  #random = 1
  #now = 0
  /** Bytes taken by the server's application. */
  delivered = 0
  /** Wall ms spent in the link. */
  link = 0

  constructor(window: number, loss: number) {
    const client = endpoint(Mode.CLIENT, window)
    const server = endpoint(Mode.SERVER, window)
    writeAddress(client, client.calls.peer_ptr() >>> 2, 1000)
    client.calls.set_peer(0)
    for (let i = 0; i < client.rxSlots; i++) {
      writeAddress(client, client.rxWord + i * Rx.WORDS + Rx.address, 1000)
      writeAddress(server, server.rxWord + i * Rx.WORDS + Rx.address, 2000)
    }
    this.#client = client
    this.#server = server
    this.#up = new Line(2 * window)
    this.#down = new Line(2 * window)
    this.#loss = loss
    this.#handle = client.calls.stream_open(0)
    this.#feed()
    this.#drain(client, this.#up)
  }

  /** Advances to the next arrival or deadline. */
  step(): void {
    let next = Math.min(this.#up.next(), this.#down.next())
    for (const core of [this.#client, this.#server]) {
      const wait = core.calls.next_timeout(this.#now)
      if (wait >= 0) next = Math.min(next, this.#now + wait)
    }
    this.#now = Math.max(this.#now, next)
    this.#receive(this.#server, this.#up, this.#down)
    this.#receive(this.#client, this.#down, this.#up)
    this.#client.calls.handle_timeout(this.#now)
    this.#server.calls.handle_timeout(this.#now)
    this.#drain(this.#client, this.#up)
    this.#drain(this.#server, this.#down)
  }

  /** The client's application writes as much as fits. */
  #feed(): void {
    const client = this.#client
    for (;;) {
      const count = client.calls.stream_reserve(this.#handle, 14880)
      if (count <= 0) return
      client.refresh()
      let total = 0
      for (let i = 0; i < count; i++) {
        const at = client.spanWord + i * Span.WORDS
        const length = client.u32[at + Span.length] ?? 0
        client.u8.set(this.#written.at(this.#chunk, i * BLOCK_BYTES, length), client.u32[at + Span.ptr])
        total += length
      }
      client.calls.stream_commit(this.#handle, total, this.#now)
    }
  }

  /** The server's application reads everything. */
  #take(stream: number): void {
    const server = this.#server
    for (;;) {
      const count = server.calls.stream_peek(stream)
      if (count <= 0) return
      server.refresh()
      let total = 0
      for (let i = 0; i < count; i++) {
        const at = server.spanWord + i * Span.WORDS
        const ptr = server.u32[at + Span.ptr] ?? 0
        const length = server.u32[at + Span.length] ?? 0
        this.#sink.set(this.#read.at(server.u8, ptr, length), total)
        total += length
      }
      this.delivered += total
      server.calls.stream_consume(stream, total, this.#now)
    }
  }

  #drain(core: Core, line: Line): void {
    for (;;) {
      const count = core.calls.poll_transmit(core.txSlots, this.#now)
      if (count <= 0) break
      core.refresh()
      const start = performance.now()
      for (let i = 0; i < count; i++) {
        this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0
        if (this.#random < this.#loss * 2 ** 32) continue
        const at = core.txWord + i * Tx.WORDS
        line.push(core.u8, core.u32[at + Tx.source] ?? 0, core.u32[at + Tx.length] ?? 0, this.#now + DELAY_TICKS)
      }
      this.link += performance.now() - start
    }
    for (;;) {
      const count = core.calls.poll_events()
      if (count === 0) return
      core.refresh()
      for (let i = 0; i < count; i++) {
        const type = core.u32[core.eventWord + i * Event.WORDS + Event.type]
        const stream = core.u32[core.eventWord + i * Event.WORDS + Event.handle] ?? 0
        if (type === EventType.DIAL) core.calls.stream_connected(stream, 1, this.#now)
        else if (type === EventType.READABLE) this.#take(stream)
        else if (type === EventType.WRITABLE) this.#feed()
        else if (type === EventType.ABORT) throw new Error('the session broke')
      }
    }
  }

  #receive(core: Core, from: Line, to: Line): void {
    while (from.next() <= this.#now) {
      let n = 0
      core.refresh()
      const start = performance.now()
      while (n < core.rxSlots && from.next() <= this.#now) {
        const at = core.rxWord + n * Rx.WORDS
        core.u32[at + Rx.length] = from.shift(core.u8, core.u32[at + Rx.ptr] ?? 0)
        core.u32[at + Rx.flags] = Rx.OPENED
        n++
      }
      this.link += performance.now() - start
      core.calls.handle_datagrams(n, this.#now)
      this.#drain(core, to)
    }
  }
}

function run(window: number, loss: number, segments: number): Cost {
  const transfer = new Transfer(window, loss)
  const warmup = Math.min(segments / 4, 4 * window)
  let begin = 0
  let beginBytes = 0
  while (transfer.delivered < segments * PAYLOAD_BYTES) {
    if (begin === 0 && transfer.delivered > warmup * PAYLOAD_BYTES) {
      begin = performance.now()
      beginBytes = transfer.delivered
      transfer.link = 0
    }
    transfer.step()
  }
  const wall = performance.now() - begin
  const nsPerMs = 1e6 / ((transfer.delivered - beginBytes) / PAYLOAD_BYTES)
  return { total: wall * nsPerMs, engine: (wall - transfer.link) * nsPerMs }
}

/** For the headers of an obfuscator: packets per round, and the sealed datagram in each. */
const PACKETS = 1_000_000
const SEALED_BYTES = 1372

/** ns to build, and to parse and verify, headers and checksum of a dpi/tcp packet. */
function obfsCost(packets: number): { build: number; parse: number } {
  const [local, remote] = ['10.0.0.1:40000', '10.0.0.2:80']
  const client = new ObfsHost('dpi/tcp', 'client', local)
  const server = new ObfsHost('dpi/tcp', 'server', remote)
  client.dial(remote)
  server.capture(...client.controls())
  const slots = client.core.calls.obfs_slots()
  const tx = client.core.calls.obfs_tx_ptr() >>> 2
  for (let at = tx; at < tx + slots * ObfsTx.WORDS; at += ObfsTx.WORDS) {
    client.core.u32[at + ObfsTx.length] = SEALED_BYTES
    writeRecord(address(remote), client.core.u8, (at + ObfsTx.address) * 4)
  }
  const packet = client.send(remote, new Uint8Array(SEALED_BYTES)) ?? new Uint8Array()
  server.capture(...Array.from({ length: slots }, () => packet))
  const nsOf = (call: () => number): number => {
    const start = performance.now()
    for (let done = 0; done < packets; done += slots) if (call() !== slots) throw new Error('a packet was refused')
    return ((performance.now() - start) * 1e6) / packets
  }
  client.core.u32[tx + ObfsTx.length] = SEALED_BYTES
  return {
    build: nsOf(() => client.core.calls.obfs_transmit(slots, client.now)),
    parse: nsOf(() => server.core.calls.obfs_handle_packets(slots, server.now)),
  }
}

const SEGMENTS = 400_000
const ROUNDS = 5

/** `bench core`: runs the grid and prints it. */
export async function benchCore(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: { quick: { type: 'boolean', default: false }, json: { type: 'string' } },
  })
  const [segments, rounds] = values.quick ? [SEGMENTS / 10, 1] : [SEGMENTS, ROUNDS]
  const on = await machine()
  const results: object[] = []
  console.log(describe(on))
  console.log('ns per segment (send + deliver + ACK, both endpoints), median of', rounds)
  console.log('window   loss   total   native C   ratio   engine   x window 256')
  run(256, 0.02, 100000)
  for (const loss of [0, 0.02]) {
    let flat = Number.NaN
    for (const [window, native] of NATIVE) {
      const costs = Array.from({ length: rounds }, () => run(window, loss, segments))
      const total = median(costs.map((cost) => cost.total))
      const engine = median(costs.map((cost) => cost.engine))
      if (window === 256) flat = engine
      const reference = native[loss === 0 ? 0 : 1]
      results.push({ window, loss, native: reference, total, engine, costs })
      console.log(
        String(window).padEnd(8),
        `${loss * 100} %`.padEnd(6),
        total.toFixed(0).padEnd(7),
        String(reference).padEnd(10),
        (total / reference).toFixed(2).padEnd(7),
        engine.toFixed(0).padEnd(8),
        (engine / flat).toFixed(2),
      )
    }
  }
  obfsCost(PACKETS / 10)
  const headers = Array.from({ length: rounds }, () => obfsCost(values.quick ? PACKETS / 10 : PACKETS))
  const [build, parse] = [median(headers.map((cost) => cost.build)), median(headers.map((cost) => cost.parse))]
  console.log(
    `headers and checksum of an obfuscated packet with ${SEALED_BYTES} bytes: built in ${build.toFixed(0)} ns, parsed and verified in ${parse.toFixed(0)} ns`,
  )
  writeJson(values.json, { bench: 'core', machine: on, segments, rounds, results, headers })
}
