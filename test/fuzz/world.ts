/**
 * One engine, the model of its sessions, and recent traffic: the sources of inputs.
 */

import { Buffer } from 'node:buffer'
import { AddressRecord, type CoreExports, EventType, Info } from '../../host/engine/core.ts'
import type { Random } from '../../testkit/sim/random.ts'
import { Cmd, HEADER_BYTES, What } from '../../testkit/sim/wire.ts'
import { Conversation, Phase, Session, Sessions } from './model.ts'
import { fault } from './pattern.ts'
import type { Plan } from './plan.ts'
import { InputStream } from './streams.ts'
import { DATAGRAM_MAX, type Listener, Subject } from './subject.ts'

/** Number of datagrams kept for replay. */
const KEPT = 64

/** A datagram kept for replay. */
export interface Kept {
  readonly plain: Uint8Array
  readonly nonce: Uint8Array | undefined
  readonly address: Uint8Array
}

/** The obfuscator's part of the host (obfuscator.ts). */
export interface ObfuscatorHost {
  /** Delivers a datagram in a packet. */
  deliver(plain: Uint8Array, size: number, from: Uint8Array, nonce: Uint8Array | undefined, isOpened: boolean): void
  act(): void
  restart(): void
  count(): number
}

export class World implements Listener {
  readonly plan: Plan
  readonly random: Random
  readonly subject: Subject
  readonly sessions = new Sessions()
  readonly addresses: readonly Uint8Array[]
  obfuscator: ObfuscatorHost | undefined
  /** Inputs so far. */
  inputs = 0
  log: ((text: string) => void) | undefined
  /** Address of the client's peer, as set by the host. */
  peer: Uint8Array
  /** Datagrams of the engine and of its peers. */
  readonly sent: Kept[] = []
  readonly fed: Kept[] = []
  /** Values of the engine's PINGs, with their receivers. */
  readonly pings: { readonly value: number; readonly address: Uint8Array }[] = []
  /** Output is not checked: the sessions belong to a measurement. */
  isMeasuring = false
  /** Peers and host behave correctly. */
  isCalm = false
  /** Bytes in use before the first session. */
  fixedBytes = 0
  readonly #known = new Map<number, Uint8Array>()
  #eofs: Session[] = []
  #conv: number

  constructor(plan: Plan, calls: CoreExports) {
    this.plan = plan
    this.random = plan.random
    this.addresses = plan.addresses
    this.subject = new Subject(calls, plan.random, plan.config, plan.clock)
    this.peer = this.addresses[0] ?? fault('a plan without addresses')
    this.#conv = plan.random.u32()
  }

  /** A conv that was never used, and is unlikely in a damaged datagram. */
  nextConv(): number {
    this.#conv = (this.#conv + 0x9e3779b1) >>> 0 || 1
    return this.#conv
  }

  note(text: () => string): void {
    this.inputs++
    if (this.log) this.log(`${this.inputs} @${this.subject.now} ${text()}`)
  }

  /** A copy of the record at an address of the engine's memory; equal records are the same object. */
  record(at: number): Uint8Array {
    const key = this.subject.addressKey(at)
    let known = this.#known.get(key)
    if (!known) {
      known = this.subject.core.u8.slice(at, at + AddressRecord.BYTES)
      this.#known.set(key, known)
    }
    return known
  }

  keep(list: Kept[], kept: Kept): void {
    if (list.length < KEPT) list.push(kept)
    else list[this.random.below(KEPT)] = kept
  }

  /** Drains and checks the invariants that hold afterwards. */
  drain(limit = 64): boolean {
    if (!this.subject.drain(this, limit)) return false
    for (const session of this.#eofs) {
      const isAllowed = session.wasShut || session.phase === Phase.GONE || !session.isClean
      // a server's stream may end before its DIAL
      if (!isAllowed && session.phase !== Phase.NONE) fault(`handle ${session.handle}: EOF that nobody asked for`)
    }
    this.#eofs = []
    return true
  }

  // ---- output of the engine

  onDatagram(at: number, length: number, handle: number, to: number, nonceAt: number, isLong: boolean): void {
    if (this.isMeasuring) return
    const { buffer, core, fixed } = this.subject
    const address = this.record(to)
    if (this.random.below(8) === 0) {
      const nonce = fixed.nonceBytes ? core.u8.slice(nonceAt, nonceAt + fixed.nonceBytes) : undefined
      this.keep(this.sent, { plain: core.u8.slice(at, at + length), nonce, address })
    }
    if (handle === 0) this.#takeControl(at, address)
    else this.#takeSegments(at, length, handle, address, isLong)
    if (this.log) this.log(`  -> ${handle} ${buffer.toString('hex', at, at + Math.min(length, 60))} (${length})`)
  }

