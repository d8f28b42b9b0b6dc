/**
 * The UDP port of a client: every source has a flow, and every flow a stream of its own. Sources are not authenticated,
 * so none may push out others that are in use (FlowTable.makeRoom).
 */

import type { Config } from '../config/config.ts'
import { isTemporary, messageOf, StartError, step } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, SocketOptions, TcpConnection, TcpHandlers, UdpMode } from '../runtime.ts'
import { resolveAll } from '../transport/resolver.ts'
import { Retry } from '../transport/retry.ts'
import { DatagramPort } from './datagram-port.ts'
import { Flow, type FlowSocket } from './flow.ts'
import { FLOWS_MAX, type FlowTable } from './flow-table.ts'

/** Receive buffer of the port, best effort: a burst of many sources must not be lost there. */
const RCVBUF_BYTES = 1 << 20
/** Flows of one source address: one machine does not take them all. */
const FLOWS_OF_ADDRESS = FLOWS_MAX / 2

const NO_OPTIONS: SocketOptions = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '', refused() {} }

export interface EntranceHost {
  readonly runtime: Runtime
  readonly log: Log
  readonly table: FlowTable
  readonly path: UdpMode
  /** Options of the socket on an address, by its number. */
  socketOptions?(number: number): SocketOptions | undefined
  /** Addresses that a worker has sockets for, in place of those of `udp_listen`. */
  readonly bound?: readonly string[] | undefined
  /**
   * Opens a stream for a flow.
   * @returns its handlers, or null to refuse it
   */
  accept(connection: TcpConnection): TcpHandlers | null
  /** `failure` changed. */
  onChange(): void
}

/** One source, at one of the sockets. */
class Source implements FlowSocket {
  readonly remote: SocketAddress
  readonly key: string
  readonly #entrance: UdpEntrance
  readonly #port: DatagramPort

  constructor(entrance: UdpEntrance, port: DatagramPort, remote: SocketAddress, key: string) {
    this.#entrance = entrance
    this.#port = port
    this.remote = remote
    this.key = key
  }

  get name(): string {
    return `udp ${formatAddress(this.remote)}:`
  }

  send(bytes: Uint8Array, start: number, length: number): void {
    this.#port.send(bytes, start, length, this.remote)
  }

  onEnded(flow: Flow): void {
    this.#entrance.forget(this, flow)
  }

  onGone(): void {}
}

/** The flows of one address: their number, and those that may give way (FlowTable.makeRoom). */
interface Crowd {
  count: number
  readonly candidates: Set<Flow>
}

export class UdpEntrance {
  readonly #host: EntranceHost
  #text: string
  readonly #retry: Retry
  readonly #ports: DatagramPort[] = []
  /** The flows that take datagrams, by source and by the objects that the sockets have for sources. */
  readonly #flows = new Map<string, Flow>()
  readonly #known = new WeakMap<SocketAddress, Flow>()
  /** The flows of each address. */
  readonly #crowds = new Map<string, Crowd>()
  #isClosed = false

