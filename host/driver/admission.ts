/**
 * Admission of connections of applications. While the peer is silent, each causes a ping and waits a few seconds for the
 * answer, then it is reset. Without this, a dead tunnel accepts them all and holds each until its session times out.
 */

import type { Clock, QueuedBytes, TcpConnection, TcpHandlers, Timer } from '../runtime.ts'
import type { Diagnostics } from './diagnostics.ts'
import type { PeerLog } from './peer-log.ts'
import type { StreamTable } from './stream-table.ts'

/** Minimum interval of the pings, ms. */
const PING_MS = 1000
/** How long a connection waits, ms. */
export const WAIT_MS = 3000
/** Connections that may wait; further ones are reset at once. */
const WAITING_MAX = 1024

/** The part of the driver used by Admission. */
export interface AdmissionHost {
  readonly runtime: { readonly clock: Clock }
  readonly streams: Pick<StreamTable, 'accept' | 'held'>
  readonly diagnostics: Pick<Diagnostics, 'refused'>
  readonly peerLog: Pick<PeerLog, 'isSilent' | 'silentAt'>
  /** Whether no engine may be called. */
  readonly dead: boolean
  /** ms since the last authentic datagram, undefined before the first. */
  receivedAge(): number | undefined
  pingPeer(): void
}

/** A connection that waits. It is paused; FIN may still be reported. */
class Waiting implements TcpHandlers {
  readonly held: QueuedBytes
  readonly connection: TcpConnection
  readonly since: number
  isEnded = false
  readonly #admission: Admission

  constructor(admission: Admission, held: QueuedBytes, connection: TcpConnection, since: number) {
    this.#admission = admission
    this.held = held
    this.connection = connection
    this.since = since
  }

  onData(): void {}

  onEnd(): void {
    this.isEnded = true
  }

  onDrain(): void {}

  onClose(): void {
    this.#admission.forget(this)
  }
}

export class Admission {
  readonly #host: AdmissionHost
  readonly #isLimited: () => boolean
  readonly #clock: Clock
  /** In order of arrival. */
  readonly #waiting = new Set<Waiting>()
  #pingedAt = Number.NEGATIVE_INFINITY
  #timer: Timer | undefined

  /** @param isLimited whether connections wait here while the peer is silent */
  constructor(host: AdmissionHost, isLimited: () => boolean) {
    this.#host = host
    this.#isLimited = isLimited
    this.#clock = host.runtime.clock
  }

  /**
   * Opens a session for a connection, or lets it wait.
   * @returns its handlers, or null to refuse it
   */
  accept(connection: TcpConnection): TcpHandlers | null {
    const { streams, diagnostics } = this.#host
    if (!this.isLimiting) return streams.accept(connection)
    if (this.#waiting.size >= WAITING_MAX) {
      diagnostics.refused(`the peer does not answer, and ${WAITING_MAX} connections wait for it`)
      return null
    }
    const waiting = new Waiting(this, streams.held, connection, this.#clock.monotonic())
    this.#waiting.add(waiting)
    // not now: the answer must not be handled before the connection has its handlers
    if (this.#waiting.size === 1) this.#arm()
    return waiting
  }

  /** Whether connections wait here. */
  get isLimiting(): boolean {
    return !this.#host.dead && this.#isLimited() && this.#isPeerDown
  }

  /** Whether the peer does not answer pings and nothing arrived since that was noticed. ICMP errors do not count. */
  get #isPeerDown(): boolean {
    const { isSilent, silentAt } = this.#host.peerLog
    return isSilent && !this.#hasReceivedSince(silentAt)
  }

  /** @param time monotonic ms */
  #hasReceivedSince(time: number): boolean {
    const age = this.#host.receivedAge()
    return age !== undefined && age <= this.#clock.monotonic() - time
  }

  forget(waiting: Waiting): void {
    this.#waiting.delete(waiting)
  }

  /** The state of the peer changed. If it answers, sessions are opened for all that wait. */
  onPeerState(): void {
    if (this.#host.peerLog.isSilent) return
    for (const waiting of [...this.#waiting]) this.#open(waiting)
    this.#disarm()
  }

  /** Resets all that wait. */
  reset(): void {
    for (const { connection } of this.#waiting) connection.reset()
    this.#waiting.clear()
    this.#disarm()
  }

  #open(waiting: Waiting): void {
    this.#waiting.delete(waiting)
    const { connection, isEnded } = waiting
    const handlers = this.#host.streams.accept(connection)
    if (handlers === null) {
      connection.reset()
      return
    }
    connection.attach(handlers)
    if (isEnded) handlers.onEnd()
  }

  readonly #tick = (): void => {
    this.#timer = undefined
    const host = this.#host
    const now = this.#clock.monotonic()
    for (const waiting of [...this.#waiting]) {
      if (now - waiting.since < WAIT_MS) break
      if (this.#hasReceivedSince(waiting.since)) this.#open(waiting)
      else {
        this.#waiting.delete(waiting)
        waiting.connection.reset('the peer does not answer')
        host.diagnostics.refused('the peer does not answer')
      }
    }
    if (this.#waiting.size === 0) return
    if (now - this.#pingedAt >= PING_MS) {
      this.#pingedAt = now
      host.pingPeer()
    }
    this.#arm()
  }

  #arm(): void {
    const [first] = this.#waiting
    if (first === undefined || this.#timer !== undefined) return
    const due = Math.min(this.#pingedAt + PING_MS, first.since + WAIT_MS)
    this.#timer = this.#clock.setTimer(this.#tick, Math.max(0, due - this.#clock.monotonic()))
  }

  #disarm(): void {
    this.#clock.clearTimer(this.#timer)
    this.#timer = undefined
  }
}
