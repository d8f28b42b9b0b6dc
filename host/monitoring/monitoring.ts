/**
 * Opens the monitoring server on `http_listen` (protocol.md 11) and connects it to configuration and statistics. The
 * routes are in app.ts; statistics come from endpoint/monitor.ts, or from workers/stats.ts with several processes.
 */

import { type Config, MODE_CLIENT, MODE_SERVER } from '../config/config.ts'
import { kcpMtu, MTU_DEFAULT } from '../config/mtu.ts'
import { modeName } from '../config/rules.ts'
import { step } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { HttpServer, Runtime } from '../runtime.ts'
import { resolveKey } from '../transport/resolver.ts'
import { BANNER_LINE, PROGRAM, VERSION } from '../version.ts'
import { createHttpApp } from './app.ts'
import type { HistoryRow } from './history.ts'
import type { LinkStatus } from './live.ts'
import type { HttpSource, ReloadOutcome, TunnelSource } from './source.ts'
import { type Health, NO_COUNTERS } from './stats.ts'
import { overviewOf } from './stats-json.ts'

/** Header of a KCP segment (protocol.md 5.1). */
const SEGMENT_HEADER_BYTES = 24

/** Source of the statistics. */
export interface Monitor
  extends Pick<HttpSource, 'snapshot' | 'sessions' | 'contexts' | 'health' | 'hostCounters' | 'servers' | 'keys'> {
  /** Monotonic ms. */
  readonly started: number
  /** If present, fetches the statistics before each answer. */
  prepare?(target: string): Promise<void>
  path(): LinkStatus
  /** The last minutes, as far as they are recorded. */
  history(): HistoryRow[]
  /** Client: sends one PING in addition to keepalives. */
  ping(): void
}

/** The running server. */
export interface Monitoring extends HttpServer {
  /** Applies a new configuration. */
  reload(config: Config): void
}

/** The settings shown by the dashboard; no secrets. */
function describeConfig(config: Config, family: 4 | 6): object {
  const { listen, connect, kcp_bind, servers, rendezvous_server, method, obfs, kcp, keepalive, rate } = config
  const set = Object.entries(rate).filter(([, mbit]) => mbit > 0)
  const limits = set.map(([name, mbit]) => `${name} ${mbit}`).join(', ')
  const segment_bytes = kcpMtu(kcp.mtu, family, method, obfs) - SEGMENT_HEADER_BYTES
  return {
    listen,
    connect,
    kcp_bind,
    kcp_connect: servers.length > 0 ? servers.join(', ') : config.kcp_connect,
    ...(servers.length > 1 && { strategy: config.strategy }),
    rendezvous_server,
    method,
    obfs,
    ...(limits !== '' && { rate: `${limits} Mbit/s` }),
    mtu: kcp.mtu ?? MTU_DEFAULT,
    segment_bytes,
    keepalive,
  }
}

/** Where a browser on this machine finds the server. */
function linkHost(local: SocketAddress): string {
  const isAny = local.address === '0.0.0.0' || local.address === '::'
  return isAny ? `localhost:${local.port}` : formatAddress(local)
}

/** One of several tunnels. */
export interface NamedMonitor {
  readonly name: string
  readonly config: Config
  readonly log: Log
  readonly monitor: Monitor
  health(): Health
}

/** What a source is made of; read at each request, as a reload changes it. */
interface Shown {
  readonly config: Config
  /** That of the process, of which `http_token` counts. */
  readonly access: Config
  readonly log: Log
  readonly monitor: Monitor
  health(): Health
}

