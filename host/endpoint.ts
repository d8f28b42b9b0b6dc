/**
 * One running client or server: puts configuration, names, key, engine, sockets and monitoring together in the order of
 * protocol.md 10.4, and follows address changes (7.6). The loop is driver.ts, the command line cli.ts.
 */
import { type AddressRole, formatAddress, parseHostPort, sameAddress } from './address.ts'
import { type Config, MODE_CLIENT, MODE_SERVER } from './config/config.ts'
import { ConfigError } from './config/error.ts'
import { configWarnings, modeName, refuseUnbuilt, unsupportedWarnings } from './config/rules.ts'
import { checkStart, kcpMtu } from './config/security.ts'
import { Core, type CoreConfig, instantiate, NonceStrategy, UNSET } from './core.ts'
import { type Aead, type AesGcmFactory, methods, openAead } from './crypto/aead.ts'
import { passwordKey } from './crypto/key.ts'
import { Driver } from './driver.ts'
import { createHttpApp } from './http.ts'
import { LOG_WARNING, type Log } from './log.ts'
import type { HttpServer, Runtime, SocketAddress, TcpListener, TcpOptions, UdpOptions } from './runtime.ts'
import {
  type Health,
  readLastReceived,
  readSessions,
  readTotals,
  type Snapshot,
  silenceLimit,
  type Totals,
} from './stats.ts'
import { PROGRAM, PROJECT_URL, VERSION } from './version.ts'

/** Nonces the replay filter remembers at least (protocol.md 3.6). */
const REPLAY_CAPACITY_SERVER = 1 << 20
const REPLAY_CAPACITY_CLIENT = 1 << 14
/** Sessions that are not answered, or that sent no DIAL: a flood of them leaves room for the others. */
const MAX_HALF_OPEN = 16384
/** Without a UDP socket a new one is tried after this time, ms (protocol.md 7.6). */
const REOPEN_MS = 5000
const MIB = 1 << 20
const NO_TOTALS: Totals = { tcpRead: 0, tcpWritten: 0, kcpReceived: 0, kcpSent: 0, pktReceived: 0, pktSent: 0 }

/** A start that failed for a reason outside the configuration: a name, a port. The message is for people. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** A running endpoint. */
export interface Endpoint {
  /** Where applications connect to (client). */
  readonly tcp: SocketAddress | undefined
  readonly udp: SocketAddress
  readonly http: SocketAddress | undefined
  readonly driver: Driver
  /** Fulfilled with the error when the engine broke. Everything is closed by then. */
  readonly failed: Promise<Error>
  /** Stops at once: TCP connections are reset, nothing is sent to the peer (protocol.md 6.8). */
  close(): void
}

const message = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Runs one step of the start; its failure names the step. */
async function step<Result>(what: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StartError) throw error
    throw new StartError(`${what}: ${message(error)}`)
  }
}

/** The first address of a `host:port` of the configuration (protocol.md 10.4). */
async function resolveKey(runtime: Runtime, key: string, text: string, role: AddressRole): Promise<SocketAddress> {
  const { host, port } = parseHostPort(key, text, role)
  const [first] = await step(`${key}: cannot resolve ${host}`, () => runtime.resolve(host))
  if (first === undefined) throw new StartError(`${key}: ${host} has no address`)
  const { family, address, scope } = first
  return { family, address, port, scope }
}

async function openCipher(config: Config, aesGcm: AesGcmFactory): Promise<Aead | undefined> {
  const security = checkStart(config, methods)
  if (security === undefined) return undefined
  const key = security.psk ?? (await passwordKey(security.password))
  try {
    return await openAead(security.method, key, aesGcm)
  } finally {
    key.fill(0)
  }
}

const NONCE_STRATEGIES = {
  none: NonceStrategy.NONE,
  random: NonceStrategy.RANDOM,
  counter: NonceStrategy.COUNTER,
} as const

