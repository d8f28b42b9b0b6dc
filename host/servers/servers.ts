/**
 * A client with several servers: one endpoint for each (member.ts), and in front of them the TCP port, the choice of the
 * server of each new connection (chooser.ts), and their common statistics. A session stays at its server.
 */

import type { Config } from '../config/config.ts'
import { keepFixed } from '../config/diff.ts'
import { modeName } from '../config/rules.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import type { UdpEntrance } from '../datagrams/ends.ts'
import { Admission, type AdmissionHost } from '../driver/admission.ts'
import { NO_HOST_COUNTERS } from '../driver/diagnostics.ts'
import type { Driver } from '../driver/driver.ts'
import { type EndpointHooks, startEndpoint } from '../endpoint/endpoint.ts'
import { ListenPort } from '../endpoint/listen-port.ts'
import { adopting, TcpSettings, type WorkerSocket } from '../endpoint/tcp-settings.ts'
import { type RateParts, RateShare, type RateUse, sumRateUse } from '../engine/rate-share.ts'
import { EndpointSecret } from '../engine/secret.ts'
import type { Log } from '../log/log.ts'
import type { Monitoring } from '../monitoring/monitoring.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, Timer } from '../runtime.ts'
import { Retry } from '../transport/retry.ts'
import { ChangeLog } from './change-log.ts'
import { Chooser } from './chooser.ts'
import { Member, partOf, serversOf } from './member.ts'
import { ServersMonitor } from './monitor.ts'

/** Interval of the checks, ms, and after how many of them servers are pinged that need it. */
const LOOK_MS = 1000
const PING_LOOKS = 10
/**
 * At the start, a connection waits until a server answers, at most so long, and with failover for the first one in the
 * list a moment longer than for others, ms.
 */
const FIRST_ANSWER_MS = 1000
const PREFERRED_ANSWER_MS = 250
/** Slots of the nonce base for the engines of each server; after them a new base is drawn. */
const MEMBER_SLOTS = 16

export class ServerGroup implements AdmissionHost {
  readonly runtime: Runtime
  readonly monitor: ServersMonitor
  /** Resolves with the error when an engine has trapped repeatedly. Everything is already closed then. */
  readonly failed: Promise<Error>
  /** Called by POST /reload. */
  onReloadRequest: ReloadRequest | undefined
  /** Called when `status` changes. */
  onStatus: (status: string) => void = () => {}
  /** Called often while something passes. */
  onActive: (() => void) | undefined
  readonly #log: Log
  readonly #crypto: RuntimeCrypto
  readonly #worker: WorkerSocket | undefined
  readonly #hooks: EndpointHooks
  readonly #secret: EndpointSecret
  readonly #tcp: TcpSettings
  readonly #chooser: Chooser<Member>
  readonly #admission: Admission
  readonly #http: Retry
  readonly #rates: RateShare
  #config: Config
  /** In the order of the configuration, then those that leave it. */
  #members: readonly Member[] = []
  #listenPort: ListenPort | undefined
  /** With udp_listen, in place of it. */
  #entrance: UdpEntrance | undefined
  #monitoring: Monitoring | undefined
  #timer: Timer | undefined
  #looks = 0
  #startedAt = 0
  #status = ''
  readonly #changes: ChangeLog
  /** Of the port, beside those of the members. */
  readonly ownCounters = { ...NO_HOST_COUNTERS }
  #isOpen = false
  #isKept = true
  #closed = false
  /** When all servers were found to be silent, monotonic ms. */
  #silentAt = Number.NEGATIVE_INFINITY
  #fail: (error: Error) => void = () => {}

