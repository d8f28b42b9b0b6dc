/**
 * Problems of one endpoint, counted and logged at a limited rate: datagrams that do not open,
 * replays, errors of the UDP socket, refused and failed TCP connections, a peer that does not answer (protocol.md 10.6).
 *
 * Nothing here ends a session or runs for valid datagrams. There is no timer: a count is logged at the next event
 * after its minute, and what is left at the end.
 */

import { COUNTERS, type Core, type CounterName } from '../engine/core.ts'
import type { SystemError } from '../errors.ts'
import { LOG_DEBUG, LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'

/** Least time between two lines of one counter, ms. */
const TALLY_MS = 60_000
/** Accept errors with less than this between them are one row, ms (protocol.md 12, accept back-off). */
const ACCEPT_ROW_MS = 500

/** Counters of the host, beside those of the engine; the names are those of /stats.json. */
export interface HostCounters {
  tcp_accepted: number
  tcp_refused: number
  tcp_accept_errors: number
  tcp_dials: number
  tcp_dial_failures: number
  /** The socket buffer or the interface queue was full (ENOBUFS, EAGAIN). */
  udp_full: number
  /** A datagram was longer than the network takes (EMSGSIZE). */
  udp_too_long: number
  /** ICMP or routing reported that the peer is unreachable. */
  udp_unreachable: number
  udp_other_errors: number
  /** Each reset all streams, and a fresh engine took over. */
  engine_traps: number
}
export type HostCounterName = keyof HostCounters

/** Host counters before anything happened. */
export const NO_HOST_COUNTERS: Readonly<HostCounters> = {
  tcp_accepted: 0,
  tcp_refused: 0,
  tcp_accept_errors: 0,
  tcp_dials: 0,
  tcp_dial_failures: 0,
  udp_full: 0,
  udp_too_long: 0,
  udp_unreachable: 0,
  udp_other_errors: 0,
  engine_traps: 0,
}

/** What a UDP error means for sending. */
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

/** Events of one kind since the last line about them. */
class RateLimitedCounter {
  readonly #log: Log
  readonly #level: number
  readonly #what: string
  readonly #hint: string
  #count = 0
  #source = ''
  #toldAt = Number.NEGATIVE_INFINITY

  /** Lines read `N packets <what> from <source><hint>`. */
  constructor(log: Log, level: number, what: string, hint: string) {
    this.#log = log
    this.#level = level
    this.#what = what
    this.#hint = hint
  }

  add(count: number, source: SocketAddress | undefined, now: number): void {
    this.#count += count
    if (now - this.#toldAt < TALLY_MS) {
      // a flood must not cost text; one address is kept for the line
      if (this.#source === '' && source !== undefined) this.#source = formatAddress(source)
      return
    }
    if (source !== undefined) this.#source = formatAddress(source)
    this.#toldAt = now
    this.tell()
  }

  /** The line about what is left. */
  tell(): void {
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
  readonly #auth: RateLimitedCounter
  readonly #replay: RateLimitedCounter
  readonly #malformed: RateLimitedCounter
  /** Counters as last looked at: their lower words, which is enough for differences. */
  readonly #seen = new Map<CounterName, number>()
  readonly #sealed: boolean
  #tooLongTold = false
  #silent = false
  #acceptFailing = false
  #acceptErrorAt = Number.NEGATIVE_INFINITY

  /**
   * @param sealed whether there is a method
   * @param clock monotonic ms
   */
  constructor(core: Core, log: Log, sealed: boolean, clock: () => number) {
    this.#core = core
    this.#log = log
    this.#clock = clock
    this.#sealed = sealed
    this.#auth = new RateLimitedCounter(log, LOG_WARNING, 'failed authentication', ' (wrong key or method?)')
    this.#replay = new RateLimitedCounter(log, LOG_DEBUG, 'were replays,', '')
    this.#malformed = sealed
      ? new RateLimitedCounter(log, LOG_DEBUG, 'could not be parsed', '')
      : new RateLimitedCounter(log, LOG_WARNING, 'could not be parsed', ' (method set at the other end only?)')
  }

  /** Another engine is in use, whose counters begin at 0. */
  engineReplaced(core: Core): void {
    this.#core = core
    this.#seen.clear()
  }

  /**
   * A batch was taken by the engine, and not all of it accepted.
   * @param failed source of the last datagram that did not open
   * @param last source of the last datagram
   */
  dropped(failed: SocketAddress | undefined, last: SocketAddress | undefined): void {
    this.#count(this.#auth, 'drop_auth', failed ?? last)
    // what is too short to be sealed was not: the other end has no method
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

  /** How much a counter has grown since it was looked at. */
  #grown(name: CounterName): number {
    const value = this.#core.u32[(this.#core.statsPtr >>> 2) + 2 * COUNTERS.indexOf(name)] ?? 0
    const before = this.#seen.get(name) ?? 0
    if (value === before) return 0
    this.#seen.set(name, value)
    return (value - before) >>> 0
  }

  /** An error of the UDP socket: never a verdict on sessions. `longest`: bytes of the longest datagram so far. */
  udpError(error: SystemError, longest: number): UdpVerdict {
    const code = error.code ?? ''
    const { counters } = this
    if (FULL.has(code)) {
      counters.udp_full++
      this.#log.limited('udp full', LOG_DEBUG, () => `udp: ${error.message}, sending pauses a moment`)
      return 'back off'
    }
    if (code === 'EMSGSIZE') {
      counters.udp_too_long++
      if (!this.#tooLongTold) {
        this.#tooLongTold = true
        this.#log.warning(
          `udp: ${error.message}: the network does not take datagrams of ${longest} bytes, lower kcp.mtu at both ends`,
        )
      }
      return 'go on'
    }
    if (UNREACHABLE.has(code)) counters.udp_unreachable++
    else counters.udp_other_errors++
    this.#log.limited('udp', LOG_WARNING, () => `udp: ${error.message}`)
    return 'go on'
  }

  /** There is a new UDP socket: perhaps on another network. */
  udpOpened(): void {
    this.#tooLongTold = false
  }

  /** The peer was silent for so long that the engine wants names resolved. Told once, until it answers. */
  silent(peer: SocketAddress | undefined): void {
    const pings = Number(this.#core.counter('peer_silent_pings'))
    if (peer === undefined || pings === 0 || this.#silent) return
    this.#silent = true
    this.#log.warning(
      `no answer from ${formatAddress(peer)} to ${pings === 1 ? 'a ping' : `${pings} pings`}: ` +
        'the other end is down or unreachable, or its key or method differs',
    )
  }

  /** The peer answered a ping. */
  answered(): void {
    if (!this.#silent) return
    this.#silent = false
    this.#log.notice('the peer answers again')
  }

  /** A TCP connection was taken. */
  accepted(): void {
    this.counters.tcp_accepted++
    if (!this.#acceptFailing || this.#clock() - this.#acceptErrorAt < ACCEPT_ROW_MS) return
    this.#acceptFailing = false
    this.#log.notice('tcp accept: works again')
  }

  /** The system could not accept a TCP connection (EMFILE, ENFILE, ENOBUFS, ...). Told once for each row of them. */
  acceptError(error: SystemError): void {
    this.counters.tcp_accept_errors++
    this.#acceptErrorAt = this.#clock()
    if (this.#acceptFailing) return
    this.#acceptFailing = true
    this.#log.warning(`tcp accept: ${error.message}`)
  }

  /** A TCP connection got no session. */
  refused(reason: string): void {
    this.counters.tcp_refused++
    this.#log.limited('refused', LOG_WARNING, () => `TCP connection refused: ${reason}`)
  }

  /** What was counted since the last lines. */
  close(): void {
    this.#auth.tell()
    this.#replay.tell()
    this.#malformed.tell()
  }
}
