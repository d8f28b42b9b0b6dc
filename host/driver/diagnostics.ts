/**
 * Counts and logs the problems of one endpoint at a limited rate: authentication failures, replays, UDP socket errors,
 * refused and failed TCP connections (protocol.md 10.6). What concerns the peer is in peer-log.ts.
 *
 * Nothing here terminates a session or runs for valid datagrams. There is no timer: a count is logged at the first
 * event after its minute has passed, and the remainder when the endpoint closes.
 */

import { COUNTERS, type Core, type CounterName } from '../engine/core.ts'
import type { SystemError } from '../errors.ts'
import { LOG_DEBUG, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { PeerLog } from './peer-log.ts'

/** Minimum interval between two log lines of one counter, ms. */
const LOG_INTERVAL_MS = 60_000
/** Accept errors less than this apart belong to one series, ms (protocol.md 12, accept back-off). */
const ACCEPT_SERIES_MS = 500

/** Counters kept by the host in addition to those of the engine; named as in /stats.json. */
export interface HostCounters {
  tcp_accepted: number
  tcp_refused: number
  tcp_accept_errors: number
  tcp_dials: number
  tcp_dial_failures: number
  /** Requests to a proxy that are refused: by a rule, for want of credentials, or because they are no such requests. */
  proxy_denied: number
  proxy_auth_failures: number
  proxy_bad_requests: number
  /** Connections without a valid PROXY header where one is required. */
  proxy_header_errors: number
  /** The socket buffer or the interface queue was full (ENOBUFS, EAGAIN). */
  udp_full: number
  /** A datagram exceeded the MTU (EMSGSIZE). */
  udp_too_long: number
  /** ICMP or routing reported that the peer is unreachable. */
  udp_unreachable: number
  udp_other_errors: number
  /** Several keys: datagrams for which none was searched, because that is limited (key-ring.ts). */
  key_searches_dropped: number
  /** Each trap resets all streams and replaces the engine. */
  engine_traps: number
  /** UDP forwarding: flows that are open now, were opened, and were refused with their datagram. */
  flows: number
  flows_opened: number
  flows_refused: number
  /** Datagrams of applications or targets, and to them. */
  flow_datagrams_in: number
  flow_datagrams_out: number
  /** Waited too long, or found no room. */
  flow_drops_queue: number
  /** The system did not send them, or nobody took them. */
  flow_drops_send: number
  /** The stream ended within the datagram. */
  flow_drops_cut: number
}
export type HostCounterName = keyof HostCounters

/** Initial values of the host counters. */
export const NO_HOST_COUNTERS: Readonly<HostCounters> = {
  tcp_accepted: 0,
  tcp_refused: 0,
  tcp_accept_errors: 0,
  tcp_dials: 0,
  tcp_dial_failures: 0,
  proxy_denied: 0,
  proxy_auth_failures: 0,
  proxy_bad_requests: 0,
  proxy_header_errors: 0,
  udp_full: 0,
  udp_too_long: 0,
  udp_unreachable: 0,
  udp_other_errors: 0,
  key_searches_dropped: 0,
  engine_traps: 0,
  flows: 0,
  flows_opened: 0,
  flows_refused: 0,
  flow_datagrams_in: 0,
  flow_datagrams_out: 0,
  flow_drops_queue: 0,
  flow_drops_send: 0,
  flow_drops_cut: 0,
}

/** Whether to pause transmission after a UDP error. */
export type UdpVerdict = 'back off' | 'go on'

const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'ENETDOWN',
  'EHOSTDOWN',
  'EADDRNOTAVAIL',
  'EPERM',
  'EACCES',
])
const FULL = new Set(['ENOBUFS', 'EAGAIN', 'EWOULDBLOCK', 'ENOMEM'])

/** Counts events of one kind and logs the count at most once per LOG_INTERVAL_MS. */
class RateLimitedCounter {
  readonly #log: Log
  readonly #level: number
  readonly #what: string
  readonly #hint: string
  #count = 0
  #source = ''
  #reportedAt = Number.NEGATIVE_INFINITY

  /** Lines have the form `N packets <what> from <source><hint>`. */
  constructor(log: Log, level: number, what: string, hint: string) {
    this.#log = log
    this.#level = level
    this.#what = what
    this.#hint = hint
  }

