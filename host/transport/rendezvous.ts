/**
 * What a rendezvous message says about ourselves (protocol.md 8): the address of our own socket, as the local network
 * sees it, so that peers behind one NAT find each other. The messages are the engine's.
 */

import type { Driver } from '../driver/driver.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, UdpHandlers } from '../runtime.ts'
import { isWildcard, sameMaybe, wildcard } from './resolver.ts'

const NO_HANDLERS: UdpHandlers = { onDatagram() {}, onBatchEnd() {}, onWritable() {}, onError() {} }

/**
 * The IP that the system uses towards an address, by a socket that is connected and thrown away; nothing is sent.
 * @returns undefined when there is no route to it now
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
 * The address for LISTEN and CONNECT: our IP with the real port of the socket. kcptun-libev sends the port of its
 * throw-away socket, which is useless.
 * @param socket local address of the socket
 * @param bound whether the configuration binds it to one address
 * @param probed what localTowards said about the rendezvous server; unknown = 0.0.0.0:0, as kcptun-libev
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

interface Announced {
  readonly server: SocketAddress
  readonly local: SocketAddress
  readonly service: string
}

/** Announces an endpoint to its rendezvous server: where it is and under which service id. */
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
   * Announces the socket in use, if something about it is new.
   * @param bound whether the configuration binds it to one address
   * @param anew announce it even if nothing is new
   */
  async announce(server: SocketAddress, service: string, bound: boolean, anew: boolean): Promise<void> {
    const socket = this.#driver.sockets.sender
    if (socket === undefined) return
    const local = announcedAddress(socket.local, bound, await localTowards(this.#runtime, server))
    const seen = asSeenBy(socket.local, server)
    if (this.#closed) return
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
