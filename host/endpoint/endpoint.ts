/**
 * A running client, server or rendezvous server: sets up configuration, key, engine, sockets and monitoring in the
 * order of protocol.md 10.4, and applies reloads (10.5). It owns what outlives a trapped engine: secret, sockets,
 * totals. The loop around the engine is in driver/, the sockets towards the peer are in transport/.
 */

import { StartError } from '../errors.ts'
import type { Transport, TransportOptions } from '../transport/transport.ts'
import { UdpTransport } from '../transport/udp.ts'

export { StartError } from '../errors.ts'

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { keepFixed } from '../config/diff.ts'
import { configWarnings, modeName } from '../config/rules.ts'
import { assertStartable } from '../config/security.ts'
import { socketOptionsOf } from '../config/socket-options.ts'
import { methods } from '../crypto/methods.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import type { UdpEntrance, UdpExit } from '../datagrams/ends.ts'
import { Driver } from '../driver/driver.ts'
import type { KeyRing } from '../driver/key-ring.ts'
import type { Dial, Dialling } from '../driver/stream.ts'
import { instantiateHere } from '../engine/address-space.ts'
import { Core } from '../engine/core.ts'
import { Engine } from '../engine/engine.ts'
import type { RateParts, RateUse } from '../engine/rate-share.ts'
import { EndpointSecret, type SecretPart } from '../engine/secret.ts'
import { watchSystem } from '../linux/system-watch.ts'
import type { Log } from '../log/log.ts'
import type { Monitoring } from '../monitoring/monitoring.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, SocketOptions, TcpConnection, TcpHandlers, Watch } from '../runtime.ts'
import { ObfsClient } from '../transport/obfs/client.ts'
import { ObfsServer } from '../transport/obfs/server.ts'
import { ipv6Warnings } from '../transport/resolver.ts'
import { Retry } from '../transport/retry.ts'
import { KeySet, openKeys } from './key-set.ts'
import { ListenPort } from './listen-port.ts'
import { EndpointMonitor } from './monitor.ts'
import { ServerTarget } from './server-target.ts'
import { adopting, TcpSettings, type WorkerSocket } from './tcp-settings.ts'

export type { WorkerSocket } from './tcp-settings.ts'

/** What an owner in the same process replaces, or is notified of. */
export interface EndpointHooks {
  /** One of several endpoints of a configuration (host/servers): its part of their secret. Their owner logs the start. */
  readonly part?: SecretPart
  /** Server: opens the application's end of a session of this peer, in place of a connection to `connect`. */
  dial?(dialling: Dialling, peer: SocketAddress | undefined): Dial
  /** Makes the transport, in place of UDP. */
  makeTransport?(options: TransportOptions): Transport
  /** Client: the peer became silent or answered. */
  onPeerState?(): void
  /** A session follows its peer to another address. */
  onMigrated?(peer: SocketAddress | undefined): void
}

/** A running endpoint, from startEndpoint. */
export class Endpoint {
  readonly driver: Driver
  /** For the monitoring server, in this or another process. */
  readonly monitor: EndpointMonitor
  /** Resolves with the error when the engine has trapped repeatedly. Everything is already closed then. */
  readonly failed: Promise<Error>
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #keys: KeySet
  readonly #worker: WorkerSocket | undefined
  readonly #hooks: EndpointHooks
  readonly #client: boolean
  readonly #tcp: TcpSettings
  /** Socket options by configuration, cached so that an option that could not be set is logged once. */
  readonly #udpSockets = new WeakMap<Config, SocketOptions>()
  #config: Config
  #transport: Transport | undefined
  #systemWatch: Watch | undefined
  #listenPort: ListenPort | undefined
  #target: ServerTarget | undefined
  /** With udp_listen or udp_connect, in place of these. */
  #entrance: UdpEntrance | undefined
  #exit: UdpExit | undefined
  #monitoring: Monitoring | undefined
  readonly #http: Retry
  #status = ''
  #closed = false
  /** Called by POST /reload. */
  onReloadRequest: ReloadRequest | undefined
  /** Called when `status` changes. */
  onStatus: (status: string) => void = () => {}
  #started = false
  #isKept = true
  #failure: Error | undefined
  #fail: (error: Error) => void = () => {}

