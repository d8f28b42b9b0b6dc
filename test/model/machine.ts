/**
 * An engine whose state can be saved and restored: linear memory, as the difference from a base image, and mutable
 * globals, which the model build exports (export-globals.mjs).
 */
import { Core, type CoreConfig, type CoreExports, Event, Mode, Rx, Span, Tx } from '../../host/engine/core.ts'
import type { Address } from '../../testkit/sim/address.ts'

/** Memory is compared in pages, and saved in granules. */
const PAGE = 4096
const GRANULE = 256
const GLOBAL_PREFIX = 'global:'
const TAG_BYTES = 16
const MEMORY_BYTES = 6 * 65536
const ROUNDS_MAX = 1000

/** A saved state. */
export interface Snapshot {
  readonly granules: Uint16Array
  readonly bytes: Uint8Array
  readonly globals: readonly (number | bigint)[]
}

interface ProbeExports {
  model_ptr(): number
  model_state(now: number): number
  model_plant(number: number): void
}

export interface Sent {
  readonly plain: Uint8Array
  readonly nonce: Uint8Array
  readonly to: Address
}

export interface EngineEvent {
  readonly type: number
  readonly handle: number
  readonly arg: number
}

/** @throws Error unless `condition` holds: a defect of the checker, not of the engine */
export function insist(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(`model: ${text}`)
}

/** @returns `value`, which must be defined */
export function must<T>(value: T | undefined): T {
  insist(value !== undefined, 'value is undefined')
  return value
}

export class Machine {
  readonly core: Core
  readonly calls: CoreExports
  readonly config: CoreConfig
  now = 0
  readonly #probe: ProbeExports
  readonly #globals: readonly WebAssembly.Global[]
  readonly #base: Buffer
  #unconfigured: Snapshot
  readonly #memory: Buffer
  /** Snapshot of the present state; undefined after a call that may have changed it. */
  #loaded: Snapshot | undefined

