/**
 * Opens the monitoring server of `http_listen` (protocol.md 11): puts program, configuration and what there is to show
 * together. The answers are http.ts, the numbers come from endpoint.ts, or from several processes through workers.ts.
 */
import { formatAddress } from './address.ts'
import type { Config } from './config/config.ts'
import { modeName } from './config/rules.ts'
import { createHttpApp, type HttpSource } from './http.ts'
import type { Log } from './log.ts'
import { resolveKey, step } from './names.ts'
import type { HttpServer, Runtime } from './runtime.ts'
import { NO_COUNTERS } from './stats.ts'
import { BANNER_LINE, PROGRAM, VERSION } from './version.ts'

/** What there is to show. */
export interface Monitor extends Pick<HttpSource, 'snapshot' | 'sessions' | 'health' | 'hostCounters'> {
  /** Monotonic ms. */
  readonly started: number
  /** Called before each request is answered, when the numbers must be fetched first. */
  prepare?(target: string): Promise<void>
}

/**
 * Serves `http_listen`, if there is one.
 * @throws ConfigError, StartError
 */
export async function openMonitoring(
  runtime: Runtime,
  config: Config,
  log: Log,
  monitor: Monitor,
): Promise<HttpServer | undefined> {
  if (config.http_listen === undefined) return undefined
  const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
  const app = createHttpApp({
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
    health: () => monitor.health(),
    hostCounters: () => monitor.hostCounters(),
    start: { at: monitor.started, uptime: 0, cpu: undefined, date: new Date(), counters: NO_COUNTERS },
  })
  const server = await step(`http_listen: cannot listen on ${formatAddress(address)}`, () =>
    runtime.serveHttp(address, async (request, target) => {
      await monitor.prepare?.(target)
      return app.fetch(request, { target })
    }),
  )
  log.notice(`http listen: ${formatAddress(server.local)}`)
  return server
}
