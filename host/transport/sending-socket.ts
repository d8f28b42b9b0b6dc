/**
 * The UDP socket that an endpoint sends from. Another one takes its place only when it is open, and keeps its port, by
 * which a server knows the sessions of a client.
 */

import type { Driver } from '../driver/driver.ts'
import { codeOf, messageOf } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime, UdpOptions, UdpSocket } from '../runtime.ts'

export class SendingSocket {
  readonly #runtime: Runtime
  readonly #driver: Driver
  readonly #log: Log
  /** Options the socket in use was opened with. */
  #opened: UdpOptions | undefined
  /** Local port to keep; 0 before the first socket. */
  #port = 0
  #closed = false

  constructor(runtime: Runtime, driver: Driver, log: Log) {
    this.#runtime = runtime
    this.#driver = driver
    this.#log = log
  }

  /** The local port of the last socket; 0 before the first. */
  get port(): number {
    return this.#port
  }

  /** Opens a socket in place of the one in use, with its port if the options do not set one and it is free. */
  async open(options: UdpOptions): Promise<UdpSocket> {
    const socket = await this.#openKeepingPort(options)
    this.#port = socket.local.port
    return socket
  }

  /** Another socket, opened elsewhere, is in use now. */
  adopted(options: UdpOptions, port: number): void {
    this.#opened = options
    this.#port = port
  }

  /** Opens nothing any more. */
  close(): void {
    this.#closed = true
  }

  async #openKeepingPort(options: UdpOptions): Promise<UdpSocket> {
    if (options.bind.port === 0 && this.#port !== 0) {
      try {
        return await this.#replace({ ...options, bind: { ...options.bind, port: this.#port } })
      } catch (error) {
        if (codeOf(error) !== 'EADDRINUSE') throw error
      }
    }
    return this.#replace(options)
  }

  /**
   * Opens a socket and replaces the one in use, which serves until then. A socket with the same port must be closed
   * first; it is reopened if the new one cannot be opened.
   */
  async #replace(options: UdpOptions): Promise<UdpSocket> {
    const { sockets } = this.#driver
    const before = sockets.sender
    const opened = this.#opened
    const isSamePort = options.bind.port !== 0 && options.bind.port === before?.local.port
    if (isSamePort) sockets.remove(before)
    try {
      const socket = await this.#add(options)
      sockets.remove(before)
      return socket
    } catch (error) {
      if (isSamePort && opened !== undefined && !this.#closed) {
        await this.#add({ ...opened, bind: { ...opened.bind, port: options.bind.port } }).catch((again) =>
          this.#log.warning(`udp: cannot reopen the previous socket: ${messageOf(again)}`),
        )
      }
      throw error
    }
  }

  async #add(options: UdpOptions): Promise<UdpSocket> {
    const socket = await this.#driver.sockets.add((handlers) => this.#runtime.openUdp(options, handlers))
    this.#driver.sockets.send(socket, options.connect)
    this.#opened = options
    return socket
  }
}
