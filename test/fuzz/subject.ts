/**
 * The engine under test and the part of the host that accesses its memory. All memory that the host may overwrite is
 * overwritten, and every address and length that the engine returns is checked.
 */

import { Buffer } from 'node:buffer'
import {
  AddressRecord,
  COUNTERS,
  ConfigField,
  type ConfigFieldName,
  Core,
  type CoreConfig,
  type CoreExports,
  type CounterName,
  ErrorCode,
  Event,
  Rx,
  Span,
  Tx,
} from '../../host/engine/core.ts'
import { ADDRESS_WORDS } from '../../host/net/address-cache.ts'
import { checkRange } from '../../testkit/checked-core.ts'
import type { Random } from '../../testkit/sim/random.ts'
import { fault } from './pattern.ts'

export const DATAGRAM_MAX = 1500
/** Bytes at `out` of a transmit descriptor. */
const TX_BLOCK = 1984
/** Maximum polls of one drain. A poll may take one datagram, and a window holds up to 65536 segments. */
const ROUNDS_MAX = 200_000
/** Plaintext of the longest control message: CONNECT with an IPv6 address and an id of 256 bytes. */
const CONTROL_MAX = 283
const TAG_BYTES = 16

/** Receives the output of a drain. */
export interface Listener {
  /**
   * A datagram of `length` bytes of plaintext at `at`; its address record and nonce are at `to` and `nonceAt`.
   * @param isLong it may be as long as a receiver accepts
   */
  onDatagram(at: number, length: number, handle: number, to: number, nonceAt: number, isLong: boolean): void
  onEvent(type: number, handle: number, argument: number): void
}

export class Subject {
  readonly core: Core
  readonly calls: CoreExports
  readonly random: Random
  config: CoreConfig
  now: number
  /** Over the engine's whole memory. */
  buffer: Buffer
  /** Random bytes at each refill; 0: none. */
  entropyChunk = 8192
  /** Descriptors filled since the last `flush`. */
  filled = 0
  /** No input since the last drain. */
  isDrained = false
  /** Ticks until `handle_timeout` is due; -1 = never. */
  wait = 0
  /** Passes sent datagrams to the obfuscator. */
  onBatch: ((count: number) => void) | undefined
  /** Converts captured packets to datagrams. */
  beforeFlush: (() => void) | undefined
  readonly heapStart: number
  readonly #nonces = new Set<number>()
  readonly #events: number[] = []
  readonly #statsWord: number
  readonly #pristine: CoreConfig

  constructor(calls: CoreExports, random: Random, config: CoreConfig, now: number) {
    this.core = new Core(calls)
    this.calls = calls
    this.random = random
    this.config = config
    this.#pristine = config
    this.now = now
    this.buffer = Buffer.from(calls.memory.buffer)
    this.#statsWord = calls.stats_ptr() >>> 2
    const { core } = this
    this.heapStart = Math.max(
      core.ioPtr + core.ioCapacity,
      core.entropyPtr + core.entropyCapacity,
      (core.rxWord + core.rxSlots * Rx.WORDS) * 4,
      (core.txWord + core.txSlots * Tx.WORDS) * 4,
      calls.service_ptr() + 256,
    )
    this.refill(8192)
    const result = this.configure(config)
    if (result !== 0) fault(`configure = ${result}`)
  }

  refresh(): void {
    this.core.refresh()
    if (this.buffer.buffer !== this.core.u8.buffer) this.buffer = Buffer.from(this.core.u8.buffer)
  }

  /** The configuration of the first `configure`, for the fields that only it reads. */
  get fixed(): CoreConfig {
    return this.#pristine
  }

  /** Writes the config block and applies it. */
  configure(config: CoreConfig): number {
    this.refresh()
    const word = this.calls.config_ptr() >>> 2
    for (const name of Object.keys(ConfigField) as ConfigFieldName[]) {
      this.core.u32[word + ConfigField[name]] = config[name] ?? 0xffffffff
    }
    const result = this.calls.configure(this.now)
    if (result === 0) this.config = config
    this.isDrained = false
    return result
  }

