/**
 * Monitors the local side of the path to the peer. A connected socket is bound to the source address that the kernel
 * selected at connect(); when the kernel would now select another one, the socket must be reopened. Socket errors only
 * trigger an immediate check; the result of the check decides.
 */

import { codeOf, type SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Clock, Timer } from '../runtime.ts'
import { asSeenBy } from './rendezvous.ts'

/** Check interval while the peer is unresponsive or unreachable, ms. */
const CHECK_MS = 2000
/** Delay of the first check after a socket error, ms. */
const HINT_MS = 200
/**
 * Minimum interval between reopens of a socket with errors and no answers while the path looks unchanged, ms; doubles
 * with each of them up to SUSPECT_LONGEST_MS, because it ends the search for another port or address (port-probe.ts).
 */
const SUSPECT_MS = 10_000
const SUSPECT_LONGEST_MS = 160_000

/** Errors caused by the local side of the path, not by the peer. */
const PATH_ERRORS: ReadonlySet<string> = new Set([
  'EADDRNOTAVAIL',
  'EHOSTUNREACH',
  'EINVAL',
  'ENETDOWN',
  'ENETUNREACH',
  'ENODEV',
  'EPERM',
])

export interface PathHost {
  /** Local address of the socket; undefined if there is no socket or no remote address. */
  local(): SocketAddress | undefined
  /** Whether the kernel selects the local IP of the socket. */
  isLocalFree(): boolean
  /** Whether the socket is connected to its peer. */
  isConnected(): boolean
  /** Whether pings to the peer are unanswered. */
  isPeerSilent(): boolean
  /** The source address that the kernel selects for the peer now; undefined if there is no route. */
  localTowardsPeer(): Promise<SocketAddress | undefined>
  /** Runs an action after all earlier actions that change sockets. */
  inTurn(action: () => Promise<void>): Promise<void>
  /** Reopens the socket and pings the peer. @returns the local address of the new socket */
  reconnect(): Promise<SocketAddress>
  /** The peer is silent although the local side of the path is as it was. */
  onSilence(): void
  /** The socket is unconnected and a route exists. `wasLost`: the previous check found none. */
  onRoute(wasLost: boolean): Promise<void>
  /** A check failed. */
  onFailure(error: unknown): void
}

export class PathMonitor {
  readonly #host: PathHost
  readonly #clock: Clock
  #timer: Timer | undefined
  #checking = false
  #checkedAt = Number.NEGATIVE_INFINITY
  #openedAt = 0
  /** The last check found no route to the peer. */
  #lost = false
  /** The socket has reported path errors since it was opened. */
  #suspect = false
  #suspectPause = SUSPECT_MS
  /** An address that the kernel selects but a reopened socket did not get (netdev). */
  #foreign = ''
  #closed = false

  constructor(host: PathHost, clock: Clock) {
    this.#host = host
    this.#clock = clock
  }

  /** A new socket is in use. */
  onOpened(): void {
    this.#openedAt = this.#clock.monotonic()
    this.#suspect = false
  }

  /** The socket reported an error. */
  onError(error: SystemError): void {
    if (!PATH_ERRORS.has(codeOf(error))) return
    this.#suspect = true
    this.checkIn(HINT_MS)
  }

  /** Checks the path after `delay` ms, and repeats the check while the path is broken. */
  checkIn(delay: number): void {
    if (this.#closed || this.#checking || this.#timer !== undefined) return
    const rest = this.#checkedAt + CHECK_MS - this.#clock.monotonic()
    this.#timer = this.#clock.setTimer(this.#onTimer, Math.max(delay, rest))
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimer(this.#timer)
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    this.#checking = true
    this.#host
      .inTurn(() => this.#check())
      .catch((error) => this.#host.onFailure(error))
      .finally(() => {
        this.#checking = false
        this.#checkedAt = this.#clock.monotonic()
        if (this.#lost || this.#host.isPeerSilent()) this.checkIn(CHECK_MS)
      })
  }

  async #check(): Promise<void> {
    const host = this.#host
    const local = host.local()
    if (this.#closed || local === undefined) return
    const towards = await host.localTowardsPeer()
    if (this.#closed) return
    const wasLost = this.#lost
    this.#lost = towards === undefined
    if (towards === undefined) {
      // another address of the peer's name may have a route
      if (host.isPeerSilent()) host.onSilence()
      return
    }
    if (!host.isConnected()) {
      await host.onRoute(wasLost)
      if (host.isPeerSilent()) host.onSilence()
      return
    }
    const { address } = asSeenBy(local, towards)
    const moved = host.isLocalFree() && address !== local.address && address !== this.#foreign
    const age = this.#clock.monotonic() - this.#openedAt
    if (age >= SUSPECT_LONGEST_MS) this.#suspectPause = SUSPECT_MS
    const stuck = this.#suspect && host.isPeerSilent() && age >= this.#suspectPause
    if (stuck) this.#suspectPause = Math.min(2 * this.#suspectPause, SUSPECT_LONGEST_MS)
    if (!wasLost && !moved && !stuck) {
      if (host.isPeerSilent()) host.onSilence()
      return
    }
    const taken = await host.reconnect()
    this.#foreign = taken.address === address ? '' : address
  }
}