  #takeControl(at: number, address: Uint8Array): void {
    const { buffer } = this.subject
    if (buffer.readUInt32BE(at) !== 0) fault('a datagram without handle that is no control message')
    if (buffer.readUInt16BE(at + 4) !== What.PING) return
    if (this.pings.length >= 8) this.pings.shift()
    this.pings.push({ value: buffer.readUInt32BE(at + 6), address })
  }

  #takeSegments(at: number, length: number, handle: number, address: Uint8Array, isLong: boolean): void {
    const { buffer, overhead } = this.subject
    const conv = buffer.readUInt32BE(at)
    const session = this.sessions.byHandle.get(handle) ?? this.#discover(handle, conv, address)
    if (session.conversation.conv !== conv) fault(`handle ${handle} sent conv ${conv}`)
    session.address = address
    const most = isLong ? Math.max(session.mtu, DATAGRAM_MAX - overhead) : session.mtu
    if (length > most) fault(`a datagram of ${length} bytes where kcpMtu is ${most}`)
    const end = at + length
    while (end - at >= HEADER_BYTES) {
      const bytes = buffer.readUInt32BE(at + 20)
      const cmd = buffer.readUInt8(at + 4)
      if (buffer.readUInt32BE(at) !== conv || bytes > end - at - HEADER_BYTES) {
        if (overhead && end - at < HEADER_BYTES + 16) break
        fault('a segment that cannot be parsed was sent')
      }
      const sn = buffer.readUInt32BE(at + 12)
      session.una = buffer.readUInt32BE(at + 16)
      session.window = buffer.readUInt16BE(at + 6)
      if (cmd === Cmd.PUSH) {
        const before = session.output.hasEof
        session.output.take(sn, buffer, at + HEADER_BYTES, bytes)
        if (session.output.hasEof !== before) this.#eofs.push(session)
        if (this.isCalm || this.random.below(100) >= this.plan.loss) session.arrive(sn, buffer.readUInt32BE(at + 8))
      } else if (cmd < Cmd.PUSH || cmd > Cmd.WINS || bytes !== 0) fault(`a segment of cmd ${cmd}`)
      at += HEADER_BYTES + bytes
    }
    if (!overhead && at !== end) fault(`${end - at} bytes behind the segments of a datagram`)
  }

  /** The session of a handle that is reported for the first time. */
  #discover(handle: number, conv: number, address: Uint8Array): Session {
    const { sessions } = this
    let session = sessions.unbound(conv)
    if (!session) {
      let conversation = sessions.conversations.get(conv)
      if (!conversation) {
        conversation = new Conversation(conv, new InputStream(0, false))
        conversation.isDirty = true
        sessions.conversations.set(conv, conversation)
      }
      session = sessions.add(new Session(conversation, address, false, this.random.u32() % 65521, 1500))
    }
    sessions.bind(session, handle)
    return session
  }

  /** The session of a handle as reported by the engine. */
  describe(handle: number): Session {
    const known = this.sessions.byHandle.get(handle)
    if (known) return known
    const { calls, core, now } = this.subject
    if (calls.session_info(handle & 0xffff, now) !== handle) fault(`no session info for handle ${handle}`)
    const conv = core.info().getUint32(Info.conv, true)
    return this.#discover(handle, conv, this.record((calls.info_ptr() >>> 0) + Info.address))
  }

  onEvent(type: number, handle: number, argument: number): void {
    if (this.isMeasuring) return
    if (this.log) this.log(`  event ${type} handle ${handle} arg ${argument}`)
    if (handle === 0) {
      this.#ownEvent(type)
      return
    }
    if (type === EventType.DIAL) {
      const session = this.describe(handle)
      if (session.isOurs || session.phase !== Phase.NONE) fault(`DIAL for handle ${handle} in phase ${session.phase}`)
      session.phase = Phase.DIALING
      return
    }
    const session = this.sessions.byHandle.get(handle)
    // a server session whose DIAL was not reported, or follows in this batch
    const isEarly = type === EventType.ABORT || type === EventType.MIGRATED
    if (isEarly && this.plan.role === 'server' && (session?.phase ?? Phase.NONE) === Phase.NONE) return
    if (!session || session.phase === Phase.NONE || session.phase === Phase.GONE) {
      fault(`event ${type} for handle ${handle}, which the host does not hold`)
    }
    if (type === EventType.EOF) {
      if (session.eofTold || session.phase !== Phase.OPEN) fault(`handle ${handle}: EOF in phase ${session.phase}`)
      session.eofTold = true
      this.#checkEnd(session, 'EOF')
    } else if (type === EventType.ABORT || type === EventType.DETACH) {
      session.phase = Phase.GONE
      if (type === EventType.DETACH) this.#checkEnd(session, 'DETACH')
    } else if (session.phase !== Phase.OPEN && type !== EventType.MIGRATED) {
      fault(`event ${type} for handle ${handle} in phase ${session.phase}`)
    }
  }

  #ownEvent(type: number): void {
    if (type < EventType.PONG || type === EventType.MIGRATED || type === EventType.OPENED)
      fault(`event ${type} without handle`)
    if (type === EventType.PEER_FOUND) this.peer = this.record(this.subject.calls.peer_ptr() >>> 0)
  }

  /** Checks that a clean end comes only after every byte. */
  #checkEnd(session: Session, name: string): void {
    if (!session.isClean) return
    const { input } = session.conversation
    if (!input.hasEof) fault(`handle ${session.handle}: ${name}, but the peer sent no EOF`)
    if (session.consumed !== input.payload) {
      fault(`handle ${session.handle}: ${name} after ${session.consumed} of ${input.payload} bytes`)
    }
  }

  /** Lets time pass. Small steps run due timers on the way, large ones simulate suspension. */
  pass(ticks: number, stepped: boolean): void {
    const { subject } = this
    const end = subject.now + ticks
    for (let steps = 0; stepped && steps < 64; steps++) {
      const left = (end - subject.now) | 0
      if (subject.wait < 0 || subject.wait > left || !subject.isDrained) break
      subject.now = (subject.now + subject.wait) >>> 0
      this.expire()
      if (!this.drain()) return
    }
    subject.now = end >>> 0
  }

  /** Runs the timers that are due now. */
  expire(): void {
    const { subject } = this
    subject.flush()
    for (let times = 0; ; times++) {
      if (times > 500) fault('busy loop: next_timeout stays 0 after handle_timeout')
      if (subject.calls.handle_timeout(subject.now) !== 0) fault('handle_timeout failed')
      subject.isDrained = false
      if (!this.drain() || subject.wait !== 0) return
    }
  }
}

/** Hexadecimal text of the beginning of a datagram. */
export function hex(bytes: Uint8Array, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('hex')
}
