/**
 * Port hopping: a client whose `kcp_connect` names a range of ports sends to another one of them every `hop_interval`,
 * and at once when nothing is answered any more, each time from a fresh local socket. A middlebox that blocks or
 * throttles a flow after a while sees one that is new.
 *
 * For the engine the peer has one address, that of the first port: every socket is connected to one port, and what it
 * receives is passed on as if it came from there. So nothing changes for the sessions of this end; those of the server
 * follow by validation (docs/validation.md, "Migration"), for which each of them is asked for an answer. Until that is
 * done the server sends to the previous socket, which is kept for a while.
 */

import type { Driver } from '../driver/driver.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type PortRange, type SocketAddress } from '../net/address.ts'
import type { Clock, Runtime, Timer, UdpHandlers, UdpOptions, UdpSocket } from '../runtime.ts'

/** Interval of the checks, ms. */
const LOOK_MS = 500
/** The interval varies by this part to either side. */
const JITTER = 0.25
/** A previous socket receives for so long, ms. */
const KEEP_MS = 10_000
/** Maximum number of these. */
const KEPT_MAX = 4
/** A hop that is due waits for sessions that are still opening, at most so long, ms. */
const OPENING_MS = 2000
/** What was sent is unanswered for this time, ms, or so many round trips: the server is pinged, then the path counts as dead. */
const SILENT_MS = 1000
const SILENT_RTTS = 4
/** Pause between hops of a dead path, ms; doubles up to the longest while nothing arrives. */
const DEAD_MS = 1000
const DEAD_LONGEST_MS = 30_000
/** If so many sessions end within this time of a hop, ms, the server does not follow. */
const LOST_MS = 5000

export interface PortHopHost {
  readonly driver: Driver
  readonly log: Log
  readonly clock: Clock
  /** The ports, and s between hops; undefined: there is nothing to choose. */
  range(): PortRange | undefined
  interval(): number
  /** Runs an action after all earlier actions that change sockets. */
  inTurn(action: () => Promise<void>): Promise<void>
  /** Options of the socket in use, but for its ports. */
  wanted(): UdpOptions
  /** Sends from a new socket; the one in use is left open. */
  replace(options: UdpOptions): Promise<void>
  onHopped(): void
}

export class PortHop {
  readonly #host: PortHopHost
  /** The remote port in use; 0 before the first. */
  #port = 0
  #timer: Timer | undefined
  #dueAt = 0
  #isHopping = false
  /** Previous sockets, and until when they receive, monotonic ms. */
  readonly #kept: { readonly socket: UdpSocket; readonly until: number }[] = []
  /** When something was received last, and the count of datagrams sent until then; since when what was sent is unanswered. */
  #heardAt = Number.NEGATIVE_INFINITY
  #silentAt: number | undefined
  #sent = 0n
  #isAsked = false
  #deadPause = DEAD_MS
  #deadAt = Number.NEGATIVE_INFINITY
  /** Sessions, and those aborted so far, at the last hop. */
  #before = { sessions: 0, aborted: 0n, at: Number.NEGATIVE_INFINITY }
  #isLossReported = false

  constructor(host: PortHopHost) {
    this.#host = host
  }

