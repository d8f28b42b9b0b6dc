/**
 * Configurations that fit together: a server and its client, or those two and the rendezvous server that introduces
 * them. All of them share a fresh key. Keys of kcptun-libev only, so that either program can take any of the files.
 */

import { generatePsk } from '../crypto/key.ts'
import { type HostPort, isLoopbackHost } from '../net/address.ts'

/** Where `init` picks ports: no well-known services, and above those that Linux takes for outgoing connections. */
const PORT_FIRST = 61_000
const PORT_LAST = 65_535

export type Role = 'client' | 'server' | 'rendezvous'

export interface Wishes {
  /** Address that the client reaches the server by, or server and client the rendezvous server. */
  readonly meeting: HostPort
  /** Whether `meeting` is a rendezvous server. */
  readonly rendezvous: boolean
  readonly serviceId: string
  /** As in the configuration. */
  readonly listen: string
  readonly connect: string
  readonly method: string
  /** Ports of the monitoring servers, on loopback. */
  readonly httpPorts: Readonly<Record<Role, number>>
}

export type Written = Readonly<Record<string, string>>

export const formatHostPort = ({ host, port }: HostPort): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

export function randomPort(): number {
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1))
  return PORT_FIRST + (random % (PORT_LAST - PORT_FIRST + 1))
}

/**
 * The address to bind for an endpoint that is reached at `meeting`: loopback stays loopback, an IPv4 address wants the IPv4
 * wildcard. For the rest, names too, that of IPv6 takes both families.
 */
function bindAddress({ host, port }: HostPort): string {
  if (isLoopbackHost(host)) return formatHostPort({ host, port })
  return /^[\d.]+$/.test(host) ? `0.0.0.0:${port}` : `[::]:${port}`
}

/** The content of each file, by role: two, or three with a rendezvous server. */
export function generateConfigs(wishes: Wishes): ReadonlyMap<Role, Written> {
  const { meeting, rendezvous, serviceId, listen, connect, method, httpPorts } = wishes
  const psk = generatePsk()
  const shared = (role: Role): Written => ({ method, psk, http_listen: `127.0.0.1:${httpPorts[role]}` })
  const bind = { kcp_bind: bindAddress(meeting) }
  const address = formatHostPort(meeting)
  if (!rendezvous) {
    return new Map<Role, Written>([
      ['server', { ...bind, connect, ...shared('server') }],
      ['client', { listen, kcp_connect: address, ...shared('client') }],
    ])
  }
  const met = { rendezvous_server: address, service_id: serviceId }
  return new Map<Role, Written>([
    ['rendezvous', { ...bind, ...shared('rendezvous') }],
    ['server', { ...met, connect, ...shared('server') }],
    ['client', { listen, ...met, ...shared('client') }],
  ])
}
