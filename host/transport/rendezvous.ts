/**
 * Announces the local address of the endpoint's socket to the rendezvous server (protocol.md 8), so that peers behind
 * the same NAT find each other. The engine builds the messages.
 */

import type { Driver } from '../driver/driver.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import { isWildcard, NO_HANDLERS, wildcard } from './resolver.ts'

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

/** An endpoint and where it is announced. */
export interface Announcing {
  readonly server: SocketAddress
  /** Other addresses of the server's name. */
  readonly others: readonly SocketAddress[]
  readonly service: string
  /** Whether the configuration binds the socket to one address. */
  readonly bound: boolean
  /** SO_MARK of the socket. */
  readonly fwmark: number
}

/** Announces the address and service id of an endpoint to its rendezvous server. */
export class RendezvousAnnouncer {
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  /** What was announced, as text. */
  #announced = ''
  #closed = false

  constructor(runtime: Runtime, log: Log, driver: Driver) {
    this.#runtime = runtime
    this.#log = log
    this.#driver = driver
  }

  /**
   * Announces the socket in use if the announcement changed.
   * @param anew announce it even if unchanged
   */
  async announce({ server, others, service, bound, fwmark }: Announcing, anew: boolean): Promise<void> {
    const socket = this.#driver.sockets.sender
    if (socket === undefined) return
    const local = announcedAddress(socket.local, bound, await localTowards(this.#runtime, server, fwmark))
    const see = (address: SocketAddress): SocketAddress => asSeenBy(socket.local, address)
    if (this.#closed) return
    // the announced address follows the routes; only what clients find otherwise is theirs to choose
    if (!bound && !isWildcard(local)) socket.leaveFree?.(see(local))
    const announced = [server, ...others, local].map(see).map(formatAddress).concat(service).join(' ')
    if (!anew && this.#announced === announced) return
    this.#announced = announced
    this.#driver.setRendezvous({
      server: see(server),
      others: others.map(see),
      local,
      service: new TextEncoder().encode(service),
    })
    this.#log.notice(`rendezvous mode: ${formatAddress(local)} -> ${formatAddress(server)}`)
  }

  close(): void {
    this.#closed = true
  }
}