/** The engine's config block for a configuration (docs/abi.md). `family` is that of the UDP socket. */
export function coreConfig(config: Config, aead: Aead | undefined, family: 4 | 6): CoreConfig {
  const { kcp } = config
  const server = (config.mode & MODE_SERVER) !== 0
  return {
    mode: config.mode,
    tagBytes: aead?.tagBytes ?? 0,
    nonceBytes: aead?.nonceBytes ?? 0,
    nonceStrategy: NONCE_STRATEGIES[aead?.nonceStrategy ?? 'none'],
    kcpMtu: kcpMtu(kcp.mtu, family, config.method, config.obfs),
    sndwnd: kcp.sndwnd ?? UNSET,
    rcvwnd: kcp.rcvwnd ?? UNSET,
    nodelay: kcp.nodelay ?? UNSET,
    interval: kcp.interval ?? UNSET,
    resend: kcp.resend ?? UNSET,
    nc: kcp.nc ?? UNSET,
    flush: kcp.flush ?? UNSET,
    timeout: config.timeout,
    linger: config.linger,
    keepalive: config.keepalive,
    timeWait: config.time_wait,
    memoryCeiling: config.memory * MIB,
    maxSessions: config.max_sessions,
    replayCapacity: aead === undefined ? 0 : server ? REPLAY_CAPACITY_SERVER : REPLAY_CAPACITY_CLIENT,
    maxHalfOpen: Math.min(MAX_HALF_OPEN, config.max_sessions),
  }
}

/** The addresses that names stand for now. */
interface Names {
  /** Server: the target. */
  readonly target: SocketAddress | undefined
  readonly bind: SocketAddress | undefined
  /** Client: the server. */
  readonly peer: SocketAddress | undefined
}

async function resolveNames(runtime: Runtime, config: Config): Promise<Names> {
  const one = (key: string, text: string | undefined, role: AddressRole): Promise<SocketAddress | undefined> =>
    text === undefined ? Promise.resolve(undefined) : resolveKey(runtime, key, text, role)
  return {
    target: await one('connect', config.connect, 'connect'),
    bind: await one('kcp_bind', config.kcp_bind, 'bind'),
    peer: (config.mode & MODE_CLIENT) === 0 ? undefined : await one('kcp_connect', config.kcp_connect, 'connect'),
  }
}

/** How to open the UDP socket. The last address present decides the family (protocol.md 4). */
function udpOptions(names: Names): UdpOptions {
  const { bind, peer } = names
  if (peer !== undefined) {
    const wildcard = { family: peer.family, address: peer.family === 4 ? '0.0.0.0' : '::', port: 0, scope: 0 } as const
    return { bind: bind ?? wildcard, connect: peer }
  }
  if (bind === undefined) throw new StartError('kcp_bind: missing')
  return { bind }
}

const familyOf = (options: UdpOptions): 4 | 6 => (options.connect ?? options.bind).family

const sameMaybe = (a: SocketAddress | undefined, b: SocketAddress | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && sameAddress(a, b))

/** Looks names up again after a silence and moves to where they lead (protocol.md 7.6). */
class Follower {
  names: Names
  #runtime: Runtime
  #config: Config
  #log: Log
  #driver: Driver
  #aead: Aead | undefined
  #busy = false
  #failing = false
  #open = true
  #closed = false
  #retry: ReturnType<typeof setTimeout> | undefined

