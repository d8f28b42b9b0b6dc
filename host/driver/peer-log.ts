/**
 * What the log says of the peer of a client, or of the rendezvous server of an endpoint without a peer: that it answers,
 * that it does not, and what ICMP reports. While ICMP says that nothing listens there, it is pinged in short intervals,
 * so that a client which was started first finds its server within a second.
 *
 * ICMP is a hint: it can be forged, and ends nothing.
 */

import { codeOf, type SystemError } from '../errors.ts'
import { roundDuration } from '../format.ts'
import { LOG_NOTICE, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Clock, Timer } from '../runtime.ts'

/** `waiting for ADDR` is logged if there is no answer after this time, ms. */
const WAITING_MS = 1000
/** Minimum interval of two lines about errors that ICMP or the routing reports, ms. */
const ERROR_LOG_MS = 60_000
/** Pauses before the pings that follow refusals, ms: they double. After a long time they have the last length. */
const PING_FIRST_MS = 250
const PING_LAST_MS = 1000
const REFUSED_LONG_MS = 600_000
const PING_LONG_MS = 10_000
/** A client whose rendezvous server answers is without a peer for so long before the log says so, ms. */
const SEARCHING_MS = 5000
/** An error that is this recent explains the silence, ms. */
const EXPLAINS_MS = 10_000

export type PeerKind = 'peer' | 'rendezvous server'

/** Why the peer does not answer, as far as ICMP or this machine reported it. */
export interface PeerProblem {
  /** `refused`: nothing listens there. `firewall`: of this machine. `unreachable`: on the path. */
  readonly kind: 'refused' | 'firewall' | 'unreachable'
  /** The system's words. */
  readonly text: string
}

export interface PeerLogHost {
  readonly log: Log
  readonly clock: Clock
  /** Pings the peer. */
  ping(): void
  /** Whether any datagram of the peer has arrived. */
  hasHeard(): boolean
}

/** An address, with what it is unless that is a peer. */
const named = (where: string, kind: PeerKind): string => (kind === 'peer' ? where : `${kind} ${where}`)

export class PeerLog {
  readonly #host: PeerLogHost
  /** When the silence of the peer was last noticed, monotonic ms. */
  silentAt = Number.NEGATIVE_INFINITY
  /** What does not answer pings. */
  #silent: PeerKind | undefined
  /** The address that answered last and what it is, and since when it does not, monotonic ms. */
  #connected = ''
  #connectedKind: PeerKind | undefined
  #outageAt: number | undefined
  /** The address that was set last. */
  #started = ''
  #waiting: Timer | undefined
  #retry: Timer | undefined
  #searching: Timer | undefined
  #retryMs = PING_FIRST_MS
  /** Errors since the last line, when it was written, and when errors began, monotonic ms. */
  #errors = 0
  #errorLoggedAt = Number.NEGATIVE_INFINITY
  #errorsSince = 0
  #errorAt = Number.NEGATIVE_INFINITY
  #error: PeerProblem | undefined

  constructor(host: PeerLogHost) {
    this.#host = host
  }

  /** Whether the peer has not answered since pings were lost. */
  get isSilent(): boolean {
    return this.#silent === 'peer'
  }

  /** An address is set. If it is another one, it is being pinged, or gets announcements. */
  start(peer: SocketAddress, kind: PeerKind): void {
    const { clock, log } = this.#host
    const where = formatAddress(peer)
    if (where === this.#started) return
    this.#started = where
    clock.clearTimer(this.#waiting)
    this.#waiting = clock.setTimer(() => {
      this.#waiting = undefined
      if (!this.#isExplained() && !this.#host.hasHeard()) log.notice(`waiting for ${named(where, kind)}`)
    }, WAITING_MS)
  }

  /** Why the peer does not answer, if that was reported since it last answered, and recently. */
  get problem(): PeerProblem | undefined {
    return this.#isExplained() ? this.#error : undefined
  }

  /** A recent error has told the reader more than "no answer" does. */
  #isExplained(): boolean {
    return this.#host.clock.monotonic() - this.#errorAt < EXPLAINS_MS
  }