/** @param shown is called for each request */
function sourceOf(runtime: Runtime, shown: () => Shown, mode: string): HttpSource {
  const { config, access, monitor } = shown()
  const isIn = (bit: number): boolean => (config.mode & bit) !== 0
  const prepare = monitor.prepare && ((target: string) => shown().monitor.prepare?.(target) ?? Promise.resolve())
  const { clock } = runtime
  return {
    program: {
      name: PROGRAM,
      version: VERSION,
      note: BANNER_LINE,
      runtime: runtime.name,
      runtimeVersion: runtime.version,
      mode,
    },
    snapshot: () => shown().monitor.snapshot(),
    sessions: () => shown().monitor.sessions(),
    contexts: () => shown().monitor.contexts?.(),
    health: () => shown().health(),
    hostCounters: () => shown().monitor.hostCounters(),
    servers: () => shown().monitor.servers?.(),
    keys: () => shown().monitor.keys?.(),
    ...(prepare && { prepare }),
    start: { at: monitor.started, uptime: 0, cpu: undefined, date: new Date(clock.wall()), counters: NO_COUNTERS },
    listen: access.http_listen,
    token: () => shown().access.http_token,
    live: {
      client: isIn(MODE_CLIENT),
      server: isIn(MODE_SERVER),
      clock,
      about: () => describeConfig(shown().config, shown().monitor.path().local?.family ?? 4),
      path: () => shown().monitor.path(),
      ping: () => shown().monitor.ping(),
      history: () => shown().monitor.history(),
      warnings: () => shown().log,
      ...(prepare && { prepare }),
    },
  }
}

/**
 * The sum of several tunnels.
 * @param tunnels is called for each request
 */
function sourceOfAll(runtime: Runtime, shown: () => Shown, tunnels: () => readonly NamedMonitor[]): HttpSource {
  const sources = new WeakMap<NamedMonitor, TunnelSource>()
  const overview = (): object[] => overviewOf(tunnels().map(own))
  const own = (tunnel: NamedMonitor): TunnelSource => {
    const known = sources.get(tunnel)
    if (known !== undefined) return known
    const part = (): Shown => {
      const { config, log, monitor } = tunnel
      return { access: shown().access, config, log, monitor, health: () => tunnel.health() }
    }
    const base = sourceOf(runtime, part, modeName(tunnel.config.mode))
    const source = { ...base, name: tunnel.name, live: { ...base.live, overview } }
    sources.set(tunnel, source)
    return source
  }
  const whole = sourceOf(runtime, shown, 'tunnels')
  const live = { ...whole.live, client: false, server: false, about: () => ({}), overview }
  return { ...whole, live, tunnels: () => tunnels().map(own) }
}

/** What concerns the process as a whole. */
export interface ProcessParts {
  /** Several tunnels, of which the monitor is the sum. */
  tunnels?(): readonly NamedMonitor[]
  /** See HttpSource.reload. */
  reload?(by: string): Promise<ReloadOutcome> | undefined
}

/**
 * Starts the server if `http_listen` is set.
 * @throws ConfigError, StartError
 */
export async function openMonitoring(
  runtime: Runtime,
  startConfig: Config,
  log: Log,
  monitor: Monitor,
  { tunnels, reload }: ProcessParts = {},
): Promise<Monitoring | undefined> {
  let config = startConfig
  if (config.http_listen === undefined) return undefined
  const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
  const { Hono } = await import('hono')
  const shown = (): Shown => ({ config, access: config, log, monitor, health: () => monitor.health() })
  const shownSource = tunnels ? sourceOfAll(runtime, shown, tunnels) : sourceOf(runtime, shown, modeName(config.mode))
  const source = reload === undefined ? shownSource : { ...shownSource, reload }
  const app = createHttpApp(source, Hono)
  const server = await step(`http_listen: cannot listen on ${formatAddress(address)}`, () =>
    runtime.serveHttp(address, (request, target, connection) => app.fetch(request, { target, connection })),
  )
  log.notice(`http listen: ${formatAddress(server.local)}, dashboard: http://${linkHost(server.local)}/`)
  return {
    local: server.local,
    close() {
      app.endViewers()
      server.close()
    },
    reload(next) {
      config = next
      // the displayed settings and the token may have changed
      app.endViewers()
    },
  }
}
