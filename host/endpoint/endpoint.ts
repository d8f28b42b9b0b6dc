/**
 * One running client, server or rendezvous server: puts configuration, names, key, engine, sockets and monitoring
 * together in the order of protocol.md 10.4, and takes over a changed configuration (10.5). It owns what outlives an
 * engine that trapped: secret, sockets, totals. The loop is driver.ts, the UDP socket's way through changing networks
 * follower.ts, the command line cli.ts.
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { checkServiceId } from '../config/mtu.ts'
import { configWarnings, modeName } from '../config/rules.ts'
import { assertStartable, checkStart } from '../config/security.ts'
import { socketOptionsOf } from '../config/socket-options.ts'
import type { Aead } from '../crypto/aead.ts'
import { withKey } from '../crypto/key.ts'
import { methods } from '../crypto/methods.ts'
import { openAead, type RuntimeCrypto } from '../crypto/open.ts'
import { Driver } from '../driver/driver.ts'
import { Core, instantiate } from '../engine/core.ts'
import { Engine } from '../engine/engine.ts'
import { EndpointSecret, type SecretPart } from '../engine/secret.ts'
import type { Log } from '../log/log.ts'
import { type Monitoring, openMonitoring } from '../monitoring/monitoring.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, SocketOptions, TcpListener, TcpOptions } from '../runtime.ts'
import { ObfsClient } from '../transport/obfs/client.ts'
import { ObfsServer } from '../transport/obfs/server.ts'
import { packetFamily, resolveKey, StartError, step } from '../transport/resolver.ts'
import type { Way } from '../transport/transport.ts'
import { Follower } from '../transport/udp.ts'
import { EndpointMonitor } from './monitor.ts'
import { keepFixed, needsOtherSocket } from './reload.ts'

export { StartError } from '../transport/resolver.ts'

/** What makes an endpoint one of several (workers.ts). */
export interface Share {
  /** The bound socket to serve, that of `listen` or of `kcp_bind`. */
  readonly socket: number
  /** Our part of the secret of all. */
  readonly secret: SecretPart
}

const NO_TUNING: SocketOptions = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '', refused() {} }

/** Socket options that bring the socket of a worker. */
const adopting = (socketOptions: SocketOptions | undefined, share: Share | undefined): SocketOptions | undefined =>
  share === undefined ? socketOptions : { ...NO_TUNING, ...socketOptions, fd: share.socket }

/** What connections get. Adapters read it at every dial and accept, so it is changed in place. */
const tcpOptionsOf = (config: Config, log: Log, share: Share | undefined): TcpOptions => ({
  nodelay: config.tcp.nodelay,
  keepalive: config.tcp.keepalive,
  socketOptions: adopting(socketOptionsOf('tcp', config.tcp, undefined, log), share),
})

/** A running endpoint, from startEndpoint. */
export class Endpoint {
  readonly driver: Driver
  /** For the monitoring server, here or in another process. */
  readonly monitor: EndpointMonitor
  /** Fulfilled with the error when the engine trapped again and again. Everything is closed by then. */
  readonly failed: Promise<Error>
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #aead: Aead | undefined
  readonly #share: Share | undefined
  readonly #client: boolean
  readonly #tcpOptions: TcpOptions
  #config: Config
  #udpSocketOptions: SocketOptions | undefined
  #way: Way | undefined
  #listener: TcpListener | undefined
  #monitoring: Monitoring | undefined
  #udp: SocketAddress | undefined
  #started = false
  #failure: Error | undefined
  #fail: (error: Error) => void = () => {}

