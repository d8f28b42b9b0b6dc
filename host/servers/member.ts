/** One of several servers: the endpoint that holds the sessions with it, and whether it answers. */

import type { Config } from '../config/config.ts'
import type { Endpoint } from '../endpoint/endpoint.ts'
import type { ServerStatus } from '../monitoring/source.ts'
import { formatAddress } from '../net/address.ts'
import type { Clock } from '../runtime.ts'
import { ServerHealth } from './health.ts'

/** A new session without an answer for this time has the server pinged, and then counts as a sign that it is down, ms. */
const ASK_MS = 1000
const UNANSWERED_MS = 2500
/** On a slow path the latter is so many round trips. */
const UNANSWERED_RTTS = 4

export class Member {
  /** As in the configuration. */
  readonly name: string
  readonly endpoint: Endpoint
  readonly health: ServerHealth
  /** It is not in the configuration any more, and stays until its last session has ended. */
  isLeaving = false
  readonly #clock: Clock
  /** When a session was opened since the last datagram of the server, monotonic ms. */
  #openedAt: number | undefined
  #isPinged = false

  constructor(name: string, endpoint: Endpoint, clock: Clock) {
    this.name = name
    this.endpoint = endpoint
    this.#clock = clock
    this.health = new ServerHealth(clock.monotonic())
  }

  /** A session was opened. */
  onOpened(): void {
    if (this.#openedAt !== undefined) return
    this.#openedAt = this.#clock.monotonic()
    this.#isPinged = false
  }

  /** The server answered a ping, or pings are unanswered. */
  onPeerState(): void {
    const { pongRtt, peerLog } = this.endpoint.driver
    if (pongRtt !== undefined && !peerLog.isSilent) this.health.sample(pongRtt)
  }

  /**
   * Finds out whether the server answers.
   * @returns whether that changed
   */
  look(): boolean {
    const now = this.#clock.monotonic()
    const { driver } = this.endpoint
    const age = driver.receivedAge()
    const hasHeardSince = (time: number): boolean => age !== undefined && age < now - time
    const { isSilent, silentAt, problem } = driver.peerLog
    if (this.#openedAt !== undefined && hasHeardSince(this.#openedAt)) this.#openedAt = undefined
    if ((isSilent && !hasHeardSince(silentAt)) || problem !== undefined || this.#isUnanswered(now)) {
      return this.health.set('down', now)
    }
    // what it sent before it was down does not show that it is up
    const isBack = this.health.state === 'down'
    const isUp = isBack ? hasHeardSince(this.health.since) : age !== undefined
    // what it answers first may be a ping of long ago, which is not its round trip time
    if (isBack && isUp) driver.pingPeer()
    return isUp && this.health.set('up', now)
  }

  #isUnanswered(now: number): boolean {
    if (this.#openedAt === undefined) return false
    const waited = now - this.#openedAt
    if (waited >= ASK_MS && !this.#isPinged) {
      this.#isPinged = true
      this.endpoint.driver.pingPeer()
    }
    return waited >= Math.max(UNANSWERED_MS, UNANSWERED_RTTS * (this.health.rtt ?? 0))
  }

  /** Whether nothing is lost when it is closed. */
  get isEmpty(): boolean {
    return this.#count('sessions_connect', 'sessions_established', 'sessions_linger') === 0
  }

  /** @param isUsed whether new sessions go there */
  status(isUsed: boolean): ServerStatus {
    const { state, since, rtt } = this.health
    const { peer } = this.endpoint.driver
    return {
      server: this.name,
      address: peer === undefined ? null : formatAddress(peer),
      state: this.isLeaving ? 'leaving' : state,
      since_seconds: Math.round((this.#clock.monotonic() - since) / 1000),
      rtt_ms: rtt ?? null,
      sessions: this.#count('sessions_connect', 'sessions_established'),
      used: isUsed,
    }
  }

  #count(...names: readonly ('sessions_connect' | 'sessions_established' | 'sessions_linger')[]): number {
    return this.endpoint.driver.read((core) => names.reduce((sum, name) => sum + Number(core.counter(name)), 0), 0)
  }
}

/** The servers of a configuration, in the order of preference. */
export const serversOf = ({ servers, kcp_connect }: Config): readonly string[] =>
  servers.length > 0 ? servers : [kcp_connect ?? '']

/** The configuration of the endpoint for one server: ports, and what becomes of connections, are the group's. */
export const partOf = (config: Config, server: string): Config => ({
  ...config,
  kcp_connect: server,
  servers: [],
  listen: undefined,
  udp_listen: undefined,
  http_listen: undefined,
  when_down: 'hold',
})
