/** A DatagramTransport of an application, over a socket of its own. */
import type { DatagramReceiver, DatagramTransport } from '../../host/library/api.ts'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import { copyOf } from './copy.ts'
import { Enough } from './library-connection.ts'
import type { Process, Violation } from './machine.ts'
import { ipv4, type Network } from './network.ts'
import { SimulatedUdp } from './udp.ts'

export interface CarrierOptions {
  readonly network: Network
  readonly process: Process
  readonly report: Violation
  /** 0: any */
  readonly port: number
  /** Client: where the server is. */
  server?(): SocketAddress
}

export class Carrier implements DatagramTransport {
  readonly #options: CarrierOptions
  /** Server: clients by their identity. */
  readonly #peers = new Map<string, SocketAddress>()
  /** Taken, but not sent yet: at most one. */
  #waiting: readonly [Uint8Array, SocketAddress] | undefined
  #receiver: DatagramReceiver | undefined
  #socket: SimulatedUdp | undefined
  #isClosed = false
  /** Datagrams since the last look. */
  #sent = 0
  #received = 0

  constructor(options: CarrierOptions) {
    this.#options = options
  }

  open(receiver: DatagramReceiver): void {
    if (this.#receiver !== undefined) this.#options.report('open() of a transport was called twice')
    this.#receiver = receiver
    this.#socket = this.#openSocket(receiver)
  }

  #openSocket(receiver: DatagramReceiver): SimulatedUdp {
    const { network, process, port } = this.#options
    const onDatagram = (data: Uint8Array, from: SocketAddress): void => {
      this.#received++
      const peer = formatAddress(from)
      this.#peers.set(peer, from)
      receiver.datagram(data, peer)
      // it was read during the call
      data.fill(0xe3)
    }
    const onWritable = (): void => {
      const waiting = this.#waiting
      this.#waiting = undefined
      if (waiting === undefined || this.#put(...waiting)) receiver.writable()
    }
    const handlers = { onDatagram, onBatchEnd() {}, onWritable, onError: (error: Error) => receiver.error(error) }
    return new SimulatedUdp(network, process, { bind: ipv4('0.0.0.0', port) }, handlers)
  }

  /**
   * Client: continues with another socket if nothing answered since the last look, as an application does whose NAT may
   * keep a dead mapping.
   */
  look(): void {
    const isSilent = this.#sent > 0 && this.#received === 0
    this.#sent = this.#received = 0
    if (!isSilent || this.#isClosed || this.#receiver === undefined || this.#options.server === undefined) return
    this.#socket?.close()
    this.#socket = this.#openSocket(this.#receiver)
    // what the old one did not take is lost
    if (this.#waiting !== undefined) this.#receiver.writable()
    this.#waiting = undefined
  }

  send(data: Uint8Array, peer: string): boolean {
    const { server, report } = this.#options
    if (this.#isClosed || this.#waiting !== undefined) {
      report(`a transport that is ${this.#isClosed ? 'closed' : 'full'} was asked to send`)
    }
    const to = server?.() ?? this.#peers.get(peer)
    if (to === undefined) throw new Error(`nobody is called ${peer}`)
    return this.#put(data, to)
  }

  #put(data: Uint8Array, to: SocketAddress): boolean {
    const buffer = this.#socket?.acquire()
    if (!buffer) {
      this.#waiting = [copyOf(data), to]
      return false
    }
    this.#sent++
    buffer.set(data)
    this.#socket?.send(buffer, data.length, to)
    return true
  }

  close(): void {
    if (this.#isClosed) this.#options.report('close() of a transport was called once more')
    this.#shut()
  }

  #shut(): void {
    this.#isClosed = true
    this.#socket?.close()
  }

  /** It ends by itself. */
  end(): void {
    this.#shut()
    this.#receiver?.close(new Enough('the carrier ended'))
  }
}