  /** The options of a socket to the port in use: a random one at first, the only one without a range. */
  options<Options extends UdpOptions>(options: Options): Options {
    const range = this.#host.range()
    if (range === undefined || options.connect === undefined) {
      this.#port = 0
      return options
    }
    if (this.#port < range.first || this.#port > range.last) this.#port = this.#draw(range)
    return { ...options, connect: { ...options.connect, port: this.#port } }
  }

  /** Whether the socket in use is connected to a port that does not belong to this range. */
  isAstray(range: PortRange | undefined): boolean {
    if (range === undefined) return this.#port !== 0
    return this.#port < range.first || this.#port > range.last
  }

  /** Opens sockets whose datagrams come from the peer's one address. */
  through(runtime: Pick<Runtime, 'openUdp'>): Pick<Runtime, 'openUdp'> {
    return { openUdp: (options, handlers) => runtime.openUdp(options, this.#handlers(options, handlers)) }
  }

  #handlers(options: UdpOptions, handlers: UdpHandlers): UdpHandlers {
    const range = this.#host.range()
    if (range === undefined || options.connect === undefined) return handlers
    const peer: SocketAddress = { ...options.connect, port: range.first }
    return {
      onDatagram: (data) => handlers.onDatagram(data, peer),
      onBatchEnd: () => handlers.onBatchEnd(),
      onWritable: () => handlers.onWritable(),
      onError: (error) => handlers.onError(error),
      onMergedLost: () => handlers.onMergedLost?.(),
    }
  }

  /** The address in use of a peer. */
  where(peer: SocketAddress | undefined): SocketAddress | undefined {
    return peer === undefined || this.#port === 0 ? peer : { ...peer, port: this.#port }
  }

  /** Hops from now on, if there is a range; or not any more. */
  follow(): void {
    const { clock } = this.#host
    if (this.#host.range() === undefined) this.close()
    else if (this.#timer === undefined) {
      this.#dueAt = this.#drawDue()
      this.#timer = clock.setTimer(this.#onTimer, LOOK_MS)
    }
  }

  close(): void {
    this.#host.clock.clearTimer(this.#timer)
    this.#timer = undefined
    while (this.#kept.length > 0) this.#drop()
  }

  #drop(): void {
    this.#host.driver.sockets.remove(this.#kept.shift()?.socket)
  }

  /** Another port, which nobody can guess. */
  #draw({ first, last }: PortRange): number {
    const count = last - first + 1
    // the remainder of 2^32 favours some ports by less than 1 in 2^16
    const [random = 0] = crypto.getRandomValues(new Uint32Array(1))
    const isInside = this.#port >= first && this.#port <= last
    if (!isInside) return first + (random % count)
    const port = first + (random % (count - 1))
    return port < this.#port ? port : port + 1
  }

  #drawDue(): number {
    const [random = 0] = crypto.getRandomValues(new Uint32Array(1))
    const factor = 1 - JITTER + (2 * JITTER * random) / 2 ** 32
    return this.#host.clock.monotonic() + this.#host.interval() * 1000 * factor
  }

  readonly #onTimer = (): void => {
    const { clock } = this.#host
    this.#timer = clock.setTimer(this.#onTimer, LOOK_MS)
    const now = clock.monotonic()
    while ((this.#kept[0]?.until ?? now + 1) <= now) this.#drop()
    this.#watchLosses(now)
    if (this.#isHopping || this.#host.driver.sockets.sender === undefined) return
    if (this.#isDead(now)) this.#hop(true)
    else if (now >= this.#dueAt && (!this.#isOpening || now >= this.#dueAt + OPENING_MS)) this.#hop(false)
  }

  get #isOpening(): boolean {
    return this.#count('sessions_connect') > 0n
  }

  /** Whether something was sent and nothing is answered, not even a ping. */
  #isDead(now: number): boolean {
    const { driver } = this.#host
    const age = driver.receivedAge() ?? Number.POSITIVE_INFINITY
    const sent = this.#count('pkt_sent')
    const limit = Math.max(SILENT_MS, SILENT_RTTS * (driver.pongRtt ?? 0))
    // an age has whole milliseconds
    if (now - age > this.#heardAt + 2) {
      this.#heardAt = now - age
      this.#silentAt = undefined
      this.#isAsked = false
      this.#sent = sent
      this.#deadPause = DEAD_MS
    }
    if (age < limit || sent === this.#sent) return false
    this.#silentAt ??= now
    if (!this.#isAsked) {
      this.#isAsked = true
      driver.pingPeer()
      return false
    }
    if (now - this.#silentAt < limit || now - this.#deadAt < this.#deadPause) return false
    this.#deadAt = now
    this.#deadPause = Math.min(2 * this.#deadPause, DEAD_LONGEST_MS)
    return true
  }

  #hop(isDead: boolean): void {
    const { log, driver, clock } = this.#host
    const before = this.#port
    this.#isHopping = true
    this.#host
      .inTurn(async () => {
        if (this.#timer === undefined) return
        await this.#open()
        const { sender } = driver.sockets
        const to = `port ${this.#port}, from ${sender === undefined ? 'no socket' : formatAddress(sender.local)}`
        if (isDead) log.notice(`udp hop: no answer at port ${before}: to ${to}`)
        else log.info(`udp hop: to ${to}`)
        this.#before = {
          sessions: driver.streams.size,
          aborted: this.#count('sessions_aborted'),
          at: clock.monotonic(),
        }
        // the server follows sessions that send something
        driver.probeSessions()
      })
      .catch((error) => log.debug(`udp hop: ${messageOf(error)}`))
      .finally(() => {
        this.#isHopping = false
        this.#silentAt = undefined
        this.#isAsked = false
        this.#dueAt = this.#drawDue()
      })
  }

  /** Sends from another port of this host to another one of the peer. The socket in use goes on receiving for a while. */
  async #open(): Promise<void> {
    const { driver, clock } = this.#host
    const range = this.#host.range()
    if (range === undefined) return
    const before = { port: this.#port, socket: driver.sockets.sender }
    this.#port = this.#draw(range)
    const options = this.options(this.#host.wanted())
    try {
      await this.#host.replace({ ...options, bind: { ...options.bind, port: 0 } })
    } catch (error) {
      this.#port = before.port
      throw error
    }
    if (before.socket !== undefined) this.#kept.push({ socket: before.socket, until: clock.monotonic() + KEEP_MS })
    while (this.#kept.length > KEPT_MAX) this.#drop()
    this.#host.onHopped()
  }

  /** kcptun-libev does not follow a client to another port; nothing else shows what the server is. */
  #watchLosses(now: number): void {
    const { sessions, aborted, at } = this.#before
    if (this.#isLossReported || sessions === 0 || now - at > LOST_MS) return
    const lost = this.#count('sessions_aborted') - aborted
    if (lost === 0n || 2n * lost < BigInt(sessions)) return
    this.#isLossReported = true
    this.#host.log.warning(
      `${lost} of ${sessions} connections ended when the port changed: the server does not follow its clients to other ` +
        'ports (kcptun-libev, or workers there); name one port in kcp_connect',
    )
  }

  #count(name: 'sessions_connect' | 'pkt_sent' | 'sessions_aborted'): bigint {
    return this.#host.driver.read((core) => core.counter(name), 0n)
  }
}
