/**
 * The UDP socket that an endpoint sends from, or several on the addresses of `kcp_bind`. Another one takes its place only
 * when it is open, and keeps its port, by which a server knows the sessions of a client.
 */

import type { Driver } from '../driver/driver.ts'
import { codeOf, messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../runtime.ts'
import { JoinedUdp } from './joined-udp.ts'

export class SendingSocket {
  readonly #runtime: Pick<Runtime, 'openUdp'>
  readonly #driver: Driver
  readonly #log: Log
  /** Options the socket in use was opened with: those of each address. */
  #opened: readonly UdpOptions[] = []
  #joined: JoinedUdp | undefined
  /** Local port to keep; 0 before the first socket. */
  #port = 0
  #closed = false

  constructor(runtime: Pick<Runtime, 'openUdp'>, driver: Driver, log: Log) {
    this.#runtime = runtime
    this.#driver = driver
    this.#log = log
  }

  /** The local port of the last socket; 0 before the first. */
  get port(): number {
    return this.#port
  }

  /** The local addresses. */
  get locals(): readonly SocketAddress[] {
    const { sender } = this.#driver.sockets
    return this.#joined?.locals ?? (sender === undefined ? [] : [sender.local])
  }

  /** Whether an address of `kcp_bind` has no socket, because no interface has it. */
  get isPartial(): boolean {
    return this.#joined?.isComplete === false
  }

  /**
   * Opens a socket in place of the one in use, with its port if the options do not set one and it is free.
   * @param all options for each address; one that no interface has is left out if there is another one
   */
  async open(all: readonly UdpOptions[]): Promise<UdpSocket> {
    const socket = await this.#openKeepingPort(all)
    this.#port = socket.local.port
    return socket
  }

  /** Sends from a new socket; the one in use is left open. */
  async replace(options: UdpOptions): Promise<void> {
    const socket = await this.#add([options])
    this.#port = socket.local.port
  }

  /** Opens sockets on the addresses that were left out and exist now. */
  async complete(): Promise<void> {
    const known = new Set(this.locals.map(formatAddress))
    await this.#joined?.open().catch((error) => this.#log.info(`udp: cannot open another address: ${messageOf(error)}`))
    for (const local of this.locals.map(formatAddress)) {
      if (!known.has(local)) this.#log.notice(`udp bind: ${local}`)
    }
  }

  /** Another socket, opened elsewhere, is in use now. */
  adopted(options: UdpOptions, port: number): void {
    this.#opened = [options]
    this.#joined = undefined
    this.#port = port
  }

  /** Opens nothing any more. */
  close(): void {
    this.#closed = true
  }

  async #openKeepingPort(all: readonly UdpOptions[]): Promise<UdpSocket> {
    if (portOf(all) === 0 && this.#port !== 0) {
      try {
        return await this.#replace(withPort(all, this.#port))
      } catch (error) {
        if (codeOf(error) !== 'EADDRINUSE') throw error
      }
    }
    return this.#replace(all)
  }

  /**
   * Opens a socket and replaces the one in use, which serves until then. A socket with the same port must be closed
   * first; it is reopened if the new one cannot be opened.
   */
  async #replace(all: readonly UdpOptions[]): Promise<UdpSocket> {
    const { sockets } = this.#driver
    const before = sockets.sender
    const opened = this.#opened
    const isSamePort = portOf(all) !== 0 && portOf(all) === before?.local.port
    if (isSamePort) sockets.remove(before)
    try {
      const socket = await this.#add(all)
      sockets.remove(before)
      return socket
    } catch (error) {
      if (isSamePort && opened.length > 0 && !this.#closed) {
        await this.#add(withPort(opened, portOf(all))).catch((again) =>
          this.#log.warning(`udp: cannot reopen the previous socket: ${messageOf(again)}`),
        )
      }
      throw error
    }
  }

  async #add(all: readonly UdpOptions[]): Promise<UdpSocket> {
    const [options, ...others] = all
    if (options === undefined) throw new Error('no address to bind to')
    let joined: JoinedUdp | undefined
    const socket = await this.#driver.sockets.add((handlers) => {
      if (others.length === 0) return this.#runtime.openUdp(options, handlers)
      joined = new JoinedUdp(this.#runtime, all, handlers)
      return this.#openJoined(joined)
    })
    this.#driver.sockets.send(socket, options.connect)
    this.#opened = all
    this.#joined = joined
    return socket
  }

  async #openJoined(joined: JoinedUdp): Promise<UdpSocket> {
    try {
      const missing = [...(await joined.open())]
      const [first] = missing
      if (first !== undefined && joined.locals.length === 0) throw first[1]
      for (const [address, error] of missing) {
        this.#log.warning(`udp: cannot open ${formatAddress(address)}: ${messageOf(error)}`)
      }
      return joined
    } catch (error) {
      joined.close()
      throw error
    }
  }
}

/** The port to bind to; 0: any. */
const portOf = (all: readonly UdpOptions[]): number => all[0]?.bind.port ?? 0

const withPort = (all: readonly UdpOptions[], port: number): readonly UdpOptions[] =>
  all.map((options) => ({ ...options, bind: { ...options.bind, port } }))
