/**
 * The UDP sockets of one endpoint. Each of them may bring datagrams; one sends. When a socket is opened, used and removed
 * is the transport's decision (host/transport).
 */

import type { SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { UdpHandlers, UdpSocket } from '../runtime.ts'

/** What arrives from the sockets. */
export interface UdpSocketsHost {
  /** There is an engine that takes datagrams. */
  readonly alive: boolean
  onDatagram(data: Uint8Array, from: SocketAddress): void
  onBatchEnd(): void
  /** Of the socket that sends. */
  onWritable(): void
  /** Of the socket that sends. */
  onUdpError(error: SystemError): void
  /** Another socket sends from now on; null = none. `connected`: the only receiver, if it has just one. */
  onSender(socket: UdpSocket | null, connected: SocketAddress | undefined): void
}

export class UdpSockets {
  readonly #host: UdpSocketsHost
  readonly #open = new Set<UdpSocket>()
  #sender: UdpSocket | undefined
  #closed = false

  constructor(host: UdpSocketsHost) {
    this.#host = host
  }

  /** The socket that sends; none when the last one could not be opened. */
  get sender(): UdpSocket | undefined {
    return this.#sender
  }

  /**
   * Adds the socket that `openSocket` opens: datagrams that it receives are handled from now on.
   * @throws what `openSocket` rejects with; Error after close()
   */
  async add(openSocket: (handlers: UdpHandlers) => Promise<UdpSocket>): Promise<UdpSocket> {
    let own: UdpSocket | undefined
    const isOpen = (): boolean => this.#host.alive && own !== undefined && this.#open.has(own)
    const isSender = (): boolean => isOpen() && own === this.#sender
    own = await openSocket({
      onDatagram: (data, from) => {
        if (isOpen()) this.#host.onDatagram(data, from)
      },
      onBatchEnd: () => {
        if (isOpen()) this.#host.onBatchEnd()
      },
      onWritable: () => {
        if (isSender()) this.#host.onWritable()
      },
      onError: (error) => {
        if (isSender()) this.#host.onUdpError(error)
      },
    })
    if (this.#closed) {
      own.close()
      throw new Error('closed')
    }
    this.#open.add(own)
    return own
  }

  /**
   * Sends by this socket from now on. The one before goes on receiving until it is removed.
   * @param connected the only peer of the socket, if it has just one
   */
  send(socket: UdpSocket, connected: SocketAddress | undefined): void {
    this.#sender = socket
    this.#host.onSender(socket, connected)
  }

  /** Closes a socket; without a sender what the engine sends is lost. */
  remove(socket: UdpSocket | undefined): void {
    if (socket === undefined || !this.#open.delete(socket)) return
    socket.close()
    if (socket !== this.#sender) return
    this.#sender = undefined
    this.#host.onSender(null, undefined)
  }

  /** Closes all of them, for good. */
  close(): void {
    this.#closed = true
    for (const socket of this.#open) this.remove(socket)
  }
}
