/**
 * The UDP sockets of one endpoint. All of them may receive datagrams; one sends, and one may probe another path. The
 * transport (host/transport) decides when a socket is opened, selected and removed.
 */

import type { SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { UdpHandlers, UdpSocket } from '../runtime.ts'

/** Callbacks for socket events. */
export interface UdpSocketsHost {
  /** Whether there is an engine to pass datagrams to. */
  readonly alive: boolean
  /** @param atProbe whether it arrived at the probing socket */
  onDatagram(data: Uint8Array, from: SocketAddress, atProbe: boolean): void
  onBatchEnd(): void
  /** The sending socket is writable. */
  onWritable(): void
  /** The sending socket reported an error. */
  onUdpError(error: SystemError): void
  /** See UdpHandlers. */
  onMergedLost(): void
  /** The sending socket changed; null = none. `connected`: the address it is connected to, if it is. */
  onSender(socket: UdpSocket | null, connected: SocketAddress | undefined): void
  /** The probing socket changed; undefined = none. */
  onProbe(socket: UdpSocket | undefined): void
}

export class UdpSockets {
  readonly #host: UdpSocketsHost
  readonly #open = new Set<UdpSocket>()
  #sender: UdpSocket | undefined
  #probe: UdpSocket | undefined
  #closed = false
  #isKept = true

  constructor(host: UdpSocketsHost) {
    this.#host = host
  }

  /** The sending socket; undefined if the last one could not be opened. */
  get sender(): UdpSocket | undefined {
    return this.#sender
  }

  /**
   * Opens a socket with `openSocket` and receives its datagrams from now on.
   * @throws the rejection of `openSocket`; Error after close()
   */
  async add(openSocket: (handlers: UdpHandlers) => Promise<UdpSocket>): Promise<UdpSocket> {
    let own: UdpSocket | undefined
    const isOpen = (): boolean => this.#host.alive && own !== undefined && this.#open.has(own)
    const isSender = (): boolean => isOpen() && own === this.#sender
    own = await openSocket({
      onDatagram: (data, from) => {
        if (isOpen()) this.#host.onDatagram(data, from, own === this.#probe)
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
      onMergedLost: () => this.#host.onMergedLost(),
    })
    if (this.#closed) {
      own.close()
      throw new Error('closed')
    }
    this.#open.add(own)
    if (!this.#isKept) own.keepAlive?.(false)
    return own
  }

  /**
   * Selects the sending socket. The previous one keeps receiving until it is removed.
   * @param connected the address the socket is connected to, if it is
   */
  send(socket: UdpSocket, connected: SocketAddress | undefined): void {
    if (socket === this.#probe) this.probe(undefined)
    this.#sender = socket
    this.#host.onSender(socket, connected)
  }

  /** Selects the socket that sends what the engine sends from the probing socket; undefined = none. */
  probe(socket: UdpSocket | undefined): void {
    this.#probe = socket
    this.#host.onProbe(socket)
  }

  /** Closes a socket. Without a sending socket, outgoing datagrams are lost. */
  remove(socket: UdpSocket | undefined): void {
    if (socket === undefined || !this.#open.delete(socket)) return
    socket.close()
    if (socket === this.#probe) this.probe(undefined)
    if (socket !== this.#sender) return
    this.#sender = undefined
    this.#host.onSender(null, undefined)
  }

  /** Whether the sockets, present and future ones, keep the event loop alive. */
  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    for (const socket of this.#open) socket.keepAlive?.(isKept)
  }

  /** Closes all sockets; none can be added afterwards. */
  close(): void {
    this.#closed = true
    for (const socket of this.#open) this.remove(socket)
  }
}
