/** What UDP sockets are opened with: derived from the addresses (resolver.ts) and the configuration. */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { StartError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { UdpOptions } from '../runtime.ts'
import { type ResolvedAddresses, sameMaybe, wildcard } from './resolver.ts'
import type { TransportOptions } from './transport.ts'

/** Whether two configurations differ in options that are set when a UDP socket is opened. */
export const needsOtherSocket = (old: Config, fresh: Config): boolean =>
  (['netdev', 'fwmark', 'dscp'] as const).some((key) => old[key] !== fresh[key]) ||
  JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)

/** Family of a socket that reaches every address of the rendezvous server: an IPv6 socket reaches IPv4, too. */
const rendezvousFamily = ({ rendezvous, rendezvousAddresses }: ResolvedAddresses): 4 | 6 | undefined =>
  rendezvousAddresses.some(({ family }) => family === 6) ? 6 : rendezvous?.family

/** The address to bind to; undefined while neither it nor a remote address is known. */
function bindOf(addresses: ResolvedAddresses): SocketAddress | undefined {
  const { bind, binds, peer, rendezvous } = addresses
  const remote = peer ?? rendezvous
  const family = peer === undefined ? rendezvousFamily(addresses) : peer.family
  return binds.find((address) => address.family === remote?.family) ?? bind ?? (family && wildcard(family))
}

/** The addresses that the socket is bound to: a connected socket has one, others have all of `kcp_bind`. */
function bindsOf(addresses: ResolvedAddresses): readonly (SocketAddress | undefined)[] {
  const { binds, peer } = addresses
  return peer === undefined && binds.length > 1 ? binds : [bindOf(addresses)]
}

/** Whether a socket for the addresses before serves the others, too. */
export function isSameSocket(before: ResolvedAddresses, after: ResolvedAddresses): boolean {
  const old = bindsOf(before)
  const fresh = bindsOf(after)
  const isSameBind = old.length === fresh.length && old.every((address, index) => sameMaybe(address, fresh[index]))
  return isSameBind && sameMaybe(before.peer, after.peer) && before.rendezvous?.family === after.rendezvous?.family
}

/**
 * Options of the UDP socket: connected if the peer's address is known, else unconnected. Of several addresses of
 * `kcp_bind` it is bound to one of the family of the remote end.
 * @throws StartError if there is no address to bind to, or the families do not match
 */
export function udpOptions(addresses: ResolvedAddresses): UdpOptions {
  const { peer, rendezvous } = addresses
  const remote = peer ?? rendezvous
  const bind = bindOf(addresses)
  if (bind === undefined) throw new StartError('kcp_bind: missing')
  if (remote !== undefined && bind.family === 4 && remote.family === 6) {
    const key = peer === undefined ? 'rendezvous_server' : 'kcp_connect'
    throw new StartError(`${key}: an IPv6 address is not reachable from an IPv4 kcp_bind`)
  }
  return peer === undefined ? { bind } : { bind, connect: peer }
}

/**
 * Family of the packets on the network, for the MTU calculation: the last address present decides (protocol.md 4). With
 * a rendezvous server, an IPv6 socket may have peers of either family, so the longer header counts.
 */
export function packetFamily(addresses: ResolvedAddresses): 4 | 6 {
  const { bind, binds, peer } = addresses
  if (peer !== undefined) return peer.family
  return binds.some(({ family }) => family === 6) ? 6 : (rendezvousFamily(addresses) ?? bind?.family ?? 4)
}

/** Options of a socket that a transport opens for these addresses. */
export function optionsFor(
  { socketOptions }: Pick<TransportOptions, 'socketOptions'>,
  config: Config,
  addresses: ResolvedAddresses,
): UdpOptions {
  return {
    ...udpOptions(addresses),
    path: config.udp.path,
    gso: config.udp.gso === 'auto',
    gro: config.udp.gro === 'auto',
    // a client has one path, which follows the routes
    replyFromAsked: (config.mode & MODE_CLIENT) === 0,
    socketOptions: socketOptions(config),
  }
}

/** Options for each address that the socket in use is bound to. */
export function allOptionsFor(
  options: Pick<TransportOptions, 'socketOptions'>,
  config: Config,
  addresses: ResolvedAddresses,
): readonly [UdpOptions, ...UdpOptions[]] {
  const first = optionsFor(options, config, addresses)
  const [bind = first.bind, ...others] = bindsOf(addresses)
  const further = others.map((other = bind, index) => {
    return { ...first, bind: other, socketOptions: options.socketOptions(config, index + 1) }
  })
  return [{ ...first, bind }, ...further]
}
