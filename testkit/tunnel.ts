/** A complete tunnel: server and client processes with a fresh key, joined by an emulated link. */
import { randomBytes } from 'node:crypto'
import type { Link, LinkOptions, LinkShape } from './link.ts'
import { openLink } from './link.ts'
import type { Config, ExitStatus, Program, Running } from './process.ts'
import { freePort, start } from './process.ts'
import type { TcpEnd } from './tcp.ts'
import { dial, formatAddress } from './tcp.ts'

export const METHODS = [
  'none',
  'xchacha20poly1305_ietf',
  'xsalsa20poly1305',
  'chacha20poly1305_ietf',
  'aes256gcm',
] as const
export type Method = (typeof METHODS)[number]

/** Length of the log of each endpoint shown when a test fails, in UTF-16 units. */
const SHOWN_LOG = 3000

export interface TunnelOptions {
  readonly server: Program
  readonly client: Program
  /** Address of the target, as in `connect`. */
  readonly target: string
  readonly method?: Method
  /** Family of the UDP path (default 4). */
  readonly family?: 4 | 6
  /** Whether the tunnel forwards UDP (udp_listen, udp_connect). */
  readonly datagrams?: boolean
  /** Shape of the link (default: no loss, no delay). */
  readonly link?: LinkShape & Pick<LinkOptions, 'seed' | 'up' | 'down' | 'tap'>
  /** Configuration of both endpoints, of the server, of the client. */
  readonly config?: Config
  readonly serverConfig?: Config
  readonly clientConfig?: Config
  /** What runs an endpoint, instead of commandOf(). */
  readonly commands?: { readonly server?: readonly string[]; readonly client?: readonly string[] }
}

export interface Tunnel {
  readonly server: Running
  readonly client: Running
  readonly link: Link
  readonly psk: string
  /** Address that the client listens on. */
  readonly host: string
  readonly port: number
  /** Opens an application's connection to the client. */
  dial(options?: { readonly rate?: number; readonly keep?: number }): Promise<TcpEnd>
  /** Kills an endpoint and starts it again with the same configuration. */
  restart(end: 'server' | 'client', signal?: NodeJS.Signals): Promise<void>
  /** Stops both endpoints with SIGTERM. */
  close(): Promise<{ readonly server: ExitStatus; readonly client: ExitStatus }>
}

/** Description of a combination for test titles. */
export const nameOf = (options: Pick<TunnelOptions, 'server' | 'client' | 'method' | 'family'>): string =>
  `${options.server} server, ${options.client} client, ${options.method ?? METHODS[1]}, IPv${options.family ?? 4}`

/** Where a client listens, and what a server forwards to, unless the options say it. */
function entranceOf({ datagrams, clientConfig }: TunnelOptions, text: string): Config {
  return clientConfig?.['listen'] !== undefined ? {} : { [datagrams === true ? 'udp_listen' : 'listen']: text }
}
function targetOf({ datagrams, serverConfig, target }: TunnelOptions): Config {
  return serverConfig?.['connect'] !== undefined ? {} : { [datagrams === true ? 'udp_connect' : 'connect']: target }
}

/** Starts both endpoints and the link. If one fails, the others are stopped. */
export async function openTunnel(options: TunnelOptions): Promise<Tunnel> {
  const host = options.family === 6 ? '::1' : '127.0.0.1'
  const method = options.method ?? METHODS[1]
  const psk = randomBytes(32).toString('base64')
  const crypto: Config = method === 'none' ? {} : { method, psk }
  const udpPort = await freePort(host)
  const port = await freePort()
  const link = await openLink({ ...options.link, target: { host, port: udpPort } })
  const configs = {
    server: {
      ...crypto,
      ...options.config,
      kcp_bind: formatAddress(host, udpPort),
      ...targetOf(options),
      ...options.serverConfig,
    },
    client: {
      ...crypto,
      ...options.config,
      ...entranceOf(options, formatAddress('127.0.0.1', port)),
      kcp_connect: formatAddress(host, link.port),
      ...options.clientConfig,
    },
  }
  const launch = (end: 'server' | 'client'): Promise<Running> => {
    const command = options.commands?.[end]
    return start(options[end], configs[end], command === undefined ? {} : { command })
  }
  const started = await Promise.allSettled([launch('server'), launch('client')])
  const [first, second] = started
  if (first.status === 'rejected' || second.status === 'rejected') {
    for (const end of started) if (end.status === 'fulfilled') await end.value.stop('SIGKILL')
    await link.close()
    throw first.status === 'rejected' ? first.reason : second.status === 'rejected' ? second.reason : undefined
  }
  const ends = { server: first.value, client: second.value }
  return {
    get server() {
      return ends.server
    },
    get client() {
      return ends.client
    },
    link,
    psk,
    host: '127.0.0.1',
    port,
    dial: (dialOptions) => dial('127.0.0.1', port, dialOptions),
    async restart(end, signal = 'SIGKILL') {
      await ends[end].stop(signal)
      ends[end] = await launch(end)
    },
    async close() {
      const [server, client] = await Promise.all([ends.server.stop(), ends.client.stop()])
      await link.close()
      return { server, client }
    },
  }
}

/**
 * Runs a test body with a tunnel and stops everything afterwards. Fails if an endpoint exits early or with a status
 * other than 0 on SIGTERM. A failure shows both logs and the link's counters.
 */
export async function withTunnel(options: TunnelOptions, body: (tunnel: Tunnel) => Promise<void>): Promise<void> {
  const tunnel = await openTunnel(options)
  let failure: unknown
  try {
    await body(tunnel)
    for (const end of ['server', 'client'] as const) {
      const { status } = tunnel[end]
      if (status !== undefined) throw new Error(`the ${end} exited early: ${JSON.stringify(status)}`)
    }
  } catch (error) {
    failure = error ?? new Error('failed')
  }
  const status = await tunnel.close()
  if (failure === undefined) {
    for (const end of ['server', 'client'] as const) {
      if (status[end].code === 0) continue
      failure = new Error(`the ${end} ended with ${JSON.stringify(status[end])} on SIGTERM`)
    }
  }
  if (failure === undefined) return
  const message = failure instanceof Error ? failure.message : String(failure)
  const logs = (['server', 'client'] as const)
    .map((end) => `--- log of the ${end} ---\n${tunnel[end].log().slice(-SHOWN_LOG)}`)
    .join('\n')
  const link = `link (seed ${options.link?.seed ?? 1}): ${JSON.stringify(tunnel.link.counters)}`
  throw new Error(`${nameOf(options)}: ${message}\n${link}\n${logs}`, { cause: failure })
}
