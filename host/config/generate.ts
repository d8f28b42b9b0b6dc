/**
 * Generates matching configurations: for a server and its client, and optionally for a rendezvous server. They share a
 * fresh key and, unless they forward UDP, contain only keys of kcptun-libev, and `$schema`, which it ignores, so that
 * either program accepts each file.
 */

import { generatePsk } from '../crypto/key.ts'
import { type HostPort, isLoopbackHost } from '../net/address.ts'
import { VERSION } from '../version.ts'

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
export type Written = Readonly<Record<string, Value | Readonly<Record<string, Value>> | readonly UserKey[]>>

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

export const formatHostPort = ({ host, port }: HostPort): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

export function randomPort(): number {
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1))
  return PORT_FIRST + (random % (PORT_LAST - PORT_FIRST + 1))
}

/**
 * The address to bind for an endpoint that is reached at `meeting`: a loopback address is kept, other IPv4 addresses
 * become the IPv4 wildcard. Names and IPv6 addresses become the IPv6 wildcard, which accepts both families.
 */
export function bindAddress({ host, port }: HostPort): string {
  if (isLoopbackHost(host)) return formatHostPort({ host, port })
  return /^[\d.]+$/.test(host) ? `0.0.0.0:${port}` : `[::]:${port}`
}

/** Generates the content of each file by role: two files, or three with a rendezvous server. */
export function generateConfigs(wishes: Wishes): ReadonlyMap<Role, Written> {
  const { meeting, rendezvous, serviceId, method, httpPorts } = wishes
  const listen = { [wishes.isUdp === true ? 'udp_listen' : 'listen']: wishes.listen }
  const connect = { [wishes.isUdp === true ? 'udp_connect' : 'connect']: wishes.connect }
  const psk = generatePsk()
  const shared = (role: Role): Written => ({ method, psk, http_listen: `127.0.0.1:${httpPorts[role]}` })
  const bind = { kcp_bind: bindAddress(meeting) }
  const address = formatHostPort(meeting)
  if (!rendezvous) {
    return new Map<Role, Written>([
      ['server', { $schema: SCHEMA_URL, ...bind, ...connect, ...shared('server') }],
      ['client', { $schema: SCHEMA_URL, ...listen, kcp_connect: address, ...shared('client') }],
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
