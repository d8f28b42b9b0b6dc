/**
 * An engine of the checked build that runs scripts (script.ts), one after the other. Each script has sessions of its own:
 * at its end they are aborted and time passes, so that the next one begins with hardly more than the tables that grew.
 */
import { type CoreConfig, ErrorCode, EventType, Info } from '../../../host/engine/core.ts'
import { edgeCounters, faultText, instantiateChecked } from '../../../testkit/checked-core.ts'
import { address4, address6 } from '../../../testkit/sim/address.ts'
import { Random } from '../../../testkit/sim/random.ts'
import { STATES } from '../checks.ts'
import { fault } from '../pattern.ts'
import { type Listener, Subject } from '../subject.ts'
import { exactCall, handleCall } from './engine-calls.ts'
import type { Subject as FuzzSubject } from './loop.ts'
import { Packets } from './packets.ts'
import { Habit, OPS, Op, ScriptReader } from './script.ts'

export interface EnginePlan {
  readonly config: CoreConfig
  /** ObfsKind, and the family of its packets. */
  readonly obfuscator?: { readonly kind: number; readonly family: 4 | 6 }
}

export const PEERS: readonly Uint8Array[] = [
  address4(1, 5001),
  address4(2, 5002),
  address6(3, 5003),
  address6(4, 5004, 2),
]
const SECOND = 8000
const CLOCK = 0xffff_0000
/** Most ticks at once, as a power of two: 17 minutes. */
const TIME_BITS = 24
/** Longest write. */
const WRITE_MAX = 4096
/** Seconds after which aborted sessions are gone, as a power of two. */
const END_STEPS = 10
/** More convs than one script uses. */
const CONVS = 8

export class Engine implements FuzzSubject, Listener {
  readonly subject: Subject
  readonly #plan: EnginePlan
  readonly #packets: Packets | undefined
  /** Handles that a script's `which` counts, and their convs. */
  readonly #streams: { handle: number; conv: number }[] = []
  readonly #live = new Map<number, boolean>()
  readonly #gone = new Set<number>()
  #readable: number[] = []
  #dialled: number[] = []
  #habits = 0
  #serial = 1

  constructor(plan: EnginePlan) {
    this.#plan = plan
    this.subject = new Subject(instantiateChecked(), new Random(1), plan.config, CLOCK)
    this.#setPeer(0)
    if (plan.obfuscator) this.#packets = new Packets(this.subject, plan.obfuscator.kind, plan.obfuscator.family)
    this.#drain()
  }

  counters(): Uint8Array {
    this.subject.refresh()
    return edgeCounters(this.subject.calls)
  }

  run(input: Uint8Array): void {
    try {
      const reader = new ScriptReader(input)
      this.#serial++
      this.#habits = reader.u8()
      this.#packets?.begin(this.#serial)
      while (reader.more) this.#step(reader)
      this.#end()
    } catch (error) {
      const found = faultText(this.subject.calls)
      throw found === undefined ? error : new Error(`${found}: ${error instanceof Error ? error.stack : error}`)
    }
  }

  #step(reader: ScriptReader): void {
    const { subject } = this
    const { calls } = subject
    const op = reader.u8() % OPS
    if (op === Op.DATAGRAM) {
      const from = reader.u8()
      this.#datagram(reader.take(reader.u16()), from)
    } else if (op === Op.TIME) this.#pass(2 ** (reader.u8() % TIME_BITS))
    else if (op === Op.OPEN) this.#open()
    else if (op >= Op.WRITE && op <= Op.CONNECTED) this.#streamCall(op, reader)
    else if (op === Op.PEER) this.#setPeer(reader.u8())
    else if (op === Op.RENDEZVOUS) {
      const id = reader.take(reader.u8())
      subject.writeRecord(PEERS[1] ?? fault('no peers'), calls.rendezvous_ptr())
      subject.writeRecord(PEERS[2] ?? fault('no peers'), calls.local_ptr())
      subject.core.u8.set(id, calls.service_ptr())
      exactCall('set_rendezvous', calls.set_rendezvous(id.length, subject.now))
    } else if (op === Op.PING) exactCall('ping_peer', calls.ping_peer(subject.now))
    else if (op === Op.NONCE) exactCall('renew_nonce', calls.renew_nonce())
    else if (op === Op.CONFIGURE) this.#configure(reader.u8(), reader.u32())
    else if (op === Op.HANDLE)
      handleCall(subject, reader.u8(), reader.u32(), reader.u32(), (handle) => this.#live.has(handle))
    else if (op === Op.PACKET) {
      const flags = reader.u8()
      this.#packets?.deliver(reader.take(reader.u16()), flags, (plain) => this.#remap(plain))
    } else if (op === Op.OBFUSCATOR) this.#packets?.act(reader.u8())
    else this.#drain()
    subject.isDrained = false
  }