  add(count: number, source: SocketAddress | undefined, now: number): void {
    this.#count += count
    if (now - this.#reportedAt < LOG_INTERVAL_MS) {
      // no formatting for each packet of a flood; one address is kept for the log line
      if (this.#source === '' && source !== undefined) this.#source = formatAddress(source)
      return
    }
    if (source !== undefined) this.#source = formatAddress(source)
    this.#reportedAt = now
    this.report()
  }

  /** Logs the events counted since the last report, if any. */
  report(): void {
    if (this.#count === 0) return
    const packets = this.#count === 1 ? '1 packet' : `${this.#count} packets`
    this.#log.write(this.#level, `${packets} ${this.#what} from ${this.#source || 'an unknown source'}${this.#hint}`)
    this.#count = 0
    this.#source = ''
  }
}

/** The diagnostics of one driver. */
export class Diagnostics {
  readonly counters: HostCounters = { ...NO_HOST_COUNTERS }
  #core: Core
  readonly #log: Log
  readonly #clock: () => number
  readonly #peerLog: PeerLog
  readonly #auth: RateLimitedCounter
  readonly #replay: RateLimitedCounter
  readonly #malformed: RateLimitedCounter
  /** Last seen values of the engine's counters: the low words, which suffice for differences. */
  readonly #seen = new Map<CounterName, number>()
  readonly #sealed: boolean
  #tooLongReported = false
  /** What the application's side opens, for the log. */
  noun = 'TCP connection'
  /** Why the last refused connection was refused. */
  refusal = ''
  #acceptFailing = false
  #acceptErrorAt = Number.NEGATIVE_INFINITY

  /**
   * @param sealed whether `method` is set
   * @param clock monotonic ms
   * @param peerLog is told what ICMP reports of the peer
   */
  constructor(core: Core, log: Log, sealed: boolean, clock: () => number, peerLog: PeerLog) {
    this.#peerLog = peerLog
    this.#core = core
    this.#log = log
    this.#clock = clock
    this.#sealed = sealed
    this.#auth = new RateLimitedCounter(log, LOG_WARNING, 'failed authentication', ' (wrong key or method?)')
    this.#replay = new RateLimitedCounter(log, LOG_DEBUG, 'rejected as replays', '')
    this.#malformed = sealed
      ? new RateLimitedCounter(log, LOG_DEBUG, 'could not be parsed', '')
      : new RateLimitedCounter(log, LOG_WARNING, 'could not be parsed', ' (method set on the peer only?)')
  }

  /** Switches to a replacement engine, whose counters start at 0. */
  engineReplaced(core: Core): void {
    this.#core = core
    this.#seen.clear()
  }

  /**
   * Called when the engine rejected part of a batch.
   * @param failed source of the last datagram that failed authentication
   * @param last source of the last datagram
   */
  dropped(failed: SocketAddress | undefined, last: SocketAddress | undefined): void {
    this.#count(this.#auth, 'drop_auth', failed ?? last)
    // a datagram too short to be sealed comes from a peer without method
    this.#count(this.#sealed ? this.#auth : this.#malformed, 'drop_short', failed ?? last)
    this.#count(this.#replay, 'drop_replay', last)
    this.#count(this.#malformed, 'drop_malformed', last)
    if (this.#grown('sessions_refused') > 0) {
      this.#log.limited('refused', LOG_WARNING, () => {
        const source = last === undefined ? '' : ` from ${formatAddress(last)}`
        return `session refused${source}: too many sessions, or out of memory (max_sessions, memory)`
      })
    }
  }

  #count(counter: RateLimitedCounter, name: CounterName, source: SocketAddress | undefined): void {
    const count = this.#grown(name)
    if (count > 0) counter.add(count, source, this.#clock())
  }

  /** @returns how much a counter of the engine has grown since the last call */
  #grown(name: CounterName): number {
    const value = this.#core.u32[(this.#core.statsPtr >>> 2) + 2 * COUNTERS.indexOf(name)] ?? 0
    const before = this.#seen.get(name) ?? 0
    if (value === before) return 0
    this.#seen.set(name, value)
    return (value - before) >>> 0
  }

  /** A socket gave up receiving merged datagrams. */
  mergedLost(): void {
    this.#log.warning(
      'datagrams that the kernel merges on arrival (UDP_GRO) are lost on this host, single ones arrive: receiving ' +
        'single ones for an hour; look for a firewall rule that matches the length of packets, or set udp.gro = off',
    )
  }

  /**
   * Counts and logs an error of the UDP socket. It never affects sessions.
   * @param longest length of the longest datagram sent so far, bytes
   * @param peer the only address that the socket sends to, if there is one
   */
  udpError(error: SystemError, longest: number, peer?: SocketAddress): UdpVerdict {
    const code = error.code ?? ''
    const { counters } = this
    if (FULL.has(code)) {
      counters.udp_full++
      this.#log.limited('udp full', LOG_DEBUG, () => `udp: ${error.message}; pausing transmission`)
      return 'back off'
    }
    if (code === 'EMSGSIZE') {
      counters.udp_too_long++
      if (!this.#tooLongReported) {
        this.#tooLongReported = true
        this.#log.warning(
          `udp: ${error.message}: the network rejects datagrams of ${longest} bytes; lower kcp.mtu on both endpoints`,
        )
      }
      return 'go on'
    }
    if (UNREACHABLE.has(code)) {
      counters.udp_unreachable++
      if (peer !== undefined) {
        this.#peerLog.unreachable(peer, error)
        return 'go on'
      }
    } else counters.udp_other_errors++
    this.#log.limited('udp', LOG_WARNING, () => `udp: ${error.message}`)
    return 'go on'
  }

  /** A new UDP socket is in use, possibly on another network. */
  udpOpened(): void {
    this.#tooLongReported = false
  }

  /** A TCP connection was accepted. */
  accepted(): void {
    this.counters.tcp_accepted++
    if (!this.#acceptFailing || this.#clock() - this.#acceptErrorAt < ACCEPT_SERIES_MS) return
    this.#acceptFailing = false
    this.#log.notice('tcp accept: recovered')
  }

  /** accept() failed (EMFILE, ENFILE, ENOBUFS, ...). Logged once per series. */
  acceptError(error: SystemError): void {
    this.counters.tcp_accept_errors++
    this.#acceptErrorAt = this.#clock()
    if (this.#acceptFailing) return
    this.#acceptFailing = true
    this.#log.warning(`tcp accept: ${error.message}`)
  }

  /** A TCP connection was refused because no session could be opened. */
  refused(reason: string): void {
    this.refusal = reason
    this.counters.tcp_refused++
    this.#log.limited('refused', LOG_WARNING, () => `${this.noun} refused: ${reason}`)
  }

  /** Logs what was counted since the last lines. */
  close(): void {
    this.#auth.report()
    this.#replay.report()
    this.#malformed.report()
  }
}
