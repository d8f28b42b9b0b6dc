/**
 * What is known of the sessions of the engine: the streams in both directions and what its host holds.
 */
import type { Random } from '../../testkit/sim/random.ts'
import { InputStream, OutputStream } from './streams.ts'

/** The TCP side as the host sees it. NONE: no event yet, or nothing to do with it. */
export const Phase = { NONE: 0, DIALING: 1, OPEN: 2, GONE: 3 } as const

/** Most PUSHes whose ACK the modelled peer still owes. */
const OWED_MAX = 256

/** What the modelled peer sends under one conv, to any receiver. */
export class Conversation {
  readonly conv: number
  readonly input: InputStream
  /** Something else was sent in its name: what is delivered cannot be foretold. */
  isDirty = false

  constructor(conv: number, input: InputStream) {
    this.conv = conv
    this.input = input
  }
}

/** A session of the engine. */
export class Session {
  readonly conversation: Conversation
  readonly output: OutputStream
  readonly isOurs: boolean
  address: Uint8Array
  /** 0 until the engine showed it. */
  handle = 0
  phase: number = Phase.NONE
  /** Payload bytes that the host consumed. */
  consumed = 0
  wasShut = false
  eofTold = false
  /** The engine answered E_HANDLE: an event must follow. */
  mustEnd = false
  /** Largest `kcpMtu` since it was opened. */
  mtu: number
  /** Next new segment of the peer, and what the engine acknowledged and offers. */
  next = 0
  una = 0
  window = 128
  /** All segments of the engine below it arrived, and which above. */
  received = 0
  readonly #early = new Set<number>()
  /** PUSHes of the engine to be acknowledged: sn, ts. */
  readonly owed: number[] = []
  /** Inputs since the host last saw it. */
  idle = 0

  constructor(conversation: Conversation, address: Uint8Array, isOurs: boolean, outputKey: number, mtu: number) {
    this.conversation = conversation
    this.address = address
    this.isOurs = isOurs
    this.output = new OutputStream(outputKey, isOurs)
    this.mtu = mtu
  }

  get isClean(): boolean {
    return !this.conversation.isDirty
  }

  /** A segment of the engine arrives at the peer. */
  arrive(sn: number, ts: number): void {
    if (sn >= this.received) this.#early.add(sn)
    while (this.#early.delete(this.received)) this.received++
    if (this.owed.length >= 2 * OWED_MAX) this.owed.splice(0, 2)
    this.owed.push(sn, ts)
  }
}

/** All conversations and sessions of a run. */
export class Sessions {
  readonly byHandle = new Map<number, Session>()
  readonly conversations = new Map<number, Conversation>()
  /** Those that inputs are made for. */
  readonly list: Session[] = []
  /** Handles that are gone. */
  readonly stale: number[] = []

  /** A conversation with a stream of its own. */
  conversation(random: Random, conv: number, wantsDial: boolean, isCalm: boolean): Conversation {
    const made = new Conversation(conv, new InputStream(random.u32() % 65521, wantsDial, isCalm))
    this.conversations.set(conv, made)
    return made
  }

  add(session: Session): Session {
    this.list.push(session)
    return session
  }

  bind(session: Session, handle: number): void {
    session.handle = handle
    this.byHandle.set(handle, session)
  }

  /** One that the engine has not shown yet. */
  unbound(conv: number): Session | undefined {
    return this.list.find((session) => session.handle === 0 && session.conversation.conv === conv)
  }

  /** The engine has forgotten it. */
  forget(session: Session): void {
    if (session.handle !== 0) {
      this.byHandle.delete(session.handle)
      this.stale.push(session.handle)
      if (this.stale.length > 32) this.stale.shift()
    }
    const at = this.list.indexOf(session)
    if (at >= 0) this.list.splice(at, 1)
  }
}
