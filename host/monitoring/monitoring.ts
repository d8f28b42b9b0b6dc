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
import type { HttpSource } from './source.ts'
import { NO_COUNTERS } from './stats.ts'

/** Header of a KCP segment (protocol.md 5.1). */
const SEGMENT_HEADER_BYTES = 24

/** Source of the statistics. */
export interface Monitor extends Pick<HttpSource, 'snapshot' | 'sessions' | 'contexts' | 'health' | 'hostCounters'> {
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
  const { listen, connect, kcp_bind, kcp_connect, rendezvous_server, method, obfs, kcp, keepalive } = config
  const segment_bytes = kcpMtu(kcp.mtu, family, method, obfs) - SEGMENT_HEADER_BYTES
  return {
    listen,
    connect,
    kcp_bind,
    kcp_connect,
    rendezvous_server,
    method,
    obfs,
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

/**
 * Starts the server if `http_listen` is set.
 * @throws ConfigError, StartError
 */
export async function openMonitoring(
  runtime: Runtime,
  startConfig: Config,
  log: Log,
  monitor: Monitor,
): Promise<Monitoring | undefined> {
  let config = startConfig
  if (config.http_listen === undefined) return undefined
  const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
  const { Hono } = await import('hono')
  const app = createHttpApp(
    {
      program: {
        name: PROGRAM,
        version: VERSION,
        note: BANNER_LINE,
        runtime: runtime.name,
        runtimeVersion: runtime.version,
        mode: modeName(config.mode),
      },
      snapshot: () => monitor.snapshot(),
      sessions: () => monitor.sessions(),
      contexts: () => monitor.contexts?.(),
      health: () => monitor.health(),
      hostCounters: () => monitor.hostCounters(),
      ...(monitor.prepare && { prepare: (target: string) => monitor.prepare?.(target) ?? Promise.resolve() }),
      start: {
        at: monitor.started,
        uptime: 0,
        cpu: undefined,
        date: new Date(runtime.clock.wall()),
        counters: NO_COUNTERS,
      },
      listen: config.http_listen,
      token: () => config.http_token,
      live: {
        client: (config.mode & MODE_CLIENT) !== 0,
        server: (config.mode & MODE_SERVER) !== 0,
        clock: runtime.clock,
        about: () => describeConfig(config, monitor.path().local?.family ?? 4),
        path: () => monitor.path(),
        ping: () => monitor.ping(),
        history: () => monitor.history(),
        warnings: () => log,
        ...(monitor.prepare && { prepare: (target: string) => monitor.prepare?.(target) ?? Promise.resolve() }),
      },
    },
    Hono,
  )
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