  /** @param text `udp_listen` */
  constructor(host: EntranceHost, text: string) {
    this.#host = host
    this.#text = text
    this.#retry = new Retry(
      host.runtime.clock,
      host.log,
      () => this.#open(),
      () => host.onChange(),
    )
  }

  /** The first address it listens on. */
  get local(): SocketAddress | undefined {
    return this.#ports[0]?.socket.local
  }

  /** Why it does not listen; undefined if it does. */
  get failure(): string | undefined {
    return this.#retry.failure
  }

  /**
   * Listens, or begins to retry if no address exists yet.
   * @throws ConfigError, or StartError for reasons that do not heal
   */
  open(): Promise<void> {
    return this.#retry.start()
  }

  /**
   * Listens at another place from now on, and ends the flows of the old one.
   * @throws StartError if that is not possible; the old place stays then
   */
  async reload({ udp_listen = '' }: Pick<Config, 'udp_listen'>): Promise<void> {
    this.#host.table.reload()
    const before = this.#text
    if (udp_listen === before) return
    const old = this.#ports.splice(0)
    const flows = [...this.#flows.values()]
    this.#text = udp_listen
    try {
      await this.#retry.start()
    } catch (error) {
      this.#text = before
      this.#ports.push(...old)
      throw error
    }
    for (const flow of flows) if (!flow.isEnded) flow.expire()
    for (const port of old) port.close()
  }

  close(): void {
    this.#isClosed = true
    this.#retry.close()
    this.#host.table.close()
    for (const port of this.#ports.splice(0)) port.close()
  }

  async #open(): Promise<void> {
    if (this.#ports.length > 0) return
    const { runtime, log, bound = [this.#text] } = this.#host
    const found = await Promise.all(bound.map((text) => resolveAll(runtime, 'udp_listen', text, 'bind')))
    const failures: string[] = []
    try {
      for (const [number, address] of found.flat().entries()) {
        await this.#listen(address, number).catch((error) => {
          if (!isTemporary(error)) throw error
          failures.push(messageOf(error))
        })
      }
      if (this.#ports.length === 0) throw new StartError(failures[0] ?? 'udp_listen: no address', true)
    } catch (error) {
      for (const port of this.#ports.splice(0)) port.close()
      throw error
    }
    // a name may have addresses that this machine does not use
    for (const failure of failures) log.warning(failure)
  }

  async #listen(address: SocketAddress, number: number): Promise<void> {
    const { runtime, log, table, path, socketOptions } = this.#host
    // with port 0 the other addresses get the port of the first
    const bind = { ...address, port: address.port || (this.local?.port ?? 0) }
    const options = { ...(socketOptions?.(number) ?? NO_OPTIONS), rcvbuf: RCVBUF_BYTES }
    let port: DatagramPort | undefined
    const socket = await step(`udp_listen: cannot listen on ${formatAddress(bind)}`, () =>
      runtime.openUdp(
        { bind, path, isLarge: true, gro: false, replyFromAsked: true, socketOptions: options },
        {
          onDatagram: (data, from) => port !== undefined && this.#onDatagram(port, number, data, from),
          onBatchEnd() {},
          onWritable() {},
          // of a source that has closed its socket
          onError: (error) => port?.onError(error),
        },
      ),
    )
    if (this.#isClosed) {
      socket.close()
      return
    }
    port = new DatagramPort(table, socket)
    this.#ports.push(port)
    log.notice(`udp listen: ${formatAddress(socket.local)}`)
  }

  /** A flow takes no more datagrams. */
  forget(source: Source, flow: Flow): void {
    if (this.#flows.get(source.key) !== flow) return
    this.#flows.delete(source.key)
    const { address } = source.remote
    const crowd = this.#crowds.get(address)
    if (crowd === undefined) return
    crowd.candidates.delete(flow)
    if (--crowd.count === 0) this.#crowds.delete(address)
  }

  #onDatagram(port: DatagramPort, number: number, data: Uint8Array, from: SocketAddress): void {
    let flow = this.#known.get(from)
    if (flow === undefined || flow.isEnded) {
      const key = `${number} ${from.local ?? 0} ${formatAddress(from)}`
      flow = this.#flows.get(key) ?? this.#begin(port, from, key)
      if (flow === undefined) {
        const { counters } = this.#host.table
        counters.flow_datagrams_in++
        counters.flows_refused++
        return
      }
      this.#known.set(from, flow)
    }
    flow.push(data)
  }

  /** @returns undefined if there is no room, or no stream */
  #begin(port: DatagramPort, from: SocketAddress, key: string): Flow | undefined {
    const { table } = this.#host
    // port 0 cannot be answered
    if (from.port === 0 || !this.#hasRoom(from.address)) return undefined
    // the socket may use the object for another source later
    const source = new Source(this, port, { ...from }, key)
    const flow = new Flow(table, source)
    const handlers = this.#host.accept(flow)
    if (handlers === null) return undefined
    flow.attach(handlers)
    this.#flows.set(key, flow)
    const crowd = this.#crowds.get(from.address) ?? { count: 0, candidates: new Set() }
    crowd.count++
    crowd.candidates.add(flow)
    this.#crowds.set(from.address, crowd)
    table.add(flow)
    table.log(() => `${source.name} flow begins`)
    return flow
  }

  /** Whether another flow of an address may begin; an old one makes room for it if need be. */
  #hasRoom(address: string): boolean {
    const { table } = this.#host
    const crowd = this.#crowds.get(address)
    if (crowd !== undefined && crowd.count >= FLOWS_OF_ADDRESS && !table.makeRoom(crowd.candidates)) return false
    return !table.isFull || table.makeRoom()
  }
}
