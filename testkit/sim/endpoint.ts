/**
 * One engine in virtual time, driven in batches as docs/abi.md requires, with checks for every test: nothing is left
 * after a drain, no nonce repeats, no timer fires endlessly.
 *
 * Sealing is simulated (the plaintext, a checksum as tag, the engine's nonce).
 */

import { isPlausible } from '../../host/crypto/plausible.ts'
import {
  AddressRecord,
  Core,
  type CoreConfig,
  type CoreExports,
  type CounterName,
  DATAGRAM_MAX,
  Event,
  Mode,
  NonceStrategy,
  Rx,
  Span,
  Tx,
  UNSET,
} from '../../host/engine/core.ts'
import { freshEngine } from '../checked-core.ts'
import type { Address } from './address.ts'
import { Random } from './random.ts'
import { Runs } from './runs.ts'
import { fakeOpen, fakeSeal } from './sealing.ts'
import { type SessionInfo, sessionInfo } from './session-info.ts'

export type { SessionInfo }

/** Engine clock ticks in a millisecond and in a second. */
export const MS = 8
export const SECOND = 8000

/** Consecutive drains that count as an endless loop. */
const DRAINS_MAX = 100_000
/** Timers expired at one instant that count as a busy loop. */
const TIMERS_AT_ONCE_MAX = 200
/** cmd of a segment with data */
const PUSH = 81

export interface Datagram {
  readonly bytes: Uint8Array
  /** The other end: source when received, destination when sent. */
  readonly peer: Address
  /** It arrived at the probing socket, or is to be sent from there. */
  readonly probe?: boolean
  /** See Runs. */
  readonly isMerged?: boolean
  /** Sent without don't fragment. */
  readonly mayFragment?: boolean
}

export interface EngineEvent {
  readonly type: number
  readonly handle: number
  readonly arg: number
  readonly arg2: number
}

/** The configuration of most tests: no method, defaults of protocol.md 10.2 for the rest. */
export function defaultConfig(role: 'client' | 'server' | 'neither'): CoreConfig {
  const mode = role === 'client' ? Mode.CLIENT : role === 'server' ? Mode.SERVER : 0
  return {
    mode,
    tagBytes: 0,
    nonceBytes: 0,
    nonceStrategy: NonceStrategy.NONE,
    kcpMtu: 1372,
    sndwnd: 256,
    rcvwnd: 256,
    nodelay: UNSET,
    interval: UNSET,
    resend: UNSET,
    nc: UNSET,
    flush: UNSET,
    timeout: 600,
    linger: 30,
    keepalive: 25,
    timeWait: 120,
    memoryCeiling: 256 * 1024 * 1024,
    maxSessions: 65535,
    replayCapacity: 0,
    maxHalfOpen: 0,
    confirm: 0,
    sendOnce: 0,
    searchMtu: 0,
  }
}

export interface EndpointOptions {
  readonly config: CoreConfig
  readonly seed: number
  /** Engine clock at virtual time 0. */
  readonly clock?: number
  /** Bytes of entropy at each refill; small values exercise E_ENTROPY. */
  readonly entropyChunk?: number
  /** The 32 bytes at `secret_ptr`; absent: drawn by the engine. */
  readonly secret?: Uint8Array
  /** Wraps the engine's exports. */
  readonly wrap?: (calls: CoreExports) => CoreExports
  readonly onTransmit: (datagram: Datagram, handle: number) => void
  readonly onEvent: (event: EngineEvent) => void
}

/** One engine. `time` is virtual time in ticks since the start of the run. */
export class Endpoint {
  readonly core: Core
  readonly config: CoreConfig
  time = 0
  /** The engine's input has changed since the last drain. */
  dirty = true
  /** Refills of entropy so far. */
  refills = 0
  readonly #clock: number
  readonly #random: Random
  readonly #entropyChunk: number
  readonly #onTransmit: (datagram: Datagram, handle: number) => void
  readonly #onEvent: (event: EngineEvent) => void
  readonly #nonces = new Set<string>()
  readonly #runs = new Runs()
  /** checksum of every PUSH sent, by session handle and sn */
  readonly #pushed = new Map<number, Map<number, number>>()
  #deadline = 0
  #timersAt = -1
  #timersCount = 0