  constructor(runtime: Runtime, config: Config, log: Log, driver: Driver, aead: Aead | undefined, names: Names) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
    this.names = names
  }

  /** RESOLVE came. Never throws; one look at a time. */
  readonly look = (): void => {
    if (this.#busy || this.#closed) return
    this.#busy = true
    this.#follow()
      .catch((error) => {
        // said once for a row of failures: the tunnel may be idle for days without a network
        if (!this.#failing) this.#log.warning(`addresses are looked up again later: ${message(error)}`)
        this.#failing = true
      })
      .finally(() => {
        this.#busy = false
        if (!this.#open && !this.#closed) this.#retry = setTimeout(this.look, REOPEN_MS)
      })
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#retry)
  }

  async #follow(): Promise<void> {
    const names = await resolveNames(this.#runtime, this.#config)
    if (this.#closed) return
    const before = this.names
    this.names = names
    if (this.#failing) this.#log.notice('addresses resolved again')
    this.#failing = false
    if (!sameMaybe(before.target, names.target) && names.target !== undefined) {
      this.#log.notice(`connect: now ${formatAddress(names.target)}`)
    }
    if (this.#open && sameMaybe(before.bind, names.bind) && sameMaybe(before.peer, names.peer)) return
    const options = udpOptions(names)
    if (familyOf(options) !== familyOf(udpOptions(before))) {
      this.#driver.reconfigure(coreConfig(this.#config, this.#aead, familyOf(options)))
    }
    if (this.#aead?.nonceStrategy === 'counter') this.#driver.renewNonce()
    this.#open = false
    const socket = await this.#driver.openUdp(options)
    this.#open = true
    this.#log.notice(`udp bind: ${formatAddress(socket.local)}`)
    if (names.peer !== undefined) {
      this.#log.notice(`udp connect: ${formatAddress(names.peer)}`)
      this.#driver.setPeer(names.peer)
    }
  }
}

/**
 * Starts an endpoint.
 * @param aesGcm the runtime's AES-256-GCM
 * @throws ConfigError, or StartError naming the step that failed; nothing stays open then
 */
export async function startEndpoint(
  runtime: Runtime,
  config: Config,
  log: Log,
  aesGcm: AesGcmFactory,
): Promise<Endpoint> {
  checkStart(config, methods)
  refuseUnbuilt(config)
  for (const text of [...configWarnings(config), ...unsupportedWarnings(config)]) log.warning(text)

  const client = (config.mode & MODE_CLIENT) !== 0
  const tcpOptions: TcpOptions = { nodelay: config.tcp.nodelay, keepalive: config.tcp.keepalive }
  const aead = await openCipher(config, aesGcm)
  if (aead !== undefined) log.info(`method: ${aead.method}, ${aead.provider}`)

  let follower: Follower | undefined
  let ready = false
  let listener: TcpListener | undefined
  let httpServer: HttpServer | undefined
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
    target: () => follower?.names.target,
    onResolve: () => follower?.look(),
    onFatal: (error) => {
      close()
      fail(error)
    },
  })
  const close = (): void => {
    follower?.close()
    listener?.close()
    httpServer?.close()
    driver.close()
  }

  const started = runtime.monotonic()
  const snapshot = (): Snapshot => {
    const at = runtime.monotonic()
    const sessions = readSessions(core, driver.now())
    return { at, uptime: at - started, cpu: undefined, date: new Date(), totals: readTotals(core), sessions }
  }
  const health = (): Health => ({
    client,
    pending: false,
    lastReceived: readLastReceived(core, driver.now()),
    silence: silenceLimit(config.keepalive),
  })

  try {
    if (config.listen !== undefined) {
      const address = await resolveKey(runtime, 'listen', config.listen, 'bind')
      listener = await step(`listen: cannot listen on ${formatAddress(address)}`, () =>
        runtime.listenTcp(
          address,
          tcpOptions,
          (connection) => (ready ? driver.accept(connection) : null),
          (error) => log.limited('accept', LOG_WARNING, () => `tcp accept: ${error.message}`),
        ),
      )
      log.notice(`tcp listen: ${formatAddress(listener.local)}`)
    }
    if (config.http_listen !== undefined) {
      const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
      const start: Snapshot = {
        at: started,
        uptime: 0,
        cpu: undefined,
        date: new Date(),
        totals: NO_TOTALS,
        sessions: [],
      }
      const app = createHttpApp({ banner: `${PROGRAM} ${VERSION}\n  ${PROJECT_URL}`, snapshot, health, start })
      httpServer = await step(`http_listen: cannot listen on ${formatAddress(address)}`, () =>
        runtime.serveHttp(address, (request) => app.fetch(request)),
      )
      log.notice(`http listen: ${formatAddress(httpServer.local)}`)
    }
    const names = await resolveNames(runtime, config)
    follower = new Follower(runtime, config, log, driver, aead, names)
    const options = udpOptions(names)
    driver.start(coreConfig(config, aead, familyOf(options)))
    const socket = await step(`udp: cannot open ${formatAddress(options.bind)}`, () => driver.openUdp(options))
    log.notice(`udp bind: ${formatAddress(socket.local)}`)
    if (names.peer !== undefined) {
      log.notice(`udp connect: ${formatAddress(names.peer)}`)
      driver.setPeer(names.peer)
    }
    ready = true
    log.notice(`${modeName(config.mode)} start`)
    return { tcp: listener?.local, udp: socket.local, http: httpServer?.local, driver, failed, close }
  } catch (error) {
    close()
    throw error
  }
}
