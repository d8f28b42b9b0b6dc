/**
 * A real engine as a host of the simulated network, with its applications: bulk sources and sinks, echo clients and
 * servers.
 *
 * The loop is that of docs/abi.md, in batches. Payload bytes are neither written nor checked.
 */

import {
  Core,
  type CoreConfig,
  Event,
  EventType,
  Info,
  Mode,
  NonceStrategy,
  Rx,
  Span,
  TICKS_PER_MS,
  Tx,
  UNSET,
} from '../../../host/engine/core.ts'
import { freshEngine } from '../../checked-core.ts'
import type { Random } from '../random.ts'
import type { Bottleneck } from './bottleneck.ts'
import type { Flow } from './flow.ts'
import { Host, OVERHEAD_BYTES } from './host.ts'
import { Copier, type Packets } from './packets.ts'

/** Plaintext bytes of a datagram: 1500 - 28 - 40 bytes of headers and sealing make a packet of 1400. */
export const KCP_MTU = 1332
/** Payload bytes of a full segment. */
export const MSS = KCP_MTU - 24
const MESSAGE_MAX = 14880
const ECHO_BYTES = 64
const ECHO_TICKS = 20 * TICKS_PER_MS
const MIB = 1 << 20

/** Fields of the engine's config that a scenario may set. */
export type Tuning = Partial<CoreConfig>

/** `window 256` of the tables: the best manual tuning of kcptun-libev, with its window. */
export const WINDOW_256: Tuning = { sndwnd: 256, rcvwnd: 256, nodelay: 2, interval: 10, resend: 2, nc: 1, flush: 2 }

/** The connections of one pair of engines; both endpoints identify them by conv. */
export type Connections = Map<number, Flow>

type Role = 'source' | 'sink' | 'ask' | 'answer'

interface Stream {
  readonly handle: number
  readonly flow: Flow
  readonly role: Role
  /** bytes still to be written when the window has room */
  owed: number
  received: number
  /** send times of the echo messages */
  readonly asked: number[]
  nextAsk: number
}

function engineConfig(mode: number, tuning: Tuning): CoreConfig {
  return {
    mode,
    tagBytes: 0,
    nonceBytes: 0,
    nonceStrategy: NonceStrategy.NONE,
    kcpMtu: KCP_MTU,
    sndwnd: UNSET,
    rcvwnd: UNSET,
    nodelay: UNSET,
    interval: UNSET,
    resend: UNSET,
    nc: UNSET,
    flush: UNSET,
    timeout: 600,
    linger: 30,
    keepalive: 0,
    timeWait: 120,
    memoryCeiling: 512 * MIB,
    maxSessions: 65535,
    replayCapacity: 0,
    maxHalfOpen: 0,
    confirm: 0,
    sendOnce: 0,
    searchMtu: 0,
    ...tuning,
  }
}

export class EngineHost extends Host {
  readonly core: Core
  /** the connection, if the client is not an engine and its conv is unknown */
  onlyFlow: Flow | undefined
  readonly #client: boolean
  readonly #flows: Flow[]
  readonly #connections: Connections
  readonly #streams = new Map<number, Stream>()
  readonly #copier: Copier
  readonly #timerTicks: number
  readonly #lateness: ((random: Random) => number) | undefined
  readonly #random: Random
  /** tick at which the host wakes for what arrived or expired */
  #wakeAt = Infinity
  #engineDeadline = Infinity

  /** @param flows connections that a client opens; a server accepts any */
  constructor(
    number: number,
    packets: Packets,
    out: Bottleneck,
    options: {
      readonly client: boolean
      readonly tuning: Tuning
      readonly random: Random
      readonly connections: Connections
      readonly flows: readonly Flow[]
      /** the engine's timer fires on multiples of so many ticks */
      readonly timerTicks: number
      /** ticks by which a wake-up is late */
      readonly lateness?: ((random: Random) => number) | undefined
    },
  ) {
    super(number, packets, out)
    this.#client = options.client
    this.#flows = [...options.flows].sort((a, b) => a.startAt - b.startAt)
    this.#connections = options.connections
    this.#timerTicks = options.timerTicks
    this.#lateness = options.lateness
    this.#random = options.random
    this.#copier = new Copier(packets)
    const core = new Core(freshEngine())
    this.core = core
    options.random.fill(core.u8.subarray(core.entropyPtr, core.entropyPtr + core.entropyCapacity))
    core.calls.entropy_filled(core.entropyCapacity)
    core.configure(engineConfig(options.client ? Mode.CLIENT : Mode.SERVER, options.tuning), 0)
  }

