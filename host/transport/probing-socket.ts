/** The probing socket of an endpoint: opened on a new port while the peer is silent (port-probe.ts). */

import type { Driver } from '../driver/driver.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../runtime.ts'
import { asSeenBy, localTowards } from './rendezvous.ts'
import { isWildcard } from './resolver.ts'

interface Opened {
  readonly socket: UdpSocket
  readonly options: UdpOptions
  /** The address of the peer that it is for. */
  readonly peer: SocketAddress | undefined
}

export class ProbingSocket {
  readonly #runtime: Runtime
  readonly #driver: Driver
  #opened: Opened | undefined

  constructor(runtime: Runtime, driver: Driver) {
    this.#runtime = runtime
    this.#driver = driver
  }

  /** The socket, while there is one. */
  get opened(): Opened | undefined {
    return this.#opened
  }

  /**
   * Opens a socket on a new port, in place of the previous one.
   * @param wanted options of the socket in use
   * @param peer the address of the peer that it is for
   * @param rendezvous the rendezvous server
   * @param fwmark mark of packets to it, which selects their route
   */
  async open(
    wanted: UdpOptions,
    peer: SocketAddress | undefined,
    rendezvous: SocketAddress | undefined,
    fwmark: number,
  ): Promise<void> {
    this.close()
    const options = { ...wanted, bind: { ...wanted.bind, port: 0 } }
    const socket = await this.#driver.sockets.add((handlers) => this.#runtime.openUdp(options, handlers))
    this.#driver.sockets.probe(socket)
    this.#opened = { socket, options, peer }
    if (rendezvous === undefined || !isWildcard(options.bind)) return
    const local = await localTowards(this.#runtime, rendezvous, fwmark)
    // as for the socket in use (rendezvous.ts)
    if (local !== undefined) socket.leaveFree?.(asSeenBy(socket.local, local))
  }

  /** Pings the peer from the socket in use and from this one. */
  pingBoth(): void {
    if (this.#opened !== undefined) this.#driver.probePath(this.#opened.socket.local.port, this.#opened.peer)
  }

  /** Sends from this socket from now on, in place of the one in use. */
  takeOver(): void {
    const { sockets } = this.#driver
    const before = sockets.sender
    if (this.#opened === undefined) return
    sockets.send(this.#opened.socket, this.#opened.options.connect)
    sockets.remove(before)
    this.#opened = undefined
  }

  close(): void {
    this.#driver.sockets.remove(this.#opened?.socket)
    this.#opened = undefined
  }
}
