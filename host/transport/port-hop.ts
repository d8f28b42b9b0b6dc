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
import { Info } from '../engine/abi.ts'
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
/**
 * After a hop: answers to what was sent before have arrived; sessions that were active and get none until then, although
 * pings are answered, show that the server does not follow; end of the watch, ms.
 */
const SETTLED_MS = 1000
const STUCK_MS = 3000
const WATCH_MS = 5000
/** Hops in a row without effect after which there are no more regular ones. */
const STUCK_HOPS = 2

interface Kept {
  readonly socket: UdpSocket
  readonly options: UdpOptions | undefined
  readonly port: number
  /** How long it receives, monotonic ms. */
  readonly until: number
}

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
  /** A socket that was used before sends again. */
  adopted(options: UdpOptions, port: number): void
  onHopped(): void
}

export class PortHop {
  readonly #host: PortHopHost
  /** The remote port in use; 0 before the first. */
  #port = 0
  /** The one that was heard from last; 0: none. */
  #answered = 0
  #timer: Timer | undefined
  #dueAt = 0
  #isHopping = false
  /** Options of the socket in use. */
  #options: UdpOptions | undefined
  /** Previous sockets. */
  #kept: Kept[] = []
  /** When the server answered last, and the count of datagrams sent until then; since when what was sent is unanswered. */
  #heardAt = Number.NEGATIVE_INFINITY
  #silentAt: number | undefined
  #sent = 0n
  /** What showed then that the server gets what is sent, and the count of segments that arrived again. */
  #progress = 0n
  #again = 0n
  #isAsked = false
  #deadPause = DEAD_MS
  #deadAt = Number.NEGATIVE_INFINITY
  /** At the last hop: whether sessions were active, when, and the counts when that had settled. */
  #before = { isActive: false, at: Number.NEGATIVE_INFINITY, arrived: -1n, datagrams: 0n, sessions: 0, aborted: 0n }
  /** Bytes of applications that were moved until the last look. */
  #moved = 0n
  #activeAt = Number.NEGATIVE_INFINITY
  /** Hops in a row that the server did not follow. */
  #stuck = 0

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
    if (this.#port < range.first || this.#port > range.last) {
      this.#port = this.#draw(range)
      // another server, or one that was changed
      this.#stuck = 0
    }
    const result = { ...options, connect: { ...options.connect, port: this.#port } }
    this.#options = result
    return result
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
    const { port } = options.connect
    const peer: SocketAddress = { ...options.connect, port: range.first }
    return {
      onDatagram: (data) => {
        this.#answered = port
        handlers.onDatagram(data, peer)
      },
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
    while (this.#kept.length > 0 && (this.#kept[0]?.until ?? 0) <= now) this.#drop()
    this.#watch(now)
    if (this.#isHopping || this.#host.driver.sockets.sender === undefined) return
    if (this.#isDead(now)) this.#hop(true)
    else if (this.#stuck < STUCK_HOPS && now >= this.#dueAt && (!this.#isOpening || now >= this.#dueAt + OPENING_MS))
      this.#hop(false)
  }

  get #isOpening(): boolean {
    return this.#count('sessions_connect') > 0n
  }

  /** Whether something was sent and nothing is answered, not even a ping. */
  #isDead(now: number): boolean {
    const { driver } = this.#host
    const heardAt = now - (driver.receivedAge() ?? Number.POSITIVE_INFINITY)
    const sent = this.#count('pkt_sent')
    const progress = this.#count('acks_received') + this.#count('pongs_received') + this.#count('tcp_written_bytes')
    const again = this.#count('segments_duplicate')
    // while nothing arrives there, the server goes on sending what it has not got acknowledged
    const isStalled = again !== this.#again || this.#count('waitsnd') > 0n
    // an age has whole milliseconds
    if (progress !== this.#progress || (!isStalled && heardAt > this.#heardAt + 2)) {
      this.#heardAt = progress === this.#progress ? heardAt : now
      this.#progress = progress
      this.#again = again
      this.#silentAt = undefined
      this.#isAsked = false
      this.#sent = sent
      this.#deadPause = DEAD_MS
    }
    const limit = Math.max(SILENT_MS, SILENT_RTTS * (driver.pongRtt ?? 0))
    if (now - this.#heardAt < limit || sent === this.#sent) return false
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
        await this.#open(isDead)
        const { sender } = driver.sockets
        const to = `port ${this.#port}, from ${sender === undefined ? 'no socket' : formatAddress(sender.local)}`
        if (isDead) log.notice(`udp hop: no answer at port ${before}: to ${to}`)
        else log.info(`udp hop: to ${to}`)
        const now = clock.monotonic()
        // a dead path has shown nothing about the server
        const isActive = !isDead && now - this.#activeAt < 2 * LOOK_MS
        const aborted = this.#count('sessions_aborted')
        this.#before = { isActive, at: now, arrived: -1n, datagrams: 0n, sessions: driver.streams.size, aborted }
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

  /**
   * Sends from another port of this host to another one of the peer: where the one in use has never answered, to the last
   * one that did, as many may be blocked. The socket in use goes on receiving for a while.
   */
  async #open(isDead: boolean): Promise<void> {
    const { driver, clock } = this.#host
    const range = this.#host.range()
    if (range === undefined) return
    const before = { port: this.#port, socket: driver.sockets.sender, options: this.#options }
    const isKnown = isDead && this.#answered >= range.first && this.#answered <= range.last
    this.#port = isKnown && this.#answered !== before.port ? this.#answered : this.#draw(range)
    const wanted = this.options(this.#host.wanted())
    try {
      await this.#host.replace({ ...wanted, bind: { ...wanted.bind, port: 0 } })
    } catch (error) {
      this.#port = before.port
      this.#options = before.options
      throw error
    }
    const until = clock.monotonic() + KEEP_MS
    if (before.socket !== undefined) this.#kept.push({ ...before, socket: before.socket, until })
    while (this.#kept.length > KEPT_MAX) this.#drop()
    this.#host.onHopped()
  }

  /** kcptun-libev does not follow a client to another port; nothing else shows what the server is. */
  #watch(now: number): void {
    const moved = this.#count('tcp_read_bytes') + this.#count('tcp_written_bytes')
    if (moved !== this.#moved) this.#activeAt = now
    this.#moved = moved
    const { at, isActive } = this.#before
    const age = now - at
    if (!isActive) return
    const lost = this.#count('sessions_aborted') - this.#before.aborted
    if (lost > 0n && 2n * lost >= BigInt(this.#before.sessions)) {
      this.#before.isActive = false
      this.#stuck++
      this.#goBack()
      return
    }
    if (age < SETTLED_MS) return
    // an application may go on writing what the server does not get
    const arrived = this.#count('acks_received') + this.#count('tcp_written_bytes')
    if (this.#before.arrived < 0n) {
      this.#before.arrived = arrived
      this.#before.datagrams = this.#count('pkt_received')
      this.#host.driver.pingPeer()
      return
    }
    if (arrived !== this.#before.arrived || age > WATCH_MS) {
      if (arrived !== this.#before.arrived) this.#stuck = 0
      this.#before.isActive = false
      return
    }
    const isAnswered = this.#count('pkt_received') > this.#before.datagrams
    if (age < STUCK_MS || !isAnswered || !this.#isWaiting) return
    this.#before.isActive = false
    this.#stuck++
    this.#goBack()
  }

  /** Whether a session waits for the server, and not for an application there that does not read. */
  get #isWaiting(): boolean {
    if (this.#count('waitsnd') === 0n) return false
    const { driver } = this.#host
    return driver.read((core) => {
      for (let slot = 0, slots = core.calls.session_slots(); slot < slots; slot++) {
        if (core.calls.session_info(slot, driver.now()) <= 0) continue
        const info = core.info()
        if (info.getUint32(Info.waitsnd, true) > 0 && info.getUint32(Info.rmtWnd, true) > 0) return true
      }
      return false
    }, false)
  }

  /** The server answers, but not the sessions: it knows them at the previous port only, which still receives. */
  #goBack(): void {
    const { driver, log } = this.#host
    if (this.#stuck === STUCK_HOPS) {
      log.warning(
        'connections end or stand still when the port changes: the server does not follow its clients to other ports (kcptun-libev, ' +
          'or workers there). The port is kept while it is answered; name one port in kcp_connect',
      )
    }
    void this.#host.inTurn(async () => {
      const previous = this.#kept.pop()
      const socket = driver.sockets.sender
      if (previous?.options === undefined || socket === undefined || this.#timer === undefined) return
      const until = this.#host.clock.monotonic() + KEEP_MS
      this.#kept.push({ socket, options: this.#options, port: this.#port, until })
      driver.sockets.send(previous.socket, previous.options.connect)
      this.#host.adopted(previous.options, previous.socket.local.port)
      this.#options = previous.options
      this.#port = previous.port
      log.notice(`udp hop: back to port ${this.#port}, because connections ended or stood still`)
      driver.probeSessions()
    })
  }

  #count(
    name:
      | 'sessions_connect'
      | 'pkt_sent'
      | 'pkt_received'
      | 'sessions_aborted'
      | 'acks_received'
      | 'pongs_received'
      | 'segments_duplicate'
      | 'tcp_read_bytes'
      | 'tcp_written_bytes'
      | 'waitsnd',
  ): bigint {
    return this.#host.driver.read((core) => core.counter(name), 0n)
  }
}
