/** The probing socket of an endpoint: opened on a new port while the peer is silent (port-probe.ts). */

import type { Driver } from '../driver/driver.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../runtime.ts'
import { asSeenBy, localTowards } from './rendezvous.ts'
import { isWildcard, type Remote } from './resolver.ts'

interface Opened {
  readonly socket: UdpSocket
  readonly options: UdpOptions
  /** The remote end that it is for. */
  readonly remote: Remote
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
   * @param remote the remote end that it is for
   * @param fwmark mark of packets to the rendezvous server, which selects their route
   */
  async open(wanted: UdpOptions, remote: Remote, fwmark: number): Promise<void> {
    this.close()
    const options = { ...wanted, bind: { ...wanted.bind, port: 0 } }
    const socket = await this.#driver.sockets.add((handlers) => this.#runtime.openUdp(options, handlers))
    this.#driver.sockets.probe(socket)
    this.#opened = { socket, options, remote }
    const { rendezvous } = remote
    if (rendezvous === undefined || !isWildcard(options.bind)) return
    const local = await localTowards(this.#runtime, rendezvous, fwmark)
    // as for the socket in use (rendezvous.ts)
    if (local !== undefined) socket.leaveFree?.(asSeenBy(socket.local, local))
  }

  /** Pings the peer, or without one the rendezvous server, from the socket in use and from this one. */
  pingBoth(): void {
    if (this.#opened === undefined) return
    const { socket, remote } = this.#opened
    const isFound = this.#driver.peer !== undefined
    const server = isFound ? undefined : remote.rendezvous && asSeenBy(socket.local, remote.rendezvous)
    this.#driver.probePath(socket.local.port, remote.peer ?? server)
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
