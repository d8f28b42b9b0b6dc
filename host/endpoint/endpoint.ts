/**
 * One running client, server or rendezvous server: puts configuration, names, key, engine, sockets and monitoring
 * together in the order of protocol.md 10.4, and takes over a changed configuration (10.5). The loop is driver.ts, the
 * UDP socket's way through changing networks follower.ts, the command line cli.ts.
 */
import { formatAddress } from '../address.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS } from '../config/config.ts'
import { configWarnings, modeName } from '../config/rules.ts'
import { checkStart } from '../config/security.ts'
import { Core, instantiate } from '../core.ts'
import { type Aead, methods, openAead, type RuntimeCrypto } from '../crypto/aead.ts'
import { passwordKey } from '../crypto/key.ts'
import { Driver } from '../driver.ts'
import { Follower } from '../follower.ts'
import type { Log } from '../log.ts'
import { type Monitor, type Monitoring, openMonitoring } from '../monitoring/monitoring.ts'
import { readCounters, readLastReceived, readSessions, silenceLimit } from '../monitoring/stats.ts'
import { resolveKey, step } from '../names.ts'
import { readContexts } from '../obfs/context-stats.ts'
import { ObfsClient } from '../obfs/obfs-client.ts'
import { ObfsServer } from '../obfs/obfs-server.ts'
import { keepFixed, needsOtherSocket } from '../reload.ts'
import type { Runtime, SocketAddress, SocketTuning, TcpListener, TcpOptions } from '../runtime.ts'
import { tuningOf } from '../tuning.ts'
import type { Way } from '../way.ts'

export { StartError } from '../names.ts'

/** A running endpoint. */
export interface Endpoint {
  /** Where applications connect to (client). */
  readonly tcp: SocketAddress | undefined
  /** Where the UDP socket was bound at the start. */
  readonly udp: SocketAddress
  readonly http: SocketAddress | undefined
  readonly driver: Driver
  /** For the monitoring server, here or in another process. */
  readonly monitor: Monitor
  /** The configuration in force. */
  readonly config: Config
  /** Fulfilled with the error when the engine broke. Everything is closed by then. */
  readonly failed: Promise<Error>
  /**
   * Takes over a configuration of the same mode; living connections stay (protocol.md 10.5). Fulfilled when its names
   * were followed, or could not be for now; never rejects for a name.
   */
  reload(config: Config): Promise<void>
  /** Stops at once: TCP connections are reset, nothing is sent to the peer (protocol.md 6.8). */
  close(): void
}

async function openCipher(config: Config, crypto: RuntimeCrypto): Promise<Aead | undefined> {
  const security = checkStart(config, methods)
  if (security === undefined) return undefined
  const key = security.psk ?? (await passwordKey(security.password))
  try {
    return await openAead(security.method, key, crypto)
  } finally {
    key.fill(0)
  }
}

/** What makes an endpoint one of several (workers.ts): the bound socket to serve, that of `listen` or of `kcp_bind`. */
export interface Share {
  readonly socket: number
}

const NO_TUNING: SocketTuning = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '', refused() {} }

/** A tuning that brings the socket of a share. */
const adopting = (tuning: SocketTuning | undefined, share: Share | undefined): SocketTuning | undefined =>
  share === undefined ? tuning : { ...NO_TUNING, ...tuning, fd: share.socket }

/** What connections get. Adapters read it at every dial and accept, so it is changed in place. */
const tcpOptionsOf = (config: Config, log: Log, share: Share | undefined): TcpOptions => ({
  nodelay: config.tcp.nodelay,
  keepalive: config.tcp.keepalive,
  tuning: adopting(tuningOf('tcp', config.tcp, undefined, log), share),
})

/**
 * Starts an endpoint.
 * @param crypto the runtime's ciphers
 * @param share the part of a worker, whose first process says what concerns all and serves `http_listen`
 * @throws ConfigError, or StartError naming the step that failed; nothing stays open then
 */