  constructor(
    runtime: Runtime,
    config: Config,
    log: Log,
    crypto: RuntimeCrypto,
    worker: WorkerSocket | undefined,
    hooks: EndpointHooks,
  ) {
    this.runtime = runtime
    this.#config = config
    this.#log = log
    this.#crypto = crypto
    this.#worker = worker
    this.#hooks = hooks
    this.#secret = new EndpointSecret(worker?.secret)
    this.#tcp = new TcpSettings(() => this.#config, log, worker)
    this.#chooser = new Chooser(config.strategy)
    this.#changes = new ChangeLog(log, runtime.clock)
    this.#admission = new Admission(this, () => this.#config.when_down !== 'hold' || this.#isFirstWait)
    this.failed = new Promise((resolve) => {
      this.#fail = resolve
    })
    this.#http = new Retry(
      runtime.clock,
      log,
      () => this.#openMonitoring(),
      () => this.#tellStatus(),
    )
    this.#rates = new RateShare(
      runtime.clock,
      () => this.#members.map(({ endpoint }) => endpoint),
      () => this.#config.rate,
    )
    this.monitor = new ServersMonitor(runtime, this)
  }

  get config(): Config {
    return this.#config
  }

  get tcp(): SocketAddress | undefined {
    return this.#listenPort?.local
  }

  get listening(): string | undefined {
    return this.#listenPort?.place
  }

  get datagrams(): SocketAddress | undefined {
    return this.#entrance?.local
  }

  get http(): SocketAddress | undefined {
    return this.#monitoring?.local
  }

  get #port(): ListenPort | UdpEntrance | undefined {
    return this.#listenPort ?? this.#entrance
  }

  /** What is retried, for people; empty: nothing. */
  get status(): string {
    const own = [this.#port?.failure, this.#http.failure]
    const all = [...own, ...this.#members.map(({ endpoint }) => endpoint.status)]
    return [...new Set(all.filter((text) => text !== undefined && text !== ''))].join('; ')
  }

  /** Why no traffic is possible yet: the port, or every server waits for something. */
  get waiting(): string | undefined {
    const all = this.#members.map(({ endpoint }) => endpoint.waiting)
    const common = all.every((text) => text !== undefined) ? all[0] : undefined
    return this.#port?.failure ?? common ?? this.#http.failure
  }

  get members(): readonly Member[] {
    return this.#members
  }

  /** The server that the next session goes to. */
  get current(): Member {
    const found = this.#chooser.current(this.#staying, this.runtime.clock.monotonic()) ?? this.#members[0]
    if (found === undefined) throw new Error('there is no server')
    return found
  }

  isUsed(member: Member): boolean {
    if (this.#chooser.strategy !== 'round_robin') return member === this.current
    return !member.isLeaving && (member.health.state === 'up' || !this.#isAnyUp)
  }

  get driver(): Driver {
    return this.current.endpoint.driver
  }

  get drivers(): readonly Driver[] {
    return this.#members.map(({ endpoint }) => endpoint.driver)
  }

  get isPeerDown(): boolean {
    return this.#admission.isLimiting
  }

  get silentAt(): number {
    return this.#silentAt
  }

  readonly peerLog = ((group: ServerGroup) => ({
    get isSilent(): boolean {
      return group.#isFirstWait || (!group.#isAnyUp && group.#config.when_down !== 'hold')
    },
    get silentAt(): number {
      return group.#silentAt
    },
  }))(this)

  readonly streams = ((group: ServerGroup) => ({
    get held() {
      return group.driver.streams.held
    },
    accept: (connection: TcpConnection) => group.#open(connection),
  }))(this)

  get diagnostics(): Driver['diagnostics'] {
    return this.driver.diagnostics
  }

  get dead(): boolean {
    return this.#closed
  }

  receivedAge(): number | undefined {
    const ages = this.#members.map(({ endpoint }) => endpoint.driver.receivedAge()).filter((age) => age !== undefined)
    return ages.length === 0 ? undefined : Math.min(...ages)
  }

  pingPeer(): void {
    for (const { endpoint } of this.#members) endpoint.driver.pingPeer()
  }

  rateUse(): RateUse {
    return sumRateUse(this.#members.map(({ endpoint }) => endpoint.rateUse()))
  }

  shareRate(parts: RateParts): void {
    this.#rates.parts = parts
  }

  /** Opens a session for a connection at the server that is chosen, or lets it wait. */
  readonly accept = (connection: TcpConnection): TcpHandlers | null => {
    this.#look()
    return this.#admission.accept(connection)
  }

  #open(connection: TcpConnection): TcpHandlers | null {
    const member = this.#chooser.choose(this.#staying, this.runtime.clock.monotonic())
    const handlers = member?.endpoint.driver.accept(connection) ?? null
    if (handlers !== null) member?.onOpened()
    return handlers
  }

  get #staying(): readonly Member[] {
    return this.#members.filter(({ isLeaving }) => !isLeaving)
  }

  get #isAnyUp(): boolean {
    return this.#members.some(({ health, isLeaving }) => health.state === 'up' && !isLeaving)
  }

  /** Nothing is known about any server yet: another one than the first may answer in a moment. */
  get #isFirstWait(): boolean {
    const age = this.runtime.clock.monotonic() - this.#startedAt
    if (age >= FIRST_ANSWER_MS) return false
    const isPreferredUnknown = this.#config.strategy === 'failover' && this.#members[0]?.health.state === 'checking'
    return !this.#isAnyUp || (isPreferredUnknown && age < PREFERRED_ANSWER_MS)
  }

  /**
   * Opens the TCP port, the monitoring server and an endpoint for each server. Call it once.
   * @throws ConfigError, or StartError naming the failed step; everything is closed then
   */
  async open(): Promise<void> {
    const config = this.#config
    try {
      this.#members = await this.#startAll(serversOf(config), config)
      this.#startedAt = this.#silentAt = this.runtime.clock.monotonic()
      this.#changes.begin(this.current.name)
      this.#isOpen = true
      this.#rates.reset()
      if (config.listen !== undefined) this.#listenPort = this.#makeListenPort(config)
      await this.#listenPort?.open(config)
      if (config.udp_listen !== undefined) await this.#openDatagrams()
      await this.#http.start()
      this.#timer = this.runtime.clock.setTimer(this.#onTimer, PREFERRED_ANSWER_MS)
      if (this.#worker === undefined) this.#log.notice(`${modeName(config.mode)} start`)
      this.#look()
    } catch (error) {
      this.close()
      throw error
    }
  }

  /**
   * Applies a configuration of the same mode, completely or not at all. Servers that are not in it any more get no new
   * sessions and are closed after the last one.
   * @throws ConfigError, StartError, or the error of a socket that cannot be opened; nothing is changed then
   */
  async reload(fresh: Config): Promise<void> {
    const before = this.#config
    const { config, kept } = keepFixed(before, fresh)
    const names = serversOf(config)
    const known = new Map(this.#members.map((member) => [member.name, member]))
    const added = await this.#startAll(
      names.filter((name) => !known.has(name)),
      config,
    )
    try {
      await this.#port?.reload(config)
      await this.#reloadAll(config)
    } catch (error) {
      await this.#port?.reload(before).catch(() => {})
      for (const { endpoint } of added) endpoint.close()
      throw error
    }
    for (const member of added) known.set(member.name, member)
    const staying = names.map((name) => known.get(name)).filter((member) => member !== undefined)
    const leaving = this.#members.filter((member) => !staying.includes(member))
    for (const member of staying) member.isLeaving = false
    for (const member of leaving) {
      if (!member.isLeaving) this.#log.notice(`server ${member.name} is removed: it gets no new connections`)
      member.isLeaving = true
    }
    this.#config = config
    this.#members = [...staying, ...leaving]
    this.#chooser.strategy = config.strategy
    this.#rates.reset()
    for (const member of added) {
      this.#log.notice(`server ${member.name} is added`)
      await this.monitor.added(member)
    }
    this.#monitoring?.reload(config)
    this.#look()
    await this.#changes.reloaded(this.runtime, { before, config, kept })
  }

  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    for (const { endpoint } of this.#members) endpoint.keepAlive(isKept)
  }

  close(): void {
    this.#closed = true
    this.runtime.clock.clearTimer(this.#timer)
    this.#admission.reset()
    this.#port?.close()
    this.#http.close()
    this.#monitoring?.close()
    this.#rates.close()
    for (const { endpoint } of this.#members) endpoint.close()
    this.#secret.wipe()
  }

  /** Starts an endpoint for each name. @throws the first error; none is left open then */
  async #startAll(names: readonly string[], config: Config): Promise<readonly Member[]> {
    const started = await Promise.allSettled(names.map((name) => this.#start(name, config)))
    const members = started.filter((result) => result.status === 'fulfilled').map(({ value }) => value)
    const failure = started.find((result) => result.status === 'rejected')
    if (failure === undefined && !this.#closed) return members
    for (const { endpoint } of members) endpoint.close()
    throw failure?.reason ?? new Error('closed')
  }

  async #start(name: string, config: Config): Promise<Member> {
    let member: Member | undefined
    const endpoint = await startEndpoint(this.runtime, partOf(config, name), this.#log, this.#crypto, undefined, {
      ...this.#hooks,
      part: this.#secret.part(MEMBER_SLOTS),
      onPeerState: () => {
        member?.onPeerState()
        this.#look()
        this.#hooks.onPeerState?.()
      },
    })
    endpoint.onStatus = () => this.#tellStatus()
    endpoint.onActive = () => {
      this.#rates.wake()
      this.onActive?.()
    }
    if (!this.#isKept) endpoint.keepAlive(false)
    member = new Member(name, endpoint, this.runtime.clock)
    member.onPeerState()
    void endpoint.failed.then((error) => {
      this.close()
      this.#fail(error)
    })
    return member
  }

  /** Gives every server a configuration. @throws the first error; all have the previous one then */
  async #reloadAll(config: Config): Promise<void> {
    const done: Member[] = []
    try {
      for (const member of this.#members) {
        await member.endpoint.reload(partOf(config, member.name))
        done.push(member)
      }
    } catch (error) {
      for (const { endpoint, name } of done) await endpoint.reload(partOf(this.#config, name)).catch(() => {})
      throw error
    }
  }

  readonly #onTimer = (): void => {
    this.#timer = this.runtime.clock.setTimer(this.#onTimer, LOOK_MS)
    this.#looks++
    const isAll = this.#config.strategy === 'least_rtt'
    for (const member of this.#members) {
      if (this.#looks % PING_LOOKS === 0 && (isAll || member.health.state === 'down')) member.endpoint.monitor.ping()
      if (member.isLeaving && member.isEmpty) this.#end(member)
    }
    this.#look()
  }

  #end(member: Member): void {
    this.#log.notice(`server ${member.name}: the last connection has ended`)
    this.monitor.ending(member)
    this.#members = this.#members.filter((other) => other !== member)
    this.#rates.reset()
    member.endpoint.close()
  }

  /** Finds out which servers answer, and logs what has changed. */
  #look(): void {
    // members are not complete before the start
    if (this.#closed || !this.#isOpen) return
    const { clock } = this.runtime
    for (const member of this.#members) {
      const { since, state: before } = member.health
      const now = clock.monotonic()
      if (member.look()) this.#changes.state(member, before === 'checking' ? undefined : now - since, this.#isAnyUp)
    }
    if (this.#isAnyUp) this.#silentAt = clock.monotonic()
    if (this.#chooser.strategy !== 'round_robin' && !this.#isFirstWait) {
      this.#changes.used(this.current.name, this.#chooser.strategy)
    }
    this.#admission.onPeerState()
    this.#listenPort?.setOpen(this.#config.when_down !== 'close' || this.#isAnyUp || this.#isFirstWait)
  }

  #makeListenPort(config: Config): ListenPort {
    return new ListenPort(
      {
        runtime: this.runtime,
        log: this.#log,
        tcp: (number) => this.#tcp.options(number),
        bound: this.#worker?.addresses.map(formatAddress),
        held: this.driver.streams.held,
        counters: this.ownCounters,
        accept: this.accept,
        onAcceptError: (error) => this.diagnostics.acceptError(error),
        onChange: () => this.#tellStatus(),
      },
      config,
    )
  }

  async #openDatagrams(): Promise<void> {
    const { openDatagrams } = await import('../datagrams/ends.ts')
    const ends = await openDatagrams(
      {
        runtime: this.runtime,
        log: this.#log,
        counters: this.ownCounters,
        socketOptions: (number) => adopting(undefined, this.#worker, number),
        bound: this.#worker?.addresses.map(formatAddress),
        accept: this.accept,
        onChange: () => this.#tellStatus(),
      },
      () => this.#config,
    )
    this.#entrance = ends.entrance
    if (this.#closed) this.close()
  }

  async #openMonitoring(): Promise<void> {
    if (this.#config.http_listen === undefined) return
    await this.monitor.record()
    const { openMonitoring } = await import('../monitoring/monitoring.ts')
    const monitoring = await openMonitoring(this.runtime, this.#config, this.#log, this.monitor, {
      reload: (by) => this.onReloadRequest?.(by),
    })
    if (this.#closed) monitoring?.close()
    else this.#monitoring = monitoring
  }

  #tellStatus(): void {
    const { status } = this
    if (this.#closed || status === this.#status) return
    this.#status = status
    this.onStatus(status)
  }
}