  refill(bytes: number): void {
    this.refresh()
    const { entropyPtr } = this.core
    this.random.fill(this.core.u8.subarray(entropyPtr, entropyPtr + bytes))
    if (this.calls.entropy_filled(bytes) !== 0) fault('entropy_filled failed')
  }

  gauge(name: CounterName): number {
    this.calls.refresh_gauges(this.now)
    this.core.refresh()
    const word = this.#statsWord + 2 * COUNTERS.indexOf(name)
    return (this.core.u32[word] ?? 0) + (this.core.u32[word + 1] ?? 0) * 0x1_0000_0000
  }

  /** Bytes of a datagram in addition to its plaintext. */
  get overhead(): number {
    return this.#pristine.tagBytes + this.#pristine.nonceBytes
  }

  /** Puts a datagram into the next receive descriptor; `nonce` undefined: a fresh one. */
  feed(plain: Uint8Array, length: number, address: Uint8Array, nonce: Uint8Array | undefined, isOpened: boolean): void {
    if (this.filled === this.core.rxSlots) this.#handOver(0)
    const { core } = this
    this.refresh()
    const word = core.rxWord + this.filled++ * Rx.WORDS
    const at = core.u32[word + Rx.ptr] ?? 0
    const capacity = core.u32[word + Rx.capacity] ?? 0
    if (capacity < DATAGRAM_MAX + 1 || !this.isHeap(at, capacity))
      fault(`receive descriptor: ${capacity} bytes at ${at}`)
    checkRange(this.calls, at, capacity)
    const sealed = length + this.overhead
    if (sealed <= DATAGRAM_MAX) {
      // the host may overwrite the memory behind the datagram
      core.u8.fill(sealed, at + Math.max(0, length), at + capacity)
      if (length > 0) core.u8.set(length === plain.length ? plain : plain.subarray(0, length), at)
      const nonceAt = at + length + this.#pristine.tagBytes
      if (length < 0) core.u8.fill(0, at, at + capacity)
      else if (nonce) core.u8.set(nonce, nonceAt)
      else if (this.overhead) this.random.fill(core.u8.subarray(nonceAt, at + sealed))
    }
    core.u32[word + Rx.length] = sealed
    core.u32[word + Rx.flags] = isOpened ? Rx.OPENED : 0
    core.u8.set(address, (word + Rx.address) * 4)
  }

  /** Passes the filled descriptors to the engine. @returns the number of accepted datagrams */
  flush(extra = 0): number {
    this.beforeFlush?.()
    return this.#handOver(extra)
  }

