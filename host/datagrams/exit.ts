/**
 * The target of a server for datagrams: every stream has a UDP socket of its own, which is connected, so that the system
 * drops what others send there and reports ICMP errors. Of a name with several addresses, an address that refuses the
 * first datagram is followed by the next one.
 */

import type { Config } from '../config/config.ts'
import type { Dial, Dialling } from '../driver/stream.ts'
import { codeOf, type SystemError, toError } from '../errors.ts'
import { LOG_WARNING, type Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import { wildcard } from '../transport/resolver.ts'
import { Target } from '../transport/target.ts'
import { DatagramPort } from './datagram-port.ts'
import { Flow, type FlowSocket } from './flow.ts'
import { FLOWS_MAX, type FlowTable } from './flow-table.ts'

export interface ExitHost {
  readonly runtime: Runtime
  readonly log: Log
  readonly table: FlowTable
  /** `failure` changed. */
  onChange(): void
}

/** One stream, on its way to the target and there. */
class Outlet implements FlowSocket, Dial {
  readonly #exit: UdpExit
  readonly #dialling: Dialling
  #addresses: readonly SocketAddress[] = []
  /** Number of the address in use. */
  #number = 0
  #port: DatagramPort | undefined
  #flow: Flow | undefined
  /** The last datagram, while the address in use has not answered and there is another. */
  #kept: Uint8Array | undefined
  #isAnswered = false
  #isOver = false

  constructor(exit: UdpExit, dialling: Dialling) {
    this.#exit = exit
    this.#dialling = dialling
  }

  get remote(): SocketAddress | undefined {
    return this.#addresses[this.#number]
  }

  get name(): string {
    return `udp to ${this.remote === undefined ? 'the target' : formatAddress(this.remote)}:`
  }

  /** Opens the socket. Never rejects. */
  async open(addresses: Promise<readonly SocketAddress[]>): Promise<void> {
    try {
      this.#addresses = await addresses
      this.#port = await this.#openAny()
    } catch (error) {
      if (!this.#isOver) this.#dialling.onFailed(toError(error))
      return
    }
    if (this.#isOver) {
      this.#port.close()
      return
    }
    const { table } = this.#exit.host
    this.#flow = new Flow(table, this)
    table.add(this.#flow)
    table.log(() => `${this.name} flow begins`)
    this.#dialling.onOpen(this.#flow)
  }

  cancel(): void {
    this.#isOver = true
    this.#port?.close()
  }

  send(bytes: Uint8Array, start: number, length: number): void {
    const to = this.remote
    if (this.#port === undefined || to === undefined) {
      this.#exit.host.table.counters.flow_drops_send++
      return
    }
    if (!this.#isAnswered && this.#number + 1 < this.#addresses.length) this.#kept = bytes.slice(start, start + length)
    this.#port.send(bytes, start, length, to)
  }

  onEnded(): void {}

  onGone(): void {
    this.cancel()
  }

  /** A socket to the first address from `#number` on for which there can be one. */
  async #openAny(): Promise<DatagramPort> {
    for (;;) {
      const connect = this.#addresses[this.#number]
      if (connect === undefined) throw new Error('no address')
      try {
        return await this.#openTo(connect)
      } catch (error) {
        if (++this.#number >= this.#addresses.length) throw error
      }
    }
  }

  async #openTo(connect: SocketAddress): Promise<DatagramPort> {
    const { runtime, table } = this.#exit.host
    let port: DatagramPort | undefined
    const socket = await runtime.openUdp(
      // batched system calls need much memory for each socket
      { bind: wildcard(connect.family), connect, path: 'portable', isLarge: true },
      {
        onDatagram: (data) => this.#onDatagram(data),
        onBatchEnd() {},
        onWritable() {},
        onError: (error) => port !== undefined && this.#onError(port, error),
      },
    )
    port = new DatagramPort(table, socket)
    return port
  }

  #onDatagram(data: Uint8Array): void {
    if (!this.#isAnswered) {
      this.#isAnswered = true
      this.#kept = undefined
      this.#exit.onAnswer(this.remote)
    }
    this.#flow?.push(data)
  }

  #onError(port: DatagramPort, error: SystemError): void {
    port.onError(error)
    this.#exit.onError(this.name, error)
    const kept = this.#kept
    if (this.#isOver || kept === undefined || port !== this.#port || codeOf(error) === 'EMSGSIZE') return
    this.#kept = undefined
    this.#port = undefined
    port.close()
    this.#number++
    this.#openAny().then(
      (next) => {
        this.#port = next
        if (this.#isOver) next.close()
        else this.send(kept, 0, kept.length)
      },
      (failure) => this.#flow?.abort(toError(failure).message),
    )
  }
}

export class UdpExit {
  readonly host: ExitHost
  readonly #target: Target
  /** A target refused datagrams, and has not answered since. */
  #isRefused = false

  /** @param text `udp_connect` */
  constructor(host: ExitHost, text: string) {
    this.host = host
    const tcp = { nodelay: true, keepalive: false }
    this.#target = new Target(host.runtime, host.log, tcp, text, () => host.onChange(), 'udp_connect')
  }

  /** Why there is no address; undefined if there is one. */
  get failure(): string | undefined {
    return this.#target.failure
  }

  /** As Target.open. */
  open(): Promise<void> {
    return this.#target.open()
  }

  /** As Target.reload: streams that are open stay where they are. */
  async reload({ udp_connect }: Pick<Config, 'udp_connect'>): Promise<void> {
    this.host.table.reload()
    if (udp_connect !== undefined) await this.#target.reload(udp_connect)
  }

  close(): void {
    this.#target.close()
    this.host.table.close()
  }

  /** Opens a flow to the target. `dialling` is never called inside this call. @throws Error at the limit */
  dial(dialling: Dialling): Dial {
    const { table } = this.host
    if (table.isFull && !table.makeRoom()) {
      table.counters.flows_refused++
      throw new Error(`there are ${FLOWS_MAX} UDP flows`)
    }
    const outlet = new Outlet(this, dialling)
    void outlet.open(this.#target.addresses())
    return outlet
  }

  onAnswer(address: SocketAddress | undefined): void {
    if (address !== undefined) this.#target.prefer(address)
    this.#isRefused = false
  }

  /** An ICMP error ends nothing: the target may be there again. */
  onError(name: string, error: SystemError): void {
    if (this.#isRefused) return
    this.#isRefused = true
    this.host.log.limited('udp target', LOG_WARNING, () => `${name} ${error.message}`)
  }
}