export async function startEndpoint(
  runtime: Runtime,
  startConfig: Config,
  log: Log,
  crypto: RuntimeCrypto,
  share?: Share,
): Promise<Endpoint> {
  let config = startConfig
  checkStart(config, methods)
  if (share === undefined) for (const text of configWarnings(config)) log.warning(text)

  const client = (config.mode & MODE_CLIENT) !== 0
  const listens = client ? share : undefined
  const tcpOptions = tcpOptionsOf(config, log, listens)
  let udpTuning = tuningOf('udp', config.udp, config.netdev, log)
  const aead = await openCipher(config, crypto)
  if (aead !== undefined) log.info(`method: ${aead.method}, ${aead.provider}`)

  let follower: Way | undefined
  const WayOf = config.obfs === undefined ? Follower : client ? ObfsClient : ObfsServer
  let ready = false
  let listener: TcpListener | undefined
  let monitoring: Monitoring | undefined
  let fail: (error: Error) => void = () => {}
  const failed = new Promise<Error>((resolve) => {
    fail = resolve
  })
  const core = new Core(instantiate())
  const driver = new Driver({
    runtime,
    core,
    aead,
    log,
    tcp: tcpOptions,
    udpTuning: () => adopting(udpTuning, client ? undefined : share),
    target: () => follower?.names.target,
    onResolve: () => follower?.onResolve(),
    onPeerFound: (peer) => follower?.onPeerFound(peer),
    onUdpError: (error) => follower?.onUdpError(error),
    onObfsReady: (context) => follower?.onObfsReady?.(context),
    onObfsEnded: (context) => follower?.onObfsEnded?.(context),
    onFatal: (error) => {
      close()
      fail(error)
    },
  })
  const close = (): void => {
    follower?.close()
    listener?.close()
    monitoring?.close()
    driver.close()
  }

  const reload = async (fresh: Config): Promise<void> => {
    const before = config
    const said = new Set(configWarnings(before))
    const { config: next, kept } = keepFixed(before, fresh)
    for (const key of kept) log.warning(`config key ${key}: the change needs a restart, it is left out`)
    for (const text of configWarnings(next)) if (!said.has(text)) log.warning(text)
    config = next
    Object.assign(tcpOptions, tcpOptionsOf(next, log, listens))
    udpTuning = tuningOf('udp', next.udp, next.netdev, log)
    monitoring?.reload(next)
    await follower?.reload(next, needsOtherSocket(before, next))
  }

  const started = runtime.monotonic()
  const monitor: Monitor = {
    started,
    snapshot() {
      const at = runtime.monotonic()
      const counters = readCounters(core, driver.now())
      return { at, uptime: at - started, cpu: runtime.cpuTime(), date: new Date(), counters }
    },
    sessions: () => readSessions(core, () => driver.now()),
    contexts: () => (config.obfs === undefined ? undefined : readContexts(core)),
    health: () => ({
      client,
      pending: client && (config.mode & MODE_RENDEZVOUS) !== 0 && follower?.peerFound !== true,
      lastReceived: readLastReceived(core, driver.now()),
      silence: silenceLimit(config.keepalive),
    }),
    hostCounters: () => driver.complaints.counters,
    path: () => ({
      local: driver.udp?.local,
      peer: driver.peer,
      rendezvous: follower?.names.rendezvous,
      peerFound: follower?.peerFound === true,
      pongRtt: driver.pongRtt,
    }),
    ping: () => driver.pingPeer(),
  }

  try {
    if (config.listen !== undefined) {
      const address = await resolveKey(runtime, 'listen', config.listen, 'bind')
      listener = await step(`listen: cannot listen on ${formatAddress(address)}`, () =>
        runtime.listenTcp(
          address,
          tcpOptions,
          (connection) => (ready ? driver.accept(connection) : null),
          (error) => driver.complaints.acceptError(error),
        ),
      )
      log.notice(`tcp listen: ${formatAddress(listener.local)}`)
    }
    monitoring = await openMonitoring(runtime, config, log, monitor)
    follower = new WayOf(runtime, config, log, driver, aead)
    const socket = await follower.open()
    ready = true
    if (share === undefined) log.notice(`${modeName(config.mode)} start`)
    return {
      tcp: listener?.local,
      udp: socket.local,
      http: monitoring?.local,
      driver,
      monitor,
      get config() {
        return config
      },
      failed,
      reload,
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}