  #handOver(extra: number): number {
    const { filled, core } = this
    if (filled === 0 && extra === 0) return 0
    const accepted = this.calls.handle_datagrams(filled + extra, this.now)
    if (accepted < 0 || accepted > filled) fault(`handle_datagrams(${filled + extra}) = ${accepted}`)
    this.refresh()
    for (let i = 0; i < filled; i++) core.u32[core.rxWord + i * Rx.WORDS + Rx.length] = 0
    this.filled = 0
    this.isDrained = false
    return accepted
  }

  /** True if these bytes are in blocks, not in descriptors. */
  isHeap(at: number, length: number): boolean {
    return at >= this.heapStart && at + length <= this.core.u8.length
  }

  /** Drains as docs/abi.md requires. `limit`: descriptors per poll. @returns false if entropy is withheld */
  drain(listener: Listener, limit = 64): boolean {
    this.flush()
    for (let round = 0; ; round++) {
      if (round > ROUNDS_MAX) fault('poll_transmit goes on for ever')
      const count = this.calls.poll_transmit(limit, this.now)
      if (count === ErrorCode.ENTROPY) {
        if (this.entropyChunk === 0) return false
        this.refill(this.entropyChunk)
        continue
      }
      if (count < 0 || count > this.core.txSlots) fault(`poll_transmit = ${count}`)
      if (count === 0) break
      this.#takeBatch(count, listener)
    }
    this.#takeEvents(listener)
    this.wait = this.calls.next_timeout(this.now)
    if (this.wait < -1) fault(`next_timeout = ${this.wait}`)
    this.refresh()
    this.isDrained = true
    return true
  }

  #takeBatch(count: number, listener: Listener): void {
    this.refresh()
    const { core } = this
    for (let i = 0; i < count; i++) {
      const word = core.txWord + i * Tx.WORDS
      const at = core.u32[word + Tx.source] ?? 0
      const length = core.u32[word + Tx.length] ?? 0
      const out = core.u32[word + Tx.out] ?? 0
      const nonceAt = core.u32[word + Tx.nonce] ?? 0
      const to = core.u32[word + Tx.address] ?? 0
      const handle = core.u32[word + Tx.handle] ?? 0
      if (!this.isHeap(at, length) || !this.isHeap(out, TX_BLOCK)) fault('a transmit descriptor points outside')
      checkRange(this.calls, at, length)
      checkRange(this.calls, out, TX_BLOCK)
      if (handle === 0 && length > Math.max(CONTROL_MAX, this.config.kcpMtu, this.config.searchMtu))
        fault(`a control message of ${length} bytes`)
      if (to + AddressRecord.BYTES > core.u8.length || length === 0)
        fault('a transmit descriptor without address or bytes')
      if (this.overhead) this.#checkNonce(nonceAt, out + length + TAG_BYTES)
      const isLong = ((core.u32[word + Tx.flags] ?? 0) & Tx.MAY_FRAGMENT) !== 0
      listener.onDatagram(at, length, handle, to, nonceAt, isLong)
    }
    this.onBatch?.(count)
    // sealing writes there
    for (let i = 0; i < count; i++) {
      const out = core.u32[core.txWord + i * Tx.WORDS + Tx.out] ?? 0
      core.u8.fill(0xee, out, out + TX_BLOCK)
    }
  }

  #checkNonce(at: number, wanted: number): void {
    if (at !== wanted) fault('the nonce does not stand behind the tag')
    const { buffer } = this
    const key = buffer.readUInt32LE(at) * 0x20_0000 + (buffer.readUInt32LE(at + 4) >>> 11)
    // counters differ in their low bytes, random nonces in all
    const low = this.#pristine.nonceBytes === 12 ? buffer.readUInt32LE(at) : key
    if (this.#nonces.has(low)) fault('a nonce was used twice')
    this.#nonces.add(low)
  }

  #takeEvents(listener: Listener): void {
    const { core } = this
    const list = this.#events
    list.length = 0
    for (let round = 0; ; round++) {
      if (round > ROUNDS_MAX) fault('poll_events goes on for ever')
      const count = this.calls.poll_events()
      if (count === 0) break
      this.refresh()
      for (let i = 0; i < count; i++) {
        const word = core.eventWord + i * Event.WORDS
        list.push(core.u32[word + Event.type] ?? 0, core.u32[word + Event.handle] ?? 0, core.u32[word + Event.arg] ?? 0)
      }
    }
    for (let i = 0; i < list.length; i += 3) listener.onEvent(list[i] ?? 0, list[i + 1] ?? 0, list[i + 2] ?? 0)
  }

  /** Checks the spans of the last `stream_reserve` or `stream_peek`. @returns pairs of address and length */
  spans(count: number): readonly (readonly [at: number, length: number])[] {
    this.refresh()
    if (count > this.calls.span_slots()) fault(`${count} spans`)
    const list: [number, number][] = []
    for (let i = 0; i < count; i++) {
      const word = this.core.spanWord + i * Span.WORDS
      const at = this.core.u32[word] ?? 0
      const length = this.core.u32[word + 1] ?? 0
      if (length === 0 || length > DATAGRAM_MAX || !this.isHeap(at, length)) fault(`a span of ${length} bytes at ${at}`)
      checkRange(this.calls, at, length)
      for (const [other, bytes] of list) if (at < other + bytes && other < at + length) fault('two spans overlap')
      list.push([at, length])
    }
    return list
  }

  /** Writes an address record, for `set_peer` and similar calls. */
  writeRecord(record: Uint8Array, at: number): void {
    this.refresh()
    this.core.u8.set(record, at >>> 0)
  }

  /** A hash of an address record. */
  addressKey(at: number): number {
    const word = at >>> 2
    const { u32 } = this.core
    let key = u32[word] ?? 0
    for (let i = 1; i < ADDRESS_WORDS; i++) key = Math.imul(key, 0x01000193) ^ (u32[word + i] ?? 0)
    return key >>> 0
  }
}
