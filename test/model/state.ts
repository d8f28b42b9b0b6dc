/** A state of the model: two engines, two applications, a network, and the remaining fault budgets. */
import type { Snapshot } from './machine.ts'

export type Side = 'client' | 'server'

/** How a TCP connection ended, as its application sees it. */
export type Ending = 'closed' | 'aborted' | 'gave up' | 'refused' | 'crashed'

/** A TCP connection of one of the applications. */
export interface Stream {
  readonly side: Side
  readonly handle: number
  readonly conv: number
  /** Incarnation of its engine. */
  readonly incarnation: number
  /** Bytes of this stream are `number * 16 + offset`. */
  readonly number: number
  /** Dialled, and the result of the dial is not reported yet. */
  isDialling: boolean
  written: number
  /** The application ended its direction. */
  isShut: boolean
  got: number
  /** Number of the stream whose bytes were received. */
  source: number
  hasEof: boolean
  isReadable: boolean
  end: Ending | undefined
}

export interface Datagram {
  readonly to: Side
  /** Indices of addresses. */
  readonly from: number
  readonly target: number
  readonly plain: Uint8Array
  readonly nonce: Uint8Array
  readonly sentAt: number
  readonly hash: number
  /** Delayed: time may pass before its delivery. */
  readonly isHeld: boolean
  /** A copy of it was delivered. */
  readonly isCopy: boolean
}

export interface Budgets {
  losses: number
  duplicates: number
  holds: number
  serverRestarts: number
  clientRestarts: number
  migrations: number
  aborts: number
  idles: number
}

export interface State {
  readonly client: Snapshot
  readonly server: Snapshot
  readonly streams: readonly Readonly<Stream>[]
  readonly net: readonly Datagram[]
  readonly now: number
  /** Deadlines of the engines' timers. */
  readonly timers: Readonly<Record<Side, number>>
  /** Index of the client's address. */
  readonly address: number
  readonly incarnations: Readonly<Record<Side, number>>
  readonly budgets: Readonly<Budgets>
  /** A fault that may reset a session has occurred: a restart, or an abort by an application. */
  readonly isDisturbed: boolean
}

export type Action =
  | { readonly kind: 'deliver' | 'lose' | 'duplicate' | 'hold'; readonly index: number }
  | { readonly kind: 'write' | 'shut' | 'abort' | 'read' | 'connect' | 'refuse'; readonly index: number }
  | { readonly kind: 'wait' | 'migrate' | 'open' }
  | { readonly kind: 'restart'; readonly side: Side }

/** An invariant of the protocol does not hold. */
export class Violation extends Error {}
