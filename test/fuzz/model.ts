/**
 * Model of the engine's sessions: the streams in both directions and the host's state.
 */
import type { Random } from '../../testkit/sim/random.ts'
import { InputStream, OutputStream } from './streams.ts'

/** The TCP side as seen by the host. NONE: no event yet, or no TCP side. */
export const Phase = { NONE: 0, DIALING: 1, OPEN: 2, GONE: 3 } as const

/** Maximum number of PUSH segments with pending ACKs of the modelled peer. */
const OWED_MAX = 256

/** The stream that the modelled peer sends under one conv, to any receiver. */
export class Conversation {
  readonly conv: number
  readonly input: InputStream
  /** Other data was sent under this conv: the delivered bytes are unpredictable. */
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
  /** 0 until reported by the engine. */
  handle = 0
  phase: number = Phase.NONE
  /** Payload bytes consumed by the host. */
  consumed = 0
  wasShut = false
  eofTold = false
  /** The engine returned E_HANDLE: an event must follow. */
  mustEnd = false
  /** Largest `kcpMtu` since it was opened. */
  mtu: number
  /** Next new segment of the peer; the engine's una and window. */
  next = 0
  una = 0
  window = 128
  /** Segments of the engine below this number arrived, and those in the set. */
  received = 0
  readonly #early = new Set<number>()
  /** PUSH segments of the engine to acknowledge: sn, ts. */
  readonly owed: number[] = []
  /** Inputs since the last event or call. */
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

  /** Handles a segment of the engine that reaches the peer. */
  arrive(sn: number, ts: number): void {
    if (sn >= this.received) this.#early.add(sn)
    while (this.#early.delete(this.received)) this.received++
    if (this.owed.length >= 2 * OWED_MAX) this.owed.splice(0, 2)
    this.owed.push(sn, ts)
  }
}

/** All conversations and sessions of an episode. */
export class Sessions {
  readonly byHandle = new Map<number, Session>()
  readonly conversations = new Map<number, Conversation>()
  /** Sessions that receive inputs. */
  readonly list: Session[] = []
  /** Ended handles. */
  readonly stale: number[] = []

  /** Adds a conversation with its own stream. */
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

  /** Finds a session not yet reported by the engine. */
  unbound(conv: number): Session | undefined {
    return this.list.find((session) => session.handle === 0 && session.conversation.conv === conv)
  }

  /** Removes a session that the engine has removed. */
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
