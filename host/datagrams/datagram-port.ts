/** A UDP socket that sends the datagrams of flows: at once or not at all. */

import type { SystemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { UdpSocket } from '../runtime.ts'
import type { FlowTable } from './flow-table.ts'

/** Every buffer of a socket has so much room. */
const BUFFER_BYTES = 1500

export class DatagramPort {
  readonly socket: UdpSocket
  readonly #table: FlowTable
  #isScheduled = false
  #isClosed = false

  constructor(table: FlowTable, socket: UdpSocket) {
    this.#table = table
    this.socket = socket
  }

  /** Sends a datagram, or drops it where the system has no room for it. */
  send(bytes: Uint8Array, start: number, length: number, to: SocketAddress): void {
    if (this.#isClosed) return
    const { counters } = this.#table
    const view = this.#table.view(bytes, start, length)
    if (length > BUFFER_BYTES && this.socket.sendLarge !== undefined) {
      counters.flow_datagrams_out++
      this.flush()
      this.socket.sendLarge(view, to)
      return
    }
    const buffer = length > BUFFER_BYTES ? null : this.socket.acquire()
    if (buffer === null) {
      counters.flow_drops_send++
      return
    }
    counters.flow_datagrams_out++
    buffer.set(view)
    this.socket.send(buffer, length, to)
    if (this.#isScheduled) return
    this.#isScheduled = true
    // datagrams that the driver reads together leave together
    queueMicrotask(this.flush)
  }

  /** An error of the socket: the system did not send a datagram, or nobody took it. */
  onError(_error: SystemError): void {
    this.#table.counters.flow_drops_send++
  }

  readonly flush = (): void => {
    this.#isScheduled = false
    if (!this.#isClosed) this.socket.flush()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.socket.close()
  }
}