  /**
   * @param keys undefined: no method
   * @param worker set if this endpoint is a worker
   */
  constructor(
    runtime: Runtime,
    config: Config,
    log: Log,
    keys: KeyRing | undefined,
    crypto: RuntimeCrypto,
    worker: WorkerSocket | undefined,
    hooks: EndpointHooks = {},
  ) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#worker = worker
    this.#hooks = hooks
    this.#client = (config.mode & MODE_CLIENT) !== 0
    this.#tcp = new TcpSettings(() => this.#config, log, this.#client ? worker : undefined)
    this.failed = new Promise((resolve) => {
      this.#fail = resolve
    })
    this.#http = new Retry(
      runtime.clock,
      log,
      () => this.#openMonitoring(),
      () => this.#tellStatus(),
    )
    this.driver = this.#makeDriver(keys)
    this.#keys = new KeySet(this.driver, config, crypto, runtime.clock, log)
    this.monitor = new EndpointMonitor(runtime, this)
  }

  /** Client: the TCP address that applications connect to. */
  get tcp(): SocketAddress | undefined {
    return this.#listenPort?.local
  }

  /** Client: the same, or the Unix socket, for people. */
  get listening(): string | undefined {
    return this.#listenPort?.place
  }

  /** Client: the UDP address that applications send to. */
  get datagrams(): SocketAddress | undefined {
    return this.#entrance?.local
  }

  /** Local address of the UDP socket. @throws Error while there is none */
  get udp(): SocketAddress {
    const { sender } = this.driver.sockets
    if (sender === undefined) throw new Error('the UDP socket is not open')
    return sender.local
  }

  /** What is retried, for people: sockets that are not open, names without address; empty: nothing. */
  get status(): string {
    return this.#failures.join('; ')
  }

  /** Why no traffic is possible yet, as `key: reason`; undefined if there is no such reason. */
  get waiting(): string | undefined {
    return this.#failures[0]
  }

  get #failures(): string[] {
    const applications = [this.#listenPort ?? this.#entrance, this.#target ?? this.#exit].map((end) => end?.failure)
    return [applications[0], this.#transport?.waiting, applications[1], this.#http.failure].filter(
      (text) => text !== undefined,
    )
  }

  get http(): SocketAddress | undefined {
    return this.#monitoring?.local
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#config
  }

  get transport(): Transport | undefined {
    return this.#transport
  }

  /**
   * A server's worker sockets are its UDP sockets.
   * @param number of the address
   */
  #udpSocketOptions(config: Config, number = 0): SocketOptions | undefined {
    const options = this.#udpSockets.get(config) ?? socketOptionsOf('udp', config.udp, config, this.#log)
    if (options !== undefined) this.#udpSockets.set(config, options)
    return adopting(options, this.#client ? undefined : this.#worker, number)
  }

  /**
   * Opens sockets, monitoring and transport. What fails for a temporary reason is retried, see `status`. Call it once.
   * @throws ConfigError, or StartError naming the failed step; everything is closed then
   */
  async open(): Promise<void> {
    const config = this.#config
    const log = this.#log
    try {
      if (config.listen !== undefined) {
        this.#listenPort = this.#makeListenPort(config)
        await this.#listenPort.open(config)
      }
      if (config.connect !== undefined) {
        const onChange = (): void => this.#tellStatus()
        const { diagnostics, streams, sockets } = this.driver
        const host = { runtime: this.#runtime, log, tcp: this.#tcp.options(), counters: diagnostics.counters }
        this.#target = new ServerTarget({ ...host, held: streams.held, local: () => sockets.sender?.local }, onChange)
        await this.#target.open(config)
      }
      if ((config.udp_listen ?? config.udp_connect) !== undefined) await this.#openDatagrams()
      await this.#http.start()
      this.#transport = this.#makeTransport({
        runtime: this.#runtime,
        config,
        log,
        driver: this.driver,
        aead: this.driver.keys?.shape,
        socketOptions: (next, number) => this.#udpSocketOptions(next, number),
        bound: this.#client ? undefined : this.#worker?.addresses,
        onWaiting: () => this.#tellStatus(),
      })
      await this.#transport.open()
      this.#watchSystem()
      if (this.#failure !== undefined) throw this.#failure
      this.#started = true
      this.#followPeer()
      if (this.#worker === undefined && this.#hooks.part === undefined) log.notice(`${modeName(config.mode)} start`)
    } catch (error) {
      this.close()
      throw this.#failure === undefined ? error : new StartError(this.#failure.message)
    }
  }

  /**
   * Applies a configuration of the same mode, completely or not at all; open connections are kept (protocol.md 10.5).
   * Resolves after one attempt to resolve its names; a name that cannot be resolved is not an error.
   * @throws ConfigError, StartError, or the error of a socket that cannot be opened; nothing is changed then
   */
  async reload(fresh: Config): Promise<void> {
    const before = this.#config
    const { config, kept } = keepFixed(before, fresh)
    const keys = await this.#keys.open(config)
    const port = this.#listenPort ?? this.#entrance
    try {
      await port?.reload(config)
      try {
        await this.#transport?.reload(config)
      } catch (error) {
        await port?.reload(before)
        throw error
      }
    } catch (error) {
      this.#keys.discard(keys ?? [])
      throw error
    }
    this.#config = config
    if (keys !== undefined) this.#keys.apply(config, keys)
    await this.#target?.reload(config)
    await this.#exit?.reload(config)
    this.#watchSystem()
    this.#monitoring?.reload(config)
    this.#followPeer()
    for (const key of kept) this.#log.warning(`config key ${key}: the change needs a restart and is ignored`)
    const known = new Set([...configWarnings(before), ...(await ipv6Warnings(this.#runtime, before))])
    for (const text of [...configWarnings(config), ...(await ipv6Warnings(this.#runtime, config))])
      if (!known.has(text)) this.#log.warning(text)
  }

  /** Client: opens a session for a connection. @returns its handlers, or null to refuse it */
  accept(connection: TcpConnection): TcpHandlers | null {
    return this.driver.accept(connection)
  }

  get drivers(): readonly Driver[] {
    return [this.driver]
  }

  rateUse(): RateUse {
    return this.driver.rateUse()
  }

  shareRate(parts: RateParts): void {
    this.driver.shareRate(parts)
  }

  set onActive(callback: (() => void) | undefined) {
    this.driver.onActive = callback
  }

  get isPeerDown(): boolean {
    return this.driver.isPeerDown
  }

  get silentAt(): number {
    return this.driver.peerLog.silentAt
  }

  /** Whether it keeps the event loop alive, which it does by default. Its TCP ports always do. */
  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    this.driver.sockets.keepAlive(isKept)
    this.#systemWatch?.keepAlive?.(isKept)
  }

  /** Stops at once: TCP connections are reset, nothing is sent to the peer (protocol.md 6.8). */
  close(): void {
    this.#closed = true
    this.#systemWatch?.close()
    this.#keys.close()
    this.#transport?.close()
    this.#listenPort?.close()
    this.#target?.close()
    this.#entrance?.close()
    this.#exit?.close()
    this.#http.close()
    this.#monitoring?.close()
    this.driver.close()
  }

  /** Watches interfaces and the wall clock, unless the configuration uses no system calls otherwise. */
  #watchSystem(): void {
    const { os } = this.#runtime
    const { udp, netdev, fwmark, dscp, obfs } = this.#config
    const isNative = udp.path !== 'portable' || netdev !== undefined || fwmark + dscp > 0 || obfs !== undefined
    if (os === undefined || !isNative || this.#systemWatch !== undefined) return
    this.#systemWatch = watchSystem(os, {
      onInterfaces: () => {
        this.#transport?.onInterfaces()
        // a machine that resumes often changes its interfaces
        this.driver.clockStepped()
      },
      onClock: () => {
        this.driver.clockStepped()
        this.#keys.onClock()
      },
      onMissing: (what, reason) => this.#log.info(`${what} not watched: ${reason}`),
    })
    if (!this.#isKept) this.#systemWatch.keepAlive?.(false)
  }

  #makeDriver(keys: KeyRing | undefined): Driver {
    const runtime = this.#runtime
    const secret = new EndpointSecret(this.#hooks.part ?? this.#worker?.secret)
    const engine = new Engine(() => new Core(instantiateHere(runtime.os)), secret, runtime.clock)
    return new Driver({
      runtime,
      engine,
      keys,
      log: this.#log,
      dial: (dialling, handle) => this.#dial(dialling, handle),
      limitsAdmission: () => this.#config.when_down !== 'hold' && this.#config.keepalive > 0,
      onPeerState: () => {
        this.#followPeer()
        this.#hooks.onPeerState?.()
      },
      onMigrated: (handle) => this.#hooks.onMigrated?.(this.driver.peerOf(handle)),
      onResolve: () => this.#transport?.onResolve(),
      onProbed: () => this.#transport?.onProbed?.(),
      onPeerFound: (peer) => this.#transport?.onPeerFound(peer),
      onResume: () => this.#transport?.onResume(),
      onUdpError: (error) => this.#transport?.onUdpError(error),
      onObfsReady: (context) => this.#transport?.onObfsReady?.(context),
      onObfsEnded: (context) => this.#transport?.onObfsEnded?.(context),
      onTrap: (broken) => this.monitor.engineLost(broken),
      onEngineReplaced: () => this.#transport?.onEngineReplaced?.(),
      onFatal: (error) => {
        this.#failure = error
        this.close()
        this.#fail(error)
      },
    })
  }

  /** `when_down` close: opens or closes the TCP port. */
  #followPeer(): void {
    const { when_down, keepalive } = this.#config
    if (!this.#started || this.#listenPort === undefined) return
    const { driver } = this
    const isDown = driver.peerLog.isSilent || driver.peer === undefined
    this.#listenPort.setOpen(when_down !== 'close' || keepalive === 0 || !isDown)
  }

  #makeTransport(options: TransportOptions): Transport {
    if (this.#hooks.makeTransport !== undefined) return this.#hooks.makeTransport(options)
    if (options.config.obfs === undefined) return new UdpTransport(options)
    return this.#client ? new ObfsClient(options) : new ObfsServer(options)
  }

  #dial(dialling: Dialling, handle: number): Dial {
    if (this.#hooks.dial !== undefined) return this.#hooks.dial(dialling, this.driver.peerOf(handle))
    if (this.#exit !== undefined) return this.#exit.dial(dialling)
    if (this.#target === undefined) throw new Error('connect is not set')
    return this.#target.dial(
      dialling,
      () => this.driver.peerOf(handle),
      () => this.driver.userOf(handle),
    )
  }

  #makeListenPort(config: Config): ListenPort {
    return new ListenPort(
      {
        runtime: this.#runtime,
        log: this.#log,
        tcp: (number) => this.#tcp.options(number),
        bound: this.#worker?.addresses.map(formatAddress),
        held: this.driver.streams.held,
        counters: this.driver.diagnostics.counters,
        accept: (connection) => this.#accept(connection),
        onAcceptError: (error) => this.driver.diagnostics.acceptError(error),
        onChange: () => this.#tellStatus(),
      },
      config,
    )
  }

  /** Client: opens a session. */
  #accept(connection: TcpConnection): TcpHandlers | null {
    return this.#started ? this.driver.accept(connection) : null
  }

  async #openDatagrams(): Promise<void> {
    this.driver.diagnostics.noun = 'UDP flow'
    const { openDatagrams } = await import('../datagrams/ends.ts')
    const ends = await openDatagrams(
      {
        runtime: this.#runtime,
        log: this.#log,
        counters: this.driver.diagnostics.counters,
        socketOptions: (number) => adopting(undefined, this.#client ? this.#worker : undefined, number),
        bound: this.#client ? this.#worker?.addresses.map(formatAddress) : undefined,
        accept: (connection) => this.#accept(connection),
        onChange: () => this.#tellStatus(),
      },
      () => this.#config,
    )
    this.#entrance = ends.entrance
    this.#exit = ends.exit
    if (this.#closed) this.close()
  }

  /** Opens the monitoring server. The configuration may have been reloaded since the start. */
  async #openMonitoring(): Promise<void> {
    if (this.#config.http_listen === undefined) return
    await this.monitor.record()
    const { openMonitoring } = await import('../monitoring/monitoring.ts')
    const monitoring = await openMonitoring(this.#runtime, this.#config, this.#log, this.monitor, {
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

/**
 * Starts an endpoint.
 * @param crypto the runtime's ciphers
 * @param worker set if this endpoint is a worker: the first process logs what concerns all and serves `http_listen`
 * @param hooks for an owner that uses its streams directly
 * @throws ConfigError, or StartError naming the failed step; everything is closed then
 */
export async function startEndpoint(
  runtime: Runtime,
  config: Config,
  log: Log,
  crypto: RuntimeCrypto,
  worker?: WorkerSocket,
  hooks?: EndpointHooks,
): Promise<Endpoint> {
  assertStartable(config, methods)
  if (worker === undefined && hooks?.part === undefined) {
    for (const text of configWarnings(config)) log.warning(text)
    for (const text of await ipv6Warnings(runtime, config)) log.warning(text)
  }
  const keys = await openKeys(config, crypto, runtime.clock)
  if (keys !== undefined) log.info(`method: ${keys.shape.method}, ${keys.shape.provider}`)
  let endpoint: Endpoint
  try {
    endpoint = new Endpoint(runtime, config, log, keys, crypto, worker, hooks)
  } catch (error) {
    keys?.wipe()
    throw error
  }
  await endpoint.open()
  return endpoint
}