  constructor(options: EndpointOptions) {
    const calls = freshEngine()
    this.core = new Core(options.wrap?.(calls) ?? calls)
    this.config = options.config
    this.#clock = (options.clock ?? 0) >>> 0
    this.#random = new Random(options.seed)
    this.#entropyChunk = Math.min(options.entropyChunk ?? 8192, this.core.entropyCapacity)
    this.#onTransmit = options.onTransmit
    this.#onEvent = options.onEvent
    this.refill()
    if (options.secret) this.core.u8.set(options.secret, this.core.calls.secret_ptr() >>> 0)
    this.core.configure(options.config, this.now)
  }

  /** The engine's clock. */
  get now(): number {
    return (this.#clock + this.time) >>> 0
  }

  /** Writes fresh random bytes. */
  refill(): void {
    this.core.refresh()
    const at = this.core.entropyPtr
    this.#random.fill(this.core.u8.subarray(at, at + this.#entropyChunk))
    this.core.calls.entropy_filled(this.#entropyChunk)
    this.core.refresh()
    this.refills++
  }

  /** Applies changed config fields. Throws as Core.configure does. */
  reconfigure(change: Partial<CoreConfig>): void {
    this.core.configure({ ...this.config, ...change }, this.now)
    this.dirty = true
  }

  setPeer(peer: Address): void {
    this.core.refresh()
    this.core.u8.set(peer, this.core.calls.peer_ptr() >>> 0)
    check(this.core.calls.set_peer(this.now) === 0, 'set_peer failed')
    this.dirty = true
  }

  /** Applies rendezvous server, own address and service id. */
  setRendezvous(server: Address, local: Address, id: Uint8Array): void {
    const { core } = this
    core.refresh()
    core.u8.set(server, core.calls.rendezvous_ptr() >>> 0)
    core.u8.set(local, core.calls.local_ptr() >>> 0)
    core.u8.set(id, core.calls.service_ptr() >>> 0)
    check(core.calls.set_rendezvous(id.length, this.now) === 0, 'set_rendezvous failed')
    this.dirty = true
  }

  /** Adds another address of the rendezvous server. @returns the result of `add_rendezvous` */
  addRendezvous(server: Address): number {
    const { core } = this
    core.refresh()
    core.u8.set(server, core.calls.rendezvous_ptr() >>> 0)
    this.dirty = true
    return core.calls.add_rendezvous(this.now)
  }

  /** The record at `peer_ptr`. */
  get peer(): Address {
    this.core.refresh()
    const at = this.core.calls.peer_ptr() >>> 0
    return this.core.u8.slice(at, at + AddressRecord.BYTES)
  }

  /** Passes received datagrams to the engine. @returns the number accepted */
  receive(datagrams: readonly Datagram[]): number {
    const { core } = this
    let accepted = 0
    for (let start = 0; start < datagrams.length; start += core.rxSlots) {
      const batch = datagrams.slice(start, start + core.rxSlots)
      core.refresh()
      batch.forEach(({ bytes, peer, probe }, i) => {
        const word = core.rxWord + i * Rx.WORDS
        const ptr = core.u32[word + Rx.ptr] ?? 0
        check((core.u32[word + Rx.capacity] ?? 0) >= 1501, 'rx descriptor too small')
        let flags = 0
        if (bytes.length <= 1500) {
          core.u8.set(bytes, ptr)
          if (this.config.tagBytes === 0 || fakeOpen(bytes, this.config.nonceBytes)) flags = Rx.OPENED
        }
        core.u32[word + Rx.length] = bytes.length
        core.u32[word + Rx.flags] = probe === true ? flags | Rx.PROBE : flags
        core.u8.set(peer, (word + Rx.address) * 4)
      })
      accepted += core.calls.handle_datagrams(batch.length, this.now)
    }
    this.dirty = true
    return accepted
  }

  /** Virtual time at which `expire` is due; Infinity: never. */
  get deadline(): number {
    return this.#deadline
  }

  /** Runs the engine's timers. */
  expire(): void {
    if (this.#timersAt === this.time) this.#timersCount++
    else this.#timersCount = 0
    this.#timersAt = this.time
    check(this.#timersCount < TIMERS_AT_ONCE_MAX, 'busy loop: next_timeout stays 0 after handle_timeout')
    check(this.core.calls.handle_timeout(this.now) === 0, 'handle_timeout failed')
    this.dirty = true
  }

  /** Drains until the engine has no output left. */
  drain(): void {
    for (let round = 0; this.dirty; round++) {
      check(round < DRAINS_MAX, 'endless drain: every drain causes new events')
      this.dirty = false
      this.#transmit()
      const events = this.#events()
      check(this.core.calls.poll_transmit(this.core.txSlots, this.now) === 0, 'more to transmit right after a drain')
      check(this.core.calls.poll_events() === 0, 'more events right after a drain')
      const wait = this.core.calls.next_timeout(this.now)
      check(wait >= -1, `next_timeout = ${wait}`)
      this.#deadline = wait < 0 ? Number.POSITIVE_INFINITY : this.time + wait
      for (const event of events) this.#onEvent(event)
    }
  }

  #transmit(): void {
    const { core } = this
    const { tagBytes, nonceBytes } = this.config
    const usual = Math.max(this.config.kcpMtu, this.config.searchMtu)
    for (let round = 0; ; round++) {
      check(round < DRAINS_MAX, 'endless poll_transmit')
      const count = core.calls.poll_transmit(core.txSlots, this.now)
      if (count === -6) {
        this.refill()
        continue
      }
      if (count === 0) return
      check(count > 0 && count <= core.txSlots, `poll_transmit = ${count}`)
      core.refresh()
      for (let i = 0; i < count; i++) {
        const word = core.txWord + i * Tx.WORDS
        const source = core.u32[word + Tx.source] ?? 0
        const length = core.u32[word + Tx.length] ?? 0
        const out = core.u32[word + Tx.out] ?? 0
        const nonceAt = core.u32[word + Tx.nonce] ?? 0
        const to = core.u32[word + Tx.address] ?? 0
        const plain = core.u8.slice(source, source + length)
        let bytes = plain
        if (tagBytes > 0) {
          check(nonceAt === out + length + tagBytes, 'the nonce is not behind the tag')
          const nonce = core.u8.slice(nonceAt, nonceAt + nonceBytes)
          const key = nonce.join()
          check(!this.#nonces.has(key), 'MUST 13: a nonce was used twice')
          this.#nonces.add(key)
          bytes = fakeSeal(plain, nonce)
        }
        const peer = core.u8.slice(to, to + AddressRecord.BYTES)
        const handle = core.u32[word + Tx.handle] ?? 0
        if (handle !== 0) this.#checkPushes(handle, plain)
        const flags = core.u32[word + Tx.flags] ?? 0
        const probe = (flags & Tx.PROBE) !== 0
        const mayFragment = (flags & Tx.MAY_FRAGMENT) !== 0
        const most = mayFragment ? DATAGRAM_MAX - tagBytes - nonceBytes : usual
        check(isPlausible(plain, length), `a peer with several keys would drop ${length} bytes unopened`)
        check(length > 0 && length <= most, `MUST 11: ${length} bytes of plaintext with kcpMtu ${most}`)
        const isMerged = this.#runs.add(core, i, count, peer, bytes.length)
        this.#onTransmit({ bytes, peer, probe, isMerged, mayFragment }, handle)
      }
    }
  }

  /** Checks that a retransmitted segment carries the same bytes. */
  #checkPushes(handle: number, plain: Uint8Array): void {
    let sent = this.#pushed.get(handle)
    if (!sent) {
      sent = new Map()
      this.#pushed.set(handle, sent)
    }
    const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength)
    for (let at = 0; plain.length - at >= 24; ) {
      const length = view.getUint32(at + 20)
      if (view.getUint8(at + 4) === PUSH) {
        let hash = length
        for (let i = at + 24; i < at + 24 + length; i++) hash = Math.imul(hash ^ (plain[i] ?? 0), 0x01000193)
        const sn = view.getUint32(at + 12)
        const before = sent.get(sn)
        check(before === undefined || before === hash, `segment ${sn} was retransmitted with other bytes`)
        sent.set(sn, hash)
      }
      at += 24 + length
    }
  }

  #events(): EngineEvent[] {
    const { core } = this
    const events: EngineEvent[] = []
    for (;;) {
      const count = core.calls.poll_events()
      check(count >= 0, `poll_events = ${count}`)
      if (count === 0) return events
      check(events.length < DRAINS_MAX, 'endless poll_events')
      core.refresh()
      for (let i = 0; i < count; i++) {
        const word = core.eventWord + i * Event.WORDS
        events.push({
          type: core.u32[word + Event.type] ?? 0,
          handle: core.u32[word + Event.handle] ?? 0,
          arg: core.u32[word + Event.arg] ?? 0,
          arg2: core.u32[word + Event.arg2] ?? 0,
        })
      }
    }
  }

  /** `stream_open`: a handle, or a negative error code. */
  open(): number {
    this.dirty = true
    return this.core.calls.stream_open(this.now)
  }

  connected(handle: number, ok: boolean): number {
    this.dirty = true
    return this.core.calls.stream_connected(handle, ok ? 1 : 0, this.now)
  }

  shutdown(handle: number): number {
    this.dirty = true
    return this.core.calls.stream_shutdown(handle, this.now)
  }

  abort(handle: number): number {
    this.dirty = true
    return this.core.calls.stream_abort(handle, this.now)
  }

  reset(handle: number): number {
    this.dirty = true
    return this.core.calls.stream_reset(handle, this.now)
  }

  /** Calls `fill` with each reserved span, then commits. @returns bytes written; 0: no room; negative: error code */
  write(handle: number, limit: number, fill: (target: Uint8Array) => void): number {
    const { core } = this
    const spans = core.calls.stream_reserve(handle, limit)
    if (spans <= 0) return spans
    core.refresh()
    let total = 0
    for (let i = 0; i < spans && total < limit; i++) {
      const word = core.spanWord + i * Span.WORDS
      const ptr = core.u32[word + Span.ptr] ?? 0
      const length = Math.min(core.u32[word + Span.length] ?? 0, limit - total)
      check(length > 0, 'an empty span')
      fill(core.u8.subarray(ptr, ptr + length))
      total += length
    }
    check(core.calls.stream_commit(handle, total, this.now) === 0, 'stream_commit failed')
    this.dirty = true
    return total
  }

  /** Calls `take` with at most `limit` readable bytes, span by span, and consumes them. */
  read(handle: number, limit: number, take: (bytes: Uint8Array) => void): number {
    const { core } = this
    const spans = core.calls.stream_peek(handle)
    if (spans <= 0) return spans
    core.refresh()
    let total = 0
    for (let i = 0; i < spans && total < limit; i++) {
      const word = core.spanWord + i * Span.WORDS
      const ptr = core.u32[word + Span.ptr] ?? 0
      const length = Math.min(core.u32[word + Span.length] ?? 0, limit - total)
      check(length > 0, 'an empty span')
      take(core.u8.subarray(ptr, ptr + length))
      total += length
    }
    check(core.calls.stream_consume(handle, total, this.now) === 0, 'stream_consume failed')
    this.dirty = true
    return total
  }

  /** One counter, after a refresh of the time gauges. */
  counter(name: CounterName): number {
    this.core.calls.refresh_gauges(this.now)
    return Number(this.core.counter(name))
  }

  /** Sum of the gauges of live sessions and TIME_WAIT. */
  get sessions(): number {
    const gauges = ['sessions_connect', 'sessions_established', 'sessions_linger', 'sessions_time_wait'] as const
    return gauges.reduce((sum, name) => sum + this.counter(name), 0)
  }

  /** All sessions. */
  list(): SessionInfo[] {
    const result: SessionInfo[] = []
    const slots = this.core.calls.session_slots()
    for (let slot = 0; slot < slots; slot++) {
      const handle = this.core.calls.session_info(slot, this.now)
      if (handle === 0) continue
      result.push(sessionInfo(this.core, handle))
    }
    return result
  }

  /** The conv of a live handle. */
  convOf(handle: number): number {
    const found = this.list().find((session) => session.handle === handle)
    check(found !== undefined, `no session info for handle ${handle}`)
    return found?.conv ?? 0
  }
}

/** @throws with the text if the condition is false */
export function check(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(text)
}