  constructor(module: WebAssembly.Module, config: CoreConfig, plant: number, start: number) {
    this.now = start
    const exports = new WebAssembly.Instance(module, {}).exports
    this.calls = exports as unknown as CoreExports
    this.#probe = exports as unknown as ProbeExports
    this.#globals = Object.entries(exports)
      .filter(([name]) => name.startsWith(GLOBAL_PREFIX))
      .map(([, value]) => value as WebAssembly.Global)
    insist(this.#globals.length > 50, 'the globals are not exported')
    this.config = config
    this.#probe.model_plant(plant)
    // memory is grown once: the engine uses what is available
    const missing = MEMORY_BYTES - this.calls.memory.buffer.byteLength
    const { memory } = exports
    insist(memory instanceof WebAssembly.Memory, 'no memory')
    memory.grow(missing / 65536)
    this.core = new Core(this.calls)
    this.#memory = Buffer.from(this.core.u8.buffer)
    this.#base = Buffer.alloc(MEMORY_BYTES)
    this.#unconfigured = this.save()
    this.restart(0)
    // a configured engine is the base: states differ little from it, unlike memory before `configure`
    this.#rebase()
  }

  /** Makes the present memory the base image of later snapshots. */
  #rebase(): void {
    const configured = this.save()
    const image = Buffer.from(this.#memory)
    this.restore(this.#unconfigured)
    const unconfigured = Buffer.from(this.#memory)
    this.#base.set(image)
    this.#memory.set(unconfigured)
    this.#loaded = undefined
    const { granules, bytes } = this.save()
    this.#unconfigured = { granules, bytes, globals: this.#unconfigured.globals }
    this.#loaded = undefined
    this.#memory.set(image)
    for (const [i, value] of configured.globals.entries()) this.#setGlobal(i, value)
  }

  #setGlobal(index: number, value: number | bigint): void {
    const global = this.#globals[index]
    if (global) global.value = value
  }

  /** Replaces the engine by a new one; `incarnation` makes its secret, nonces and convs differ. */
  restart(incarnation: number): void {
    this.restore(this.#unconfigured)
    this.#loaded = undefined
    seed(this.core, incarnation * 2 + (this.config.mode & Mode.SERVER))
    this.core.configure(this.config, this.now)
    // zero entropy: no padding, and the read position does not matter to the state
    this.core.u8.fill(0, this.core.entropyPtr, this.core.entropyPtr + 1024)
  }

  save(): Snapshot {
    if (this.#loaded) return this.#loaded
    insist(this.core.u8.length === this.#memory.length, 'memory grew')
    const list: number[] = []
    const memory = this.#memory
    const base = this.#base
    for (let page = 0; page < memory.length; page += PAGE) {
      if (memory.compare(base, page, page + PAGE, page, page + PAGE) === 0) continue
      for (let at = page; at < page + PAGE; at += GRANULE) {
        if (memory.compare(base, at, at + GRANULE, at, at + GRANULE) !== 0) list.push(at / GRANULE)
      }
    }
    const bytes = new Uint8Array(list.length * GRANULE)
    list.forEach((granule, i) => {
      bytes.set(memory.subarray(granule * GRANULE, (granule + 1) * GRANULE), i * GRANULE)
    })
    const globals = this.#globals.map((global) => global.value as number | bigint)
    this.#loaded = { granules: Uint16Array.from(list), bytes, globals }
    return this.#loaded
  }

  restore(snapshot: Snapshot): void {
    if (this.#loaded === snapshot) return
    this.#memory.set(this.#base)
    const { granules, bytes, globals } = snapshot
    for (let i = 0; i < granules.length; i++) {
      this.#memory.set(bytes.subarray(i * GRANULE, (i + 1) * GRANULE), (granules[i] ?? 0) * GRANULE)
    }
    for (let i = 0; i < globals.length; i++) {
      this.#setGlobal(i, globals[i] ?? 0)
    }
    this.#loaded = snapshot
  }

  /** Must precede every call that changes the engine. */
  markDirty(): void {
    this.#loaded = undefined
  }

  /** The values that determine the further behaviour of the engine (probe.as); valid until the next call. */
  fingerprint(): Uint32Array {
    const count = this.#probe.model_state(this.now)
    const at = this.#probe.model_ptr()
    insist(count <= 4096, 'the fingerprint is too long')
    return this.core.u32.subarray(at >>> 2, (at >>> 2) + count)
  }

  setPeer(peer: Address): void {
    this.markDirty()
    this.core.u8.set(peer, this.calls.peer_ptr() >>> 0)
    insist(this.calls.set_peer(this.now) === 0, 'set_peer failed')
  }

  receive(plain: Uint8Array, nonce: Uint8Array, from: Address): void {
    this.markDirty()
    const { core } = this
    const word = core.rxWord
    const at = core.u32[word + Rx.ptr] ?? 0
    const overhead = this.config.tagBytes + this.config.nonceBytes
    core.u8.set(plain, at)
    core.u8.set(nonce, at + plain.length + this.config.tagBytes)
    core.u32[word + Rx.length] = plain.length + overhead
    core.u32[word + Rx.flags] = Rx.OPENED
    core.u8.set(from, (word + Rx.address) * 4)
    this.calls.handle_datagrams(1, this.now)
  }

  /** Passes each datagram that the engine sends to `take`. */
  transmit(take: (sent: Sent) => void): void {
    const { core, calls } = this
    this.markDirty()
    calls.entropy_filled(1024)
    for (let round = 0; ; round++) {
      insist(round < ROUNDS_MAX, 'poll_transmit does not end')
      const count = calls.poll_transmit(core.txSlots, this.now)
      insist(count >= 0, `poll_transmit = ${count}`)
      if (count === 0) return
      for (let i = 0; i < count; i++) {
        const word = core.txWord + i * Tx.WORDS
        const source = core.u32[word + Tx.source] ?? 0
        const length = core.u32[word + Tx.length] ?? 0
        const nonceAt = (core.u32[word + Tx.out] ?? 0) + length + TAG_BYTES
        const to = core.u32[word + Tx.address] ?? 0
        take({
          plain: core.u8.slice(source, source + length),
          nonce: core.u8.slice(nonceAt, nonceAt + this.config.nonceBytes),
          to: core.u8.slice(to, to + 24),
        })
      }
    }
  }

  events(): EngineEvent[] {
    const { core } = this
    const list: EngineEvent[] = []
    for (;;) {
      const count = this.calls.poll_events()
      if (count === 0) return list
      for (let i = 0; i < count; i++) {
        const word = core.eventWord + i * Event.WORDS
        const type = core.u32[word + Event.type] ?? 0
        list.push({ type, handle: core.u32[word + Event.handle] ?? 0, arg: core.u32[word + Event.arg] ?? 0 })
      }
    }
  }

  write(handle: number, byte: number): boolean {
    this.markDirty()
    const { core } = this
    if (this.calls.stream_reserve(handle, 1) <= 0) return false
    core.u8[core.u32[core.spanWord + Span.ptr] ?? 0] = byte
    insist(this.calls.stream_commit(handle, 1, this.now) === 0, 'stream_commit failed')
    return true
  }

  /** @returns all buffered bytes */
  read(handle: number): number[] {
    this.markDirty()
    const { core } = this
    const list: number[] = []
    for (;;) {
      const spans = this.calls.stream_peek(handle)
      if (spans <= 0) return list
      let bytes = 0
      for (let i = 0; i < spans; i++) {
        const word = core.spanWord + i * Span.WORDS
        const at = core.u32[word + Span.ptr] ?? 0
        const length = core.u32[word + Span.length] ?? 0
        list.push(...core.u8.subarray(at, at + length))
        bytes += length
      }
      this.calls.stream_consume(handle, bytes, this.now)
    }
  }

  /** Ticks until `handle_timeout` is due. */
  get wait(): number {
    insist(this.#loaded === undefined, 'next_timeout is called only after a change')
    return this.calls.next_timeout(this.now)
  }

  /** Sessions, those in TIME_WAIT included. */
  get sessions(): number {
    const { core } = this
    const names = ['sessions_connect', 'sessions_established', 'sessions_linger', 'sessions_time_wait'] as const
    return names.reduce((sum, name) => sum + Number(core.counter(name)), 0)
  }

  get memoryUsed(): number {
    this.markDirty()
    this.calls.refresh_gauges(this.now)
    return Number(this.core.counter('memory_used'))
  }
}

/** Writes the random bytes and the secret of an engine, before `configure`. */
function seed(core: Core, number: number): void {
  const { entropyPtr, u8 } = core
  for (let i = 0; i < 1024; i++) u8[entropyPtr + i] = (Math.imul(i + 1, 0x9e3779b1) >>> 13) + number * 37
  core.calls.entropy_filled(1024)
  const secret = core.calls.secret_ptr() >>> 0
  for (let i = 0; i < 28; i++) u8[secret + i] = 1 + i + 40 * number
}
