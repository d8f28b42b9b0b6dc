/**
 * Generates matching configurations: for a server and its client, and optionally for a rendezvous server. They share a
 * fresh key and, unless they forward UDP, contain only keys of kcptun-libev, and `$schema`, which it ignores, so that
 * either program accepts each file.
 */

import { generatePsk } from '../crypto/key.ts'
import { BIND_PORTS_MAX, type HostPort, isLoopbackHost } from '../net/address.ts'
import { VERSION } from '../version.ts'
import type { Strategy } from './config.ts'

/** Lets an editor complete and check the keys. */
export const SCHEMA_URL = `https://unpkg.com/kcptun-wasm@${VERSION}/dist/schema.json`

/** Range of ports that `init` chooses from: no well-known services, above the ephemeral range of Linux. */
const PORT_FIRST = 61_000
const PORT_LAST = 65_535

export type Role = 'client' | 'server' | 'rendezvous'

/** Input of `generateConfigs`. */
export interface Wishes {
  /** Address at which clients reach the server, or client and server reach the rendezvous server. */
  readonly meeting: HostPort
  /** Further servers of the client, in the order of preference. */
  readonly others?: readonly HostPort[]
  /** Which of several servers gets a new connection; undefined: the default. */
  readonly strategy?: Strategy | undefined
  /** Whether `meeting` is a rendezvous server. */
  readonly rendezvous: boolean
  readonly serviceId: string
  /** Whether the tunnel forwards UDP: the keys are udp_listen and udp_connect. */
  readonly isUdp?: boolean
  /** Value of the key `listen`; likewise below. */
  readonly listen: string
  readonly connect: string
  readonly method: string
  /** Ports of the monitoring servers, on loopback. */
  readonly httpPorts: Readonly<Record<Role, number>>
}

type Value = string | number

/** The content of one file. */
export type Written = Readonly<
  Record<string, Value | Readonly<Record<string, Value>> | readonly UserKey[] | readonly string[]>
>

/** An entry of `keys`. */
interface UserKey {
  readonly name: string
  readonly psk: string
}

/** The files of a server with a key for each user. */
export interface UserConfigs {
  readonly server: Written
  /** By name. */
  readonly clients: ReadonlyMap<string, Written>
}

export const formatHostPort = ({ host, port, range }: HostPort): string => {
  const ports = range === undefined ? port : `${range.first}-${range.last}`
  return host.includes(':') ? `[${host}]:${ports}` : `${host}:${ports}`
}

export function randomPort(): number {
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1))
  return PORT_FIRST + (random % (PORT_LAST - PORT_FIRST + 1))
}

/** Whether a server can bind all ports of a range; otherwise it binds the first, and a firewall redirects the others. */
export const bindsAll = ({ range }: HostPort): boolean =>
  range === undefined || range.last - range.first < BIND_PORTS_MAX

/**
 * The address to bind for an endpoint that is reached at `meeting`: a loopback address is kept, other IPv4 addresses
 * become the IPv4 wildcard. Names and IPv6 addresses become the IPv6 wildcard, which accepts both families.
 */
export function bindAddress(meeting: HostPort): string {
  const { host, port } = meeting
  const ports = bindsAll(meeting) ? meeting : { port }
  if (isLoopbackHost(host)) return formatHostPort({ ...ports, host })
  return formatHostPort({ ...ports, host: /^[\d.]+$/.test(host) ? '0.0.0.0' : '::' })
}

/** A file of servers that bind the same address. */
export interface ServerFile {
  readonly name: 'server' | `server-${number}`
  readonly bind: string
  readonly servers: readonly [HostPort, ...HostPort[]]
}

/** The files of all servers: one, unless they differ in what they bind. */
export function serverFiles({ meeting, others = [] }: Pick<Wishes, 'meeting' | 'others'>): readonly ServerFile[] {
  const all = [meeting, ...others]
  const binds = all.map(bindAddress)
  const groups = new Map<string, [HostPort, ...HostPort[]]>()
  for (const [index, server] of all.entries()) {
    const own = binds[index] ?? ''
    // the wildcard of IPv6 accepts both families
    const both = own.replace(/^0\.0\.0\.0:/, '[::]:')
    const bind = binds.includes(both) ? both : own
    const group = groups.get(bind)
    if (group === undefined) groups.set(bind, [server])
    else group.push(server)
  }
  return [...groups].map(([bind, servers], index) => ({
    name: groups.size === 1 ? 'server' : `server-${index + 1}`,
    bind,
    servers,
  }))
}

/** Generates the content of each file by role: two files, or three with a rendezvous server. */
export function generateConfigs(wishes: Wishes): ReadonlyMap<Role, Written> {
  const { meeting, others = [], strategy, rendezvous, serviceId, method, httpPorts } = wishes
  const listen = { [wishes.isUdp === true ? 'udp_listen' : 'listen']: wishes.listen }
  const connect = { [wishes.isUdp === true ? 'udp_connect' : 'connect']: wishes.connect }
  const psk = generatePsk()
  const shared = (role: Role): Written => ({ method, psk, http_listen: `127.0.0.1:${httpPorts[role]}` })
  const bind = { kcp_bind: serverFiles(wishes)[0]?.bind ?? '' }
  const address = formatHostPort(meeting)
  if (!rendezvous) {
    const servers = others.length === 0 ? address : [meeting, ...others].map(formatHostPort)
    const choice: Written = strategy === undefined ? {} : { strategy }
    return new Map<Role, Written>([
      ['server', { $schema: SCHEMA_URL, ...bind, ...connect, ...shared('server') }],
      ['client', { $schema: SCHEMA_URL, ...listen, kcp_connect: servers, ...choice, ...shared('client') }],
    ])
  }
  const met = { rendezvous_server: address, service_id: serviceId }
  return new Map<Role, Written>([
    ['rendezvous', { $schema: SCHEMA_URL, ...bind, ...shared('rendezvous') }],
    ['server', { $schema: SCHEMA_URL, ...met, ...connect, ...shared('server') }],
    ['client', { $schema: SCHEMA_URL, ...listen, ...met, ...shared('client') }],
  ])
}

/** Gives each user a key of his own. @param configs of a server and its client */
export function withUsers(configs: ReadonlyMap<Role, Written>, users: readonly string[]): UserConfigs {
  const keys = users.map((name) => ({ name, psk: generatePsk() }))
  const entries = Object.entries(configs.get('server') ?? {})
  const server = Object.fromEntries(entries.map(([key, value]) => (key === 'psk' ? ['keys', keys] : [key, value])))
  const clients = new Map(keys.map(({ name, psk }) => [name, { ...configs.get('client'), psk }]))
  return { server, clients }
}