  /** Replaces the small convs of a script, so that no two scripts of an engine have the same. Works in place. */
  #remap(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let at = 0; at + 24 <= bytes.length; ) {
      const conv = view.getUint32(at)
      if (conv === 0) return
      if (conv < CONVS) {
        const { length } = this.#streams
        const ours = length > 0 ? this.#streams[conv % length]?.conv : undefined
        view.setUint32(at, ours ?? this.#serial * CONVS + conv)
      }
      at += 24 + view.getUint32(at + 20)
    }
  }

  #datagram(bytes: Uint8Array, from: number): void {
    const plain = bytes.slice()
    this.#remap(plain)
    const address = PEERS[from % PEERS.length] ?? fault('no peers')
    this.subject.feed(plain, plain.length, address, undefined, (from & 0x80) === 0)
  }

  #open(): void {
    const { subject } = this
    subject.flush()
    const handle = subject.calls.stream_open(subject.now)
    if (handle <= 0) {
      exactCall('stream_open', handle)
      return
    }
    if (this.#live.has(handle)) fault(`handle ${handle} was given out twice`)
    if (subject.calls.session_find(handle, subject.now) < 0) fault('an open stream without session')
    this.#hold(handle, true)
  }

  #hold(handle: number, isOpen: boolean): void {
    if (this.subject.calls.session_find(handle, this.subject.now) < 0) fault(`no session info for handle ${handle}`)
    const conv = this.subject.core.info().getUint32(Info.conv, true)
    this.#gone.delete(handle)
    this.#live.set(handle, isOpen)
    this.#streams.push({ handle, conv })
  }

  #release(handle: number): void {
    if (this.#live.delete(handle)) this.#gone.add(handle)
  }

  #streamCall(op: number, reader: ScriptReader): void {
    const { subject } = this
    const { calls, now } = subject
    const which = reader.u8()
    const length = op === Op.WRITE || op === Op.READ ? reader.u16() : 0
    const handle = this.#streams[(which & 0x7f) % Math.max(1, this.#streams.length)]?.handle
    if (handle === undefined) return
    if (op === Op.WRITE) this.#write(handle, 1 + (length % WRITE_MAX))
    else if (op === Op.READ) this.#read(handle, length)
    else if (op === Op.SHUTDOWN) exactCall('stream_shutdown', calls.stream_shutdown(handle, now))
    else if (op === Op.ABORT) {
      const result = (which & 0x80) === 0 ? calls.stream_abort(handle, now) : calls.stream_reset(handle, now)
      exactCall('stream_abort', result)
      // with HANDLE the session has ended meanwhile: an event says so
      if (result === 0) this.#release(handle)
    } else this.#connected(handle, (which & 0x80) === 0)
  }

  #connected(handle: number, isOk: boolean): void {
    const { calls, now } = this.subject
    const isWaiting = this.#live.get(handle) === false
    const result = calls.stream_connected(handle, isOk ? 1 : 0, now)
    if (!isWaiting) {
      exactCall('stream_connected', result)
      return
    }
    // the session ended meanwhile: an event says so
    if (result === ErrorCode.HANDLE) return
    if (result !== 0) fault(`stream_connected = ${result} for a handle that waits for it`)
    if (isOk) this.#live.set(handle, true)
    else this.#release(handle)
  }

  #write(handle: number, length: number): void {
    const { subject } = this
    const { calls, core } = subject
    const count = calls.stream_reserve(handle, length)
    if (count < 0) {
      exactCall('stream_reserve', count)
      return
    }
    let total = 0
    for (const [at, bytes] of subject.spans(count)) {
      core.u8.fill(0x41, at, at + bytes)
      total += bytes
    }
    const written = Math.min(total, length)
    if (written > 0 && calls.stream_commit(handle, written, subject.now) !== 0) fault('stream_commit failed')
  }

  #read(handle: number, most: number): void {
    const { subject } = this
    const { calls } = subject
    const count = calls.stream_peek(handle)
    if (count < 0) {
      exactCall('stream_peek', count)
      return
    }
    let total = 0
    for (const [, bytes] of subject.spans(count)) total += bytes
    const read = Math.min(total, most)
    if (read > 0 && calls.stream_consume(handle, read, subject.now) !== 0) fault('stream_consume failed')
    if (read > 0 && this.#habits & Habit.ECHO) this.#write(handle, read)
  }

  #setPeer(which: number): void {
    const { subject } = this
    subject.writeRecord(PEERS[which % PEERS.length] ?? fault('no peers'), subject.calls.peer_ptr())
    exactCall('set_peer', subject.calls.set_peer(subject.now))
  }

  #configure(field: number, value: number): void {
    const names = Object.keys(this.#plan.config) as (keyof CoreConfig)[]
    const name = names[field % names.length] ?? 'kcpMtu'
    // as much memory as an engine of the test may take
    if (name === 'memoryCeiling' && value > this.#plan.config.memoryCeiling) return
    const result = this.subject.configure({ ...this.subject.config, [name]: value })
    if (result > 0 || (result < 0 && result > -100 && result < -7)) fault(`configure = ${result}`)
  }

  #pass(ticks: number): void {
    const { subject } = this
    this.#drain()
    subject.now = (subject.now + ticks) >>> 0
    exactCall('handle_timeout', subject.calls.handle_timeout(subject.now), true)
    this.#drain()
  }

  #drain(): void {
    for (let round = 0; ; round++) {
      this.subject.drain(this)
      this.#packets?.drain()
      const dialled = this.#dialled.splice(0)
      const readable = this.#readable.splice(0)
      if (dialled.length + readable.length === 0 || round > 100) return
      for (const handle of dialled)
        if (this.#live.get(handle) === false) this.#connected(handle, (this.#habits & Habit.ACCEPT) !== 0)
      for (const handle of readable) if (this.#live.get(handle)) this.#read(handle, 65536)
    }
  }

  onDatagram(): void {}

  onEvent(type: number, handle: number): void {
    if (handle === 0) {
      if (type < EventType.PONG || type === EventType.MIGRATED || type === EventType.OPENED)
        fault(`event ${type} without handle`)
      return
    }
    if (type === EventType.DIAL) {
      if (this.#live.has(handle)) fault(`DIAL for handle ${handle}, which is in use`)
      this.#hold(handle, false)
      if (this.#habits & (Habit.ACCEPT | Habit.REFUSE)) this.#dialled.push(handle)
      return
    }
    const isOpen = this.#live.get(handle)
    if (isOpen === undefined) {
      // a session that ended before its DIAL has no stream
      if ((type === EventType.ABORT || type === EventType.MIGRATED) && !this.#gone.has(handle)) return
      fault(`event ${type} for handle ${handle}, which the host does not hold`)
    }
    if (type === EventType.READABLE && this.#habits & Habit.READ) this.#readable.push(handle)
    if (type === EventType.ABORT || type === EventType.DETACH) this.#release(handle)
    else if (!isOpen && type <= EventType.EOF) fault(`event ${type} for handle ${handle}, which is not connected`)
  }

  /** Sessions as listed, by state. */
  #list(): number {
    const { subject } = this
    const counts = [0, 0, 0, 0, 0]
    for (let slot = 0; slot < subject.calls.session_slots(); slot++) {
      const handle = subject.calls.session_info(slot, subject.now)
      if (handle === 0) continue
      const state = subject.core.info().getUint32(Info.state, true)
      counts[state] = (counts[state] ?? 0) + 1
    }
    STATES.forEach((name, i) => {
      if (subject.gauge(name) !== counts[i + 1]) fault(`${name} = ${subject.gauge(name)}, listed ${counts[i + 1]}`)
    })
    return counts.reduce((sum, count) => sum + count, 0)
  }

  /** Aborts what is open; then nothing may be left. */
  #end(): void {
    const { subject } = this
    this.#drain()
    if (subject.config !== this.#plan.config && subject.configure(this.#plan.config) !== 0) fault('configure failed')
    this.#habits = Habit.REFUSE
    this.#list()
    for (const handle of [...this.#live.keys()]) {
      exactCall('stream_abort', subject.calls.stream_abort(handle, subject.now), true)
      this.#release(handle)
    }
    this.#packets?.end()
    let left = 1
    for (let step = 0; left > 0 && step < END_STEPS; step++) {
      this.#pass(SECOND * 2 ** step)
      left = this.#list()
    }
    if (left > 0) fault(`${left} sessions are left when all limits have passed`)
    if (subject.gauge('waitsnd') !== 0) fault(`waitsnd = ${subject.gauge('waitsnd')} without sessions`)
    this.#streams.length = 0
    const used = subject.gauge('memory_used')
    if (used > this.#plan.config.memoryCeiling + MEMORY_SLACK) fault(`memory_used = ${used}`)
  }
}

/** Static data, which counts as memory in use but not towards the ceiling. */
const MEMORY_SLACK = 4 << 20
