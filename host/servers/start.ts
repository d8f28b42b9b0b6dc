/** Starts what a configuration describes: one endpoint, or a client with several servers. */

import { type Config, MODE_CLIENT, MODE_RENDEZVOUS } from '../config/config.ts'
import { configWarnings } from '../config/rules.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import type { Driver } from '../driver/driver.ts'
import { type EndpointHooks, startEndpoint } from '../endpoint/endpoint.ts'
import type { WorkerSocket } from '../endpoint/tcp-settings.ts'
import type { RateMember } from '../engine/rate-share.ts'
import type { Log } from '../log/log.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers } from '../runtime.ts'
import { ipv6Warnings } from '../transport/resolver.ts'

/** A running endpoint, or several as one. */
export interface Service extends RateMember {
  readonly config: Config
  /** The driver, or that of the server which the next session goes to. */
  readonly driver: Driver
  /** All drivers. */
  readonly drivers: readonly Driver[]
  readonly monitor: Monitor & { record(): Promise<void> }
  readonly failed: Promise<Error>
  readonly status: string
  readonly tcp: SocketAddress | undefined
  /** Client: the same, or the Unix socket, for people. */
  readonly listening: string | undefined
  readonly http: SocketAddress | undefined
  /** Client: the UDP address that applications send to. */
  readonly datagrams: SocketAddress | undefined
  onStatus: (status: string) => void
  /** Called by POST /reload. */
  onReloadRequest: ReloadRequest | undefined
  /** Called often while something passes. */
  onActive: (() => void) | undefined
  /** Client: opens a session for a connection. @returns its handlers, or null to refuse it */
  accept(connection: TcpConnection): TcpHandlers | null
  /** Whether new connections wait for an answer of the peer, and since when it is silent, monotonic ms. */
  readonly isPeerDown: boolean
  readonly silentAt: number
  reload(config: Config): Promise<void>
  keepAlive(isKept: boolean): void
  close(): void
}

/** Whether servers are chosen from: an array of one may grow when it is reloaded. */
export const hasServers = ({ mode, servers }: Config): boolean =>
  servers.length > 0 && (mode & MODE_CLIENT) !== 0 && (mode & MODE_RENDEZVOUS) === 0

/** As startEndpoint, for any configuration. */
export async function startService(
  runtime: Runtime,
  config: Config,
  log: Log,
  crypto: RuntimeCrypto,
  worker?: WorkerSocket,
  hooks: EndpointHooks = {},
): Promise<Service> {
  if (!hasServers(config)) return startEndpoint(runtime, config, log, crypto, worker, hooks)
  if (worker === undefined) {
    for (const text of [...configWarnings(config), ...(await ipv6Warnings(runtime, config))]) log.warning(text)
  }
  const { ServerGroup } = await import('./servers.ts')
  const group = new ServerGroup(runtime, config, log, crypto, worker, hooks)
  await group.open()
  return group
}
