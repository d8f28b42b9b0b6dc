/**
 * What a rendezvous message says about ourselves (protocol.md 8): the address of our own socket, as the local network
 * sees it, so that peers behind one NAT find each other. The messages are the engine's.
 */

import type { SocketAddress } from '../net/address.ts'
import type { Runtime, UdpHandlers } from '../runtime.ts'
import { isWildcard, wildcard } from './resolver.ts'

const NO_HANDLERS: UdpHandlers = { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} }

/**
 * The IP that the system uses towards an address, by a socket that is connected and thrown away; nothing is sent.
 * @returns undefined when there is no way to it now
 */
export async function localTowards(runtime: Runtime, remote: SocketAddress): Promise<SocketAddress | undefined> {
  try {
    const probe = await runtime.openUdp({ bind: wildcard(remote.family), connect: remote }, NO_HANDLERS)
    const { local } = probe
    probe.close()
    return isWildcard(local) ? undefined : local
  } catch {
    return undefined
  }
}

/**
 * The address for LISTEN and CONNECT: our IP with the real port of the socket. The original sends the port of its
 * throw-away socket, which nobody can use.
 * @param socket local address of the socket
 * @param bound whether the configuration binds it to one address
 * @param probed what localTowards said about the rendezvous server; unknown = 0.0.0.0:0, as the original
 */
export function announcedAddress(
  socket: SocketAddress,
  bound: boolean,
  probed: SocketAddress | undefined,
): SocketAddress {
  if (bound) return socket
  return probed === undefined ? wildcard(socket.family) : { ...probed, port: socket.port }
}

/** An address as a socket of this family meets it: an IPv6 socket knows IPv4 by mapped addresses (RFC 4291 2.5.5.2). */
export function asSeenBy(socket: SocketAddress, address: SocketAddress): SocketAddress {
  if (socket.family === address.family || socket.family === 4) return address
  return { family: 6, address: `::ffff:${address.address}`, port: address.port, scope: 0 }
}
