/** The transport of an endpoint whose datagrams a DatagramTransport of the application carries. */

import { MODE_CLIENT } from '../config/config.ts'
import { coreConfig } from '../engine/config-block.ts'
import { ConfigError, messageOf, step, toError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { UdpHandlers, UdpSocket } from '../runtime.ts'
import { NO_ADDRESSES } from '../transport/resolver.ts'
import type { Transport, TransportOptions } from '../transport/transport.ts'
import type { DatagramTransport } from './api.ts'
import type { PeerAddresses } from './peer-addresses.ts'

/** IP and UDP headers that the MTU arithmetic allows for, with addresses of IPv6. */
const HEADERS_BYTES = 48
/** Limits of `kcp.mtu`. */
const MTU_MIN = 300
const MTU_MAX = 1500
/** `maxDatagramSize` by default: that of kcp.mtu = 1400. */
const DATAGRAM_BYTES = 1352
const BUFFER_BYTES = 1536
/** Most datagrams that wait for the transport. */
const QUEUE_DATAGRAMS = 256

/** Of the endpoint itself: it has no address. */
const LOCAL: SocketAddress = { family: 6, address: 'fc00::', port: 1, scope: 0 }

/**
 * The value of `kcp.mtu` for the datagrams of a transport.
 * @param mtu that of the configuration; undefined: as much as the transport carries
 * @throws ConfigError
 */
export function mtuOf(transport: DatagramTransport, mtu: number | undefined): number {
  const size = transport.maxDatagramSize ?? DATAGRAM_BYTES
  if (!Number.isInteger(size) || size < MTU_MIN - HEADERS_BYTES) {
    const reason = `must be an integer, at least ${MTU_MIN - HEADERS_BYTES}`
    throw new ConfigError('transport.maxDatagramSize', String(size), reason)
  }
  return Math.min(size + HEADERS_BYTES, mtu ?? MTU_MAX, MTU_MAX)
}

interface Datagram {
  readonly buffer: Uint8Array
  length: number
  peer: string
}

/**
 * A DatagramTransport as a UDP socket. What the driver sends waits for a later microtask, so that the application's
 * code never runs inside the engine.
 */
class DatagramSocket implements UdpSocket {
  readonly local = LOCAL
  readonly #transport: DatagramTransport
  readonly #peers: PeerAddresses
  readonly #handlers: UdpHandlers
  readonly #free: Datagram[] = []
  /** Those that the driver fills, by buffer. */
  readonly #acquired = new Map<Uint8Array, Datagram>()
  #count = 0
  readonly #queue: Datagram[] = []
  /** acquire() returned null. */
  #isStarved = false
  #isScheduled = false
  #isBlocked = false
  #isClosed = false

  constructor(transport: DatagramTransport, peers: PeerAddresses, handlers: UdpHandlers) {
    this.#transport = transport
    this.#peers = peers
    this.#handlers = handlers
  }

  acquire(): Uint8Array | null {
    const datagram = this.#isBlocked ? undefined : (this.#free.pop() ?? this.#add())
    if (datagram === undefined) {
      this.#isStarved = true
      return null
    }
    this.#acquired.set(datagram.buffer, datagram)
    return datagram.buffer
  }

  #add(): Datagram | undefined {
    if (this.#count === QUEUE_DATAGRAMS) return undefined
    this.#count += 1
    return { buffer: new Uint8Array(BUFFER_BYTES), length: 0, peer: '' }
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const datagram = this.#acquired.get(buffer)
    if (datagram === undefined) return
    this.#acquired.delete(buffer)
    const peer = this.#peers.peerAt(to)
    if (peer === undefined) {
      this.#free.push(datagram)
      return
    }
    datagram.length = length
    datagram.peer = peer
    this.#queue.push(datagram)
  }

  flush(): void {
    if (this.#isScheduled || this.#isBlocked) return
    this.#isScheduled = true
    queueMicrotask(this.#pass)
  }

  readonly #pass = (): void => {
    this.#isScheduled = false
    let sent = 0
    for (const datagram of this.#queue) {
      if (this.#isClosed || this.#isBlocked) break
      sent += 1
      this.#passOne(datagram)
      this.#free.push(datagram)
    }
    this.#queue.splice(0, sent)
    if (!this.#isStarved || this.#isBlocked || this.#isClosed) return
    this.#isStarved = false
    this.#handlers.onWritable()
  }

  #passOne({ buffer, length, peer }: Datagram): void {
    try {
      if (this.#transport.send(buffer.subarray(0, length), peer) === false) this.#isBlocked = true
    } catch (error) {
      this.#handlers.onError(toError(error))
    }
  }

  writable(): void {
    if (!this.#isBlocked || this.#isClosed) return
    this.#isBlocked = false
    // not now: this may be a call of the transport's `send`
    this.flush()
  }

  /** Closes the transport, in a later microtask. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    queueMicrotask(() => this.#transport.close())
  }

  /** The transport closed by itself. */
  closed(): void {
    this.#isClosed = true
  }
}

export class CustomTransport implements Transport {
  readonly addresses = NO_ADDRESSES
  readonly peerFound = false
  readonly waiting = undefined
  readonly #options: TransportOptions
  readonly #transport: DatagramTransport
  readonly #peers: PeerAddresses
  readonly #onEnd: (error: Error | undefined) => void
  #isBatch = false
  #isClosed = false

  /** @param onEnd the transport ended by itself */
  constructor(
    options: TransportOptions,
    transport: DatagramTransport,
    peers: PeerAddresses,
    onEnd: (error: Error | undefined) => void,
  ) {
    this.#options = options
    this.#transport = transport
    this.#peers = peers
    this.#onEnd = onEnd
  }

  async open(): Promise<void> {
    const { config, driver, aead } = this.#options
    driver.start(coreConfig(config, aead, 6))
    const socket = await step('transport', () => driver.sockets.add((handlers) => this.#openSocket(handlers)))
    driver.sockets.send(socket, undefined)
    if ((config.mode & MODE_CLIENT) !== 0) driver.setPeer(this.#peers.of(''))
  }

  close(): void {
    this.#isClosed = true
  }

  onResolve(): void {}
  onPeerFound(): void {}
  onInterfaces(): void {}
  onResume(): void {}
  onUdpError(): void {}

  async reload(): Promise<void> {}

  async #openSocket(handlers: UdpHandlers): Promise<UdpSocket> {
    const { config, log, runtime } = this.#options
    const isClient = (config.mode & MODE_CLIENT) !== 0
    const socket = new DatagramSocket(this.#transport, this.#peers, handlers)
    // after the last one of several in a turn of the event loop
    const onBatchEnd = (): void => {
      this.#isBatch = false
      handlers.onBatchEnd()
    }
    await this.#transport.open({
      datagram: (data, peer = '') => {
        if (this.#isClosed || !(data instanceof Uint8Array)) return
        // a client has one peer, whatever it is called
        handlers.onDatagram(data, this.#peers.of(isClient ? '' : peer))
        if (this.#isBatch) return
        this.#isBatch = true
        runtime.clock.defer(onBatchEnd)
      },
      writable: () => socket.writable(),
      error: (error) => log.limited('transport', 3, () => `transport: ${messageOf(error)}`),
      close: (error) => {
        if (this.#isClosed) return
        socket.closed()
        this.#onEnd(error)
      },
    })
    return socket
  }
}
