/**
 * Watches the local network's side of the path to the peer. A connected socket is bound to the local address that the
 * system chose when it was connected; when that address is no longer the one towards the peer, the socket must be
 * opened again. Errors that the network reports are hints to check at once; what counts is what the check finds.
 */

import { codeOf, type SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Clock, Timer } from '../runtime.ts'
import { asSeenBy } from './rendezvous.ts'

/** While the peer is silent or unreachable the path is checked this often, ms. */
const CHECK_MS = 2000
/** The first check after an error of the network, ms. */
const HINT_MS = 200
/** A silent socket that reported errors is opened again at most this often, ms, though the path looks unchanged. */
const SUSPECT_MS = 10_000

/** Errors that say something about the local side of the path, not about the peer. */
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
  /** Where the socket is bound; undefined: there is none, or nothing to reach. */
  local(): SocketAddress | undefined
  /** Whether the system chooses the local IP of the socket. */
  isLocalFree(): boolean
  /** Whether the socket has one peer, and was opened for it. */
  isConnected(): boolean
  /** Whether the peer leaves pings unanswered. */
  isPeerSilent(): boolean
  /** The local address that the system uses towards the peer now; undefined: there is no route. */
  localTowardsPeer(): Promise<SocketAddress | undefined>
  /** Runs an action when those that change sockets before it are done. */
  inTurn(action: () => Promise<void>): Promise<void>
  /** Opens the socket again and has the peer pinged. @returns where it is bound */
  reconnect(): Promise<SocketAddress>
  /** An unconnected socket: a route exists, and `wasLost`: there was none before. */
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
  /** The socket reported errors of its path since it was opened. */
  #suspect = false
  /** An address that the system prefers, but the socket did not get though it was opened again (netdev). */
  #foreign = ''
  #closed = false

  constructor(host: PathHost, clock: Clock) {
    this.#host = host
    this.#clock = clock
  }

  /** Another socket is in use. */
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

  /** Checks the path after `delay` ms, and again while it is broken. */
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
    if (towards === undefined) return
    if (!host.isConnected()) {
      await host.onRoute(wasLost)
      return
    }
    const { address } = asSeenBy(local, towards)
    const moved = host.isLocalFree() && address !== local.address && address !== this.#foreign
    const stuck = this.#suspect && host.isPeerSilent() && this.#clock.monotonic() - this.#openedAt >= SUSPECT_MS
    if (!wasLost && !moved && !stuck) return
    const taken = await host.reconnect()
    this.#foreign = taken.address === address ? '' : address
  }
}