  /**
   * @param aead undefined: no method
   * @param share the part of a worker
   */
  constructor(runtime: Runtime, config: Config, log: Log, aead: Aead | undefined, share: Share | undefined) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#aead = aead
    this.#share = share
    this.#client = (config.mode & MODE_CLIENT) !== 0
    this.#tcpOptions = tcpOptionsOf(config, log, this.#listens)
    this.#udpSocketOptions = socketOptionsOf('udp', config.udp, config.netdev, log)
    this.failed = new Promise((resolve) => {
      this.#fail = resolve
    })
    this.driver = this.#makeDriver()
    this.monitor = new EndpointMonitor(runtime, this)
  }

  /** Where applications connect to (client). */
  get tcp(): SocketAddress | undefined {
    return this.#listener?.local
  }

  /** Where the UDP socket was bound at the start. */
  get udp(): SocketAddress {
    if (this.#udp === undefined) throw new Error('not started')
    return this.#udp
  }

  get http(): SocketAddress | undefined {
    return this.#monitoring?.local
  }

  /** The configuration in force. */
  get config(): Config {
    return this.#config
  }

  get way(): Way | undefined {
    return this.#way
  }

  /** The share of a client is its TCP socket, that of others their UDP socket. */
  get #listens(): Share | undefined {
    return this.#client ? this.#share : undefined
  }

  /**
   * Opens everything. Once.
   * @throws ConfigError, or StartError naming the step that failed; nothing stays open then
   */
  async open(): Promise<void> {
    const config = this.#config
    const log = this.#log
    try {
      if (config.listen !== undefined) await this.#listen(config.listen)
      this.#monitoring = await openMonitoring(this.#runtime, config, log, this.monitor)
      const WayOf = config.obfs === undefined ? Follower : this.#client ? ObfsClient : ObfsServer
      this.#way = new WayOf(this.#runtime, config, log, this.driver, this.#aead)
      const { local } = await this.#way.open()
      this.#udp = local
      if (this.#failure !== undefined) throw this.#failure
      this.#started = true
      if (this.#share === undefined) log.notice(`${modeName(config.mode)} start`)
    } catch (error) {
      this.close()
      throw this.#failure === undefined ? error : new StartError(this.#failure.message)
    }
  }

  /**
   * Takes over a configuration of the same mode; living connections stay (protocol.md 10.5). Fulfilled when its names
   * were followed, or could not be for now; never rejects for a name.
   * @throws ConfigError for a service id that does not fit any more; everything stays as it was then
   */
  async reload(fresh: Config): Promise<void> {
    const log = this.#log
    const before = this.#config
    const said = new Set(configWarnings(before))
    const { config, kept } = keepFixed(before, fresh)
    if (this.#way !== undefined) checkServiceId(config, packetFamily(this.#way.names))
    for (const key of kept) log.warning(`config key ${key}: the change needs a restart, it is left out`)
    for (const text of configWarnings(config)) if (!said.has(text)) log.warning(text)
    this.#config = config
    Object.assign(this.#tcpOptions, tcpOptionsOf(config, log, this.#listens))
    this.#udpSocketOptions = socketOptionsOf('udp', config.udp, config.netdev, log)
    this.#monitoring?.reload(config)
    await this.#way?.reload(config, needsOtherSocket(before, config))
  }

  /** Stops at once: TCP connections are reset, nothing is sent to the peer (protocol.md 6.8). */
  close(): void {
    this.#way?.close()
    this.#listener?.close()
    this.#monitoring?.close()
    this.driver.close()
  }

  #makeDriver(): Driver {
    const runtime = this.#runtime
    const secret = new EndpointSecret(this.#share?.secret)
    const engine = new Engine(() => new Core(instantiate()), secret, runtime.clock)
    return new Driver({
      runtime,
      engine,
      aead: this.#aead,
      log: this.#log,
      tcp: this.#tcpOptions,
      udpTuning: () => adopting(this.#udpSocketOptions, this.#client ? undefined : this.#share),
      target: () => this.#way?.names.target,
      onResolve: () => this.#way?.onResolve(),
      onPeerFound: (peer) => this.#way?.onPeerFound(peer),
      onUdpError: (error) => this.#way?.onUdpError(error),
      onObfsReady: (context) => this.#way?.onObfsReady?.(context),
      onObfsEnded: (context) => this.#way?.onObfsEnded?.(context),
      onTrap: (broken) => this.monitor.engineLost(broken),
      onEngineReplaced: () => this.#way?.onEngineReplaced?.(),
      onFatal: (error) => {
        this.#failure = error
        this.close()
        this.#fail(error)
      },
    })
  }

  async #listen(listen: string): Promise<void> {
    const address = await resolveKey(this.#runtime, 'listen', listen, 'bind')
    this.#listener = await step(`listen: cannot listen on ${formatAddress(address)}`, () =>
      this.#runtime.listenTcp(
        address,
        this.#tcpOptions,
        (connection) => (this.#started ? this.driver.accept(connection) : null),
        (error) => this.driver.complaints.acceptError(error),
      ),
    )
    this.#log.notice(`tcp listen: ${formatAddress(this.#listener.local)}`)
  }
}

async function openCipher(config: Config, crypto: RuntimeCrypto): Promise<Aead | undefined> {
  const security = checkStart(config, methods)
  return security && withKey(security, (key) => openAead(security.method, key, crypto))
}

/**
 * Starts an endpoint.
 * @param crypto the runtime's ciphers
 * @param share the part of a worker, whose first process says what concerns all and serves `http_listen`
 * @throws ConfigError, or StartError naming the step that failed; nothing stays open then
 */
export async function startEndpoint(
  runtime: Runtime,
  config: Config,
  log: Log,
  crypto: RuntimeCrypto,
  share?: Share,
): Promise<Endpoint> {
  assertStartable(config, methods)
  if (share === undefined) for (const text of configWarnings(config)) log.warning(text)
  const aead = await openCipher(config, crypto)
  if (aead !== undefined) log.info(`method: ${aead.method}, ${aead.provider}`)
  let endpoint: Endpoint
  try {
    endpoint = new Endpoint(runtime, config, log, aead, share)
  } catch (error) {
    aead?.wipe()
    throw error
  }
  await endpoint.open()
  return endpoint
}
