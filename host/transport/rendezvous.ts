/**
 * Announces the local address of the endpoint's socket to the rendezvous server (protocol.md 8), so that peers behind
 * the same NAT find each other. The engine builds the messages.
 */

import type { Driver } from '../driver/driver.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import { isWildcard, NO_HANDLERS, sameMaybe, wildcard } from './resolver.ts'

/**
 * Determines the source address that the kernel selects for a destination, with a temporary connected socket. Sends
 * nothing.
 * @param fwmark SO_MARK, which may select another route; 0 = none
 * @returns undefined if there is no route
 */
export async function localTowards(
  runtime: Runtime,
  remote: SocketAddress,
  fwmark: number,
): Promise<SocketAddress | undefined> {
  // a refusal is logged for the socket that serves
  const marked = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '', fwmark, refused() {} }
  const socketOptions = fwmark === 0 ? undefined : marked
  try {
    const probe = await runtime.openUdp({ bind: wildcard(remote.family), connect: remote, socketOptions }, NO_HANDLERS)
    const { local } = probe
    probe.close()
    return isWildcard(local) ? undefined : local
  } catch {
    return undefined
  }
}

/**
 * The address announced in LISTEN and CONNECT: the local IP with the port of the endpoint's socket. kcptun-libev sends
 * the port of its temporary socket, which is useless.
 * @param socket local address of the socket
 * @param bound whether the configuration binds it to one address
 * @param probed result of localTowards for the rendezvous server; undefined announces 0.0.0.0:0, as kcptun-libev does
 */
export function announcedAddress(
  socket: SocketAddress,
  bound: boolean,
  probed: SocketAddress | undefined,
): SocketAddress {
  if (bound) return socket
  return probed === undefined ? wildcard(socket.family) : { ...probed, port: socket.port }
}

/** An address in the family of a socket: an IPv6 socket uses IPv4-mapped addresses for IPv4 (RFC 4291 2.5.5.2). */
export function asSeenBy(socket: SocketAddress, address: SocketAddress): SocketAddress {
  if (socket.family === address.family || socket.family === 4) return address
  return { family: 6, address: `::ffff:${address.address}`, port: address.port, scope: 0 }
}

interface Announced {
  readonly server: SocketAddress
  readonly local: SocketAddress
  readonly service: string
}

/** Announces the address and service id of an endpoint to its rendezvous server. */
export class RendezvousAnnouncer {
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  #announced: Announced | undefined
  #closed = false

  constructor(runtime: Runtime, log: Log, driver: Driver) {
    this.#runtime = runtime
    this.#log = log
    this.#driver = driver
  }

  /**
   * Announces the socket in use if the announcement changed.
   * @param bound whether the configuration binds it to one address
   * @param anew announce it even if unchanged
   * @param fwmark SO_MARK of the socket
   */
  async announce(server: SocketAddress, service: string, bound: boolean, anew: boolean, fwmark: number): Promise<void> {
    const socket = this.#driver.sockets.sender
    if (socket === undefined) return
    const local = announcedAddress(socket.local, bound, await localTowards(this.#runtime, server, fwmark))
    const seen = asSeenBy(socket.local, server)
    if (this.#closed) return
    // the announced address follows the routes; only what clients find otherwise is theirs to choose
    if (!bound && !isWildcard(local)) socket.leaveFree?.(asSeenBy(socket.local, local))
    const old = this.#announced
    if (!anew && old?.service === service && sameMaybe(old.server, seen) && sameMaybe(old.local, local)) return
    this.#announced = { server: seen, local, service }
    this.#driver.setRendezvous(seen, local, new TextEncoder().encode(service))
    this.#log.notice(`rendezvous mode: ${formatAddress(local)} -> ${formatAddress(server)}`)
  }

  close(): void {
    this.#closed = true
  }
}