  /**
   * Pings are not answered. Logged once, until one is.
   * @param pings number of pings that were lost
   * @param age ms since the last datagram, undefined if there was none
   */
  silent(pinged: SocketAddress, kind: PeerKind, pings: number, age: number | undefined): void {
    const { clock, log } = this.#host
    this.silentAt = clock.monotonic()
    const isKnown = this.#silent !== undefined
    this.#silent = kind
    if (isKnown) return
    this.#endWaiting()
    this.#outageAt ??= this.silentAt - (age ?? 0)
    // it may have been heard before it answered a ping
    if (age !== undefined && this.#connected === '') {
      this.#connected = formatAddress(pinged)
      this.#connectedKind = kind
    }
    if (this.#isExplained()) return
    log.warning(
      `no answer from ${formatAddress(pinged)}${pings === 1 ? '' : ` to ${pings} pings`}: ` +
        `the ${kind} is down or unreachable, or its key or method differs`,
    )
  }

  /**
   * A ping was answered after `ms`.
   * @returns whether that ends an outage, or a wait for something that was not there at the start
   */
  answered(by: SocketAddress, kind: PeerKind, ms: number): boolean {
    const { clock, log } = this.#host
    const where = formatAddress(by)
    const isNew = where !== this.#connected
    const since = this.#outageAt
    // a peer that came back at another address was away all the same
    const isBack = since !== undefined && kind === this.#connectedKind
    this.#endWaiting()
    clock.clearTimer(this.#retry)
    this.#retry = undefined
    this.#retryMs = PING_FIRST_MS
    this.#silent = this.#outageAt = undefined
    this.#connected = where
    this.#connectedKind = kind
    this.#errors = 0
    this.#errorLoggedAt = this.#errorAt = Number.NEGATIVE_INFINITY
    if (!isNew && since === undefined) return false
    const outage = isBack ? `, after ${roundDuration(clock.monotonic() - since)} without an answer` : ''
    log.write(LOG_NOTICE, `connected: ${named(where, kind)} answers in ${roundDuration(ms)}${outage}`)
    return since !== undefined
  }

  /** The rendezvous server answers a client that has no peer yet. */
  searching(service: string): void {
    const { clock, log } = this.#host
    this.#searching ??= clock.setTimer(() => {
      if (this.#silent !== undefined) {
        this.#searching = undefined
        return
      }
      log.warning(
        `rendezvous: the service ${JSON.stringify(service)} does not answer: its server is not started, or the NATs do ` +
          'not let both meet; "doctor" finds out which',
      )
    }, SEARCHING_MS)
  }

  /** A client has found its peer. */
  found(): void {
    this.#host.clock.clearTimer(this.#searching)
    this.#searching = undefined
  }

  /** ICMP or the routing reports that `peer` cannot be reached. */
  unreachable(peer: SocketAddress, error: SystemError): void {
    const { clock, log } = this.#host
    const now = clock.monotonic()
    if (this.#errorAt === Number.NEGATIVE_INFINITY) this.#errorsSince = now
    this.#errorAt = now
    this.#outageAt ??= now
    this.#errors++
    const code = codeOf(error)
    const isRefused = code === 'ECONNREFUSED'
    const isFirewall = code === 'EPERM' || code === 'EACCES'
    const kind = isRefused ? 'refused' : isFirewall ? 'firewall' : 'unreachable'
    if (this.#error?.kind !== kind || this.#error.text !== error.message) this.#error = { kind, text: error.message }
    if (isRefused) this.#retryLater(now)
    if (now - this.#errorLoggedAt < ERROR_LOG_MS) return
    this.#errorLoggedAt = now
    const why = isFirewall ? `a firewall of this machine refuses the packets (${code})` : error.message
    const what = isRefused ? 'refuses: no server listens on that UDP port' : `cannot be reached: ${why}`
    const times = this.#errors === 1 ? '' : `, ${this.#errors} times since the last line`
    log.write(LOG_WARNING, `${formatAddress(peer)} ${what}; retrying${times}`)
    this.#errors = 0
  }

  #retryLater(now: number): void {
    if (this.#retry !== undefined) return
    const pause = now - this.#errorsSince < REFUSED_LONG_MS ? this.#retryMs : PING_LONG_MS
    this.#retryMs = Math.min(2 * this.#retryMs, PING_LAST_MS)
    this.#retry = this.#host.clock.setTimer(() => {
      this.#retry = undefined
      this.#host.ping()
    }, pause)
  }

  #endWaiting(): void {
    this.#host.clock.clearTimer(this.#waiting)
    this.#waiting = undefined
  }

  close(): void {
    this.#endWaiting()
    this.#host.clock.clearTimer(this.#retry)
    this.#retry = undefined
    this.found()
  }
}