  start(now: number): void {
    const { core } = this
    const port = this.#client ? 1000 + this.peer : 2000 + this.peer
    const write = (word: number): void => {
      core.u32[word] = 4 | (port << 16)
      core.u32[word + 2] = 0x0100007f
    }
    for (let i = 0; i < core.rxSlots; i++) write(core.rxWord + i * Rx.WORDS + Rx.address)
    if (this.#client) {
      write(core.calls.peer_ptr() >>> 2)
      core.calls.set_peer(now)
    }
    this.expire(now)
  }

  #conv(handle: number): number {
    const { core } = this
    const slots = core.calls.session_slots()
    for (let slot = 0; slot < slots; slot++) {
      if (core.calls.session_info(slot, 0) === handle) return core.info().getUint32(Info.conv, true)
    }
    throw new Error(`no session of handle ${handle}`)
  }

  /** `session_info` of the first session. */
  info(now: number): DataView | undefined {
    const slots = this.core.calls.session_slots()
    for (let slot = 0; slot < slots; slot++) if (this.core.calls.session_info(slot, now) > 0) return this.core.info()
    return undefined
  }

  #stream(handle: number, flow: Flow, role: Role, now: number): Stream {
    const stream = { handle, flow, role, owed: 0, received: 0, asked: [], nextAsk: now }
    this.#streams.set(handle, stream)
    return stream
  }

  #open(now: number): void {
    for (let flow = this.#flows[0]; flow !== undefined && flow.startAt <= now; flow = this.#flows[0]) {
      this.#flows.shift()
      const handle = this.core.calls.stream_open(now)
      if (handle <= 0) throw new Error(`stream_open = ${handle}`)
      this.core.refresh()
      this.#connections.set(this.#conv(handle), flow)
      const role = flow.kind === 'echo' ? 'ask' : flow.upload ? 'source' : 'sink'
      const stream = this.#stream(handle, flow, role, now)
      if (role === 'source') this.#feed(stream, now)
    }
  }

  /** Fills the stream's queue without writing payload. */
  #feed(stream: Stream, now: number): void {
    if (now >= stream.flow.stopAt) {
      this.core.calls.stream_abort(stream.handle, now)
      this.#streams.delete(stream.handle)
      return
    }
    while (this.#write(stream.handle, MESSAGE_MAX, now) > 0) {
      // until it is full
    }
  }

  #write(handle: number, want: number, now: number): number {
    const { core } = this
    const count = core.calls.stream_reserve(handle, want)
    if (count <= 0) return 0
    core.refresh()
    let total = 0
    for (let i = 0; i < count; i++) total += core.u32[core.spanWord + i * Span.WORDS + Span.length] ?? 0
    core.calls.stream_commit(handle, total, now)
    return total
  }

  #pay(stream: Stream, now: number): void {
    while (stream.owed > 0) {
      const written = this.#write(stream.handle, Math.min(stream.owed, MESSAGE_MAX), now)
      if (written === 0) break
      stream.owed -= written
    }
  }

  #ask(stream: Stream, now: number): void {
    while (stream.nextAsk <= now) {
      stream.asked.push(stream.nextAsk)
      stream.owed += ECHO_BYTES
      stream.nextAsk += ECHO_TICKS
    }
    this.#pay(stream, now)
  }

  #take(stream: Stream, now: number): void {
    const { core } = this
    while (true) {
      const count = core.calls.stream_peek(stream.handle)
      if (count <= 0) break
      core.refresh()
      let total = 0
      for (let i = 0; i < count; i++) total += core.u32[core.spanWord + i * Span.WORDS + Span.length] ?? 0
      core.calls.stream_consume(stream.handle, total, now)
      stream.received += total
      if (stream.role === 'sink') stream.flow.deliver(total, now)
      else if (stream.role === 'answer') stream.owed += total
    }
    if (stream.role === 'answer') this.#pay(stream, now)
    if (stream.role !== 'ask') return
    for (const { latencies } = stream.flow; stream.received >= ECHO_BYTES * (latencies.length + 1); ) {
      latencies.push(now - (stream.asked[latencies.length] ?? now))
      stream.flow.deliver(ECHO_BYTES, now)
    }
  }

  /** @returns true while the host still sleeps */
  #isAsleep(now: number): boolean {
    if (this.#lateness === undefined) return false
    if (this.#wakeAt === Infinity) this.#wakeAt = now + Math.round(this.#lateness(this.#random))
    if (now >= this.#wakeAt) return false
    this.deadline = this.#wakeAt
    return true
  }

  receive(now: number): void {
    if (this.#isAsleep(now)) return
    this.#wakeAt = Infinity
    this.#receive(now)
  }

  #receive(now: number): void {
    const { core, packets, inbox } = this
    let taken = 0
    while (taken < this.inboxCount) {
      const batch = Math.min(core.rxSlots, this.inboxCount - taken)
      core.refresh()
      for (let i = 0; i < batch; i++) {
        const at = core.rxWord + i * Rx.WORDS
        const slot = inbox[taken + i] ?? 0
        core.u32[at + Rx.length] = this.#copier.from(slot, core.u8, core.u32[at + Rx.ptr] ?? 0)
        core.u32[at + Rx.flags] = Rx.OPENED
        packets.drop(slot)
      }
      taken += batch
      core.calls.handle_datagrams(batch, now)
      this.#drain(now)
    }
    this.inboxCount = 0
    this.#rearm(now)
  }

  expire(now: number): void {
    if (now > 0 && this.#isAsleep(now)) return
    this.#wakeAt = Infinity
    if (this.inboxCount > 0) this.#receive(now)
    this.#open(now)
    for (const stream of this.#streams.values()) if (stream.role === 'ask') this.#ask(stream, now)
    if (this.#engineDeadline <= now) this.core.calls.handle_timeout(now)
    this.#drain(now)
    this.#rearm(now)
  }

  #rearm(now: number): void {
    const wait = this.core.calls.next_timeout(now)
    this.#engineDeadline = wait < 0 ? Infinity : Math.ceil((now + wait) / this.#timerTicks) * this.#timerTicks
    this.deadline = Math.min(this.#engineDeadline, this.#flows[0]?.startAt ?? Infinity)
    for (const { role, nextAsk } of this.#streams.values()) {
      if (role === 'ask' && nextAsk < this.deadline) this.deadline = nextAsk
    }
  }

  #drain(now: number): void {
    const { core } = this
    while (true) {
      while (true) {
        const count = core.calls.poll_transmit(core.txSlots, now)
        if (count <= 0) {
          if (count < 0) throw new Error(`poll_transmit = ${count}`)
          break
        }
        core.refresh()
        for (let i = 0; i < count; i++) {
          const at = core.txWord + i * Tx.WORDS
          const length = core.u32[at + Tx.length] ?? 0
          const slot = this.packets.take()
          this.#copier.into(slot, core.u8, core.u32[at + Tx.source] ?? 0, length)
          this.send(slot, length + OVERHEAD_BYTES, now)
        }
      }
      const events = core.calls.poll_events()
      if (events === 0) return
      core.refresh()
      const from = core.eventWord
      for (let i = 0; i < events; i++) {
        const at = from + i * Event.WORDS
        this.#event(core.u32[at + Event.type] ?? 0, core.u32[at + Event.handle] ?? 0, now)
      }
    }
  }

  #event(type: number, handle: number, now: number): void {
    if (handle === 0) return
    if (type === EventType.DIAL) {
      const flow = this.onlyFlow ?? this.#connections.get(this.#conv(handle))
      if (flow === undefined) throw new Error('a connection that no client opened')
      const role = flow.kind === 'echo' ? 'answer' : flow.upload ? 'sink' : 'source'
      const stream = this.#stream(handle, flow, role, now)
      this.core.calls.stream_connected(handle, 1, now)
      this.core.refresh()
      if (role === 'source') this.#feed(stream, now)
      return
    }
    const stream = this.#streams.get(handle)
    if (stream === undefined) return
    if (type === EventType.READABLE) this.#take(stream, now)
    else if (type === EventType.WRITABLE) {
      if (stream.role === 'source') this.#feed(stream, now)
      else this.#pay(stream, now)
    } else if (type === EventType.ABORT || type === EventType.DETACH) {
      stream.flow.broken = true
      this.#streams.delete(handle)
    }
  }
}
