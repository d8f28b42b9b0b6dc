/**
 * A Runtime in memory: UDP and TCP between endpoints of one process, without sockets. Delivery is asynchronous (one
 * turn of the event loop), in order and lossless. TCP queues are bounded, so back-pressure is real.
 */

import type { RuntimeCrypto } from '../../host/crypto/open.ts'
import type { Dial, Dialling } from '../../host/driver/stream.ts'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type {
  Clock,
  HttpHandler,
  HttpServer,
  Runtime,
  TcpConnection,
  TcpHandlers,
  TcpListener,
  TcpOptions,
  UdpHandlers,
  UdpOptions,
  UdpSocket,
} from '../../host/runtime.ts'
import { HappyEyeballs } from '../../host/transport/happy-eyeballs.ts'
import { clock as realClock } from '../../runtime-shared/clock.ts'
import { MemoryTcp, systemError } from './memory-tcp.ts'

const SEND_BUFFERS = 64
const FIRST_EPHEMERAL_PORT = 40000

/** For endpoints without a method. */
export const NO_CIPHERS: RuntimeCrypto = {
  aesGcm: {
    provider: 'none',
    open() {
      throw new Error('not in this test')
    },
  },
  nativeSodium: () => undefined,
}

export function loopback(port: number): SocketAddress {
  return { family: 4, address: '127.0.0.1', port, scope: 0 }
}

/** Dials one address, for DriverOptions.dial. */
export const dialTo =
  (runtime: Runtime, address: SocketAddress) =>
  (dialling: Dialling): Dial => {
    const attempts = new HappyEyeballs(runtime, { nodelay: true, keepalive: false }, dialling, { onConnected() {} })
    attempts.start([address])
    return attempts
  }

class MemoryUdp implements UdpSocket {
  readonly local: SocketAddress
  readonly connect: SocketAddress | undefined
  /**
   * Whether the local address was removed: sending fails (with no error if `silently`), and incoming datagrams are
   * lost.
   */
  dead: boolean | 'silently' = false
  #network: MemoryNetwork
  #handlers: UdpHandlers
  #free = SEND_BUFFERS
  #starved = false
  #inbox: { data: Uint8Array; from: SocketAddress }[] = []
  #closed = false

  constructor(network: MemoryNetwork, local: SocketAddress, options: UdpOptions, handlers: UdpHandlers) {
    this.#network = network
    this.local = local
    this.connect = options.connect
    this.#handlers = handlers
  }

  acquire(): Uint8Array | null {
    if (this.#free === 0) {
      this.#starved = true
      return null
    }
    this.#free--
    return new Uint8Array(1500)
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress): void {
    const network = this.#network
    const isBlocked = network.blocked === this.local.port
    const lost = this.dead !== false || isBlocked
    if (!lost) {
      network.datagrams.push(buffer.slice(0, length))
      network.udp.get(formatAddress(this.connect ?? to))?.deliver(buffer.slice(0, length), this.local)
    }
    setImmediate(() => {
      if ((this.dead === true || isBlocked) && !this.#closed) {
        this.#handlers.onError(systemError(isBlocked ? 'EHOSTUNREACH' : 'EINVAL'))
      }
      this.#free++
      if (this.#closed || !this.#starved || this.#free < SEND_BUFFERS / 2) return
      this.#starved = false
      this.#handlers.onWritable()
    })
  }

  flush(): void {}

  deliver(data: Uint8Array, from: SocketAddress): void {
    if (this.dead || this.#network.blocked === this.local.port) return
    this.#inbox.push({ data, from })
    if (this.#inbox.length > 1) return
    setImmediate(() => {
      const batch = this.#inbox
      this.#inbox = []
      for (const { data, from } of batch) if (!this.#closed) this.#handlers.onDatagram(data, from)
      if (!this.#closed) this.#handlers.onBatchEnd()
    })
  }

  close(): void {
    this.#closed = true
    this.#network.udp.delete(formatAddress(this.local))
  }
}

interface MemoryListener {
  accept(connection: TcpConnection): TcpHandlers | null
}

/** The network shared by the endpoints of a test. */
export class MemoryNetwork {
  readonly udp = new Map<string, MemoryUdp>()
  readonly listeners = new Map<string, MemoryListener>()
  readonly http = new Map<string, HttpHandler>()
  /** Copies of all datagrams sent. */
  readonly datagrams: Uint8Array[] = []
  /** Addresses by host name, several separated by spaces. */
  readonly hosts = new Map<string, string>()
  /** Names looked up, in order. */
  readonly lookups: string[] = []
  /** Lookups wait for this. */
  lookupGate: Promise<void> = Promise.resolve()
  /** Addresses that no interface has. */
  readonly absent = new Set<string>()
  /** Local UDP port whose datagrams are lost and cause errors, whichever socket has it. */
  blocked = 0
  /** Addresses to which there is no route. */
  readonly unreachable = new Set<string>()
  /** Addresses dialled by TCP, in order. */
  readonly dials: string[] = []
  /** Addresses at which a dial gets no answer. */
  readonly silent = new Set<string>()
  readonly printed: string[] = []
  /** Offset of the monotonic clock, ms. */
  clockAhead = 0
  /** Offset of the wall clock, ms. */
  wallAhead = 0
  /** Clock of all endpoints. Deferred callbacks and deliveries always follow the event loop. */
  clock: Clock = realClock
  /** Source address of a socket bound to the wildcard; undefined: there is no route. */
  here: string | undefined = '127.0.0.1'
  /** Bytes that a TCP connection holds in one direction. */
  tcpLimit = 65536
  #nextPort = FIRST_EPHEMERAL_PORT

  port(wanted: number): number {
    return wanted === 0 ? this.#nextPort++ : wanted
  }

  /** Connects as an application. `handlers` are set before the first event; the connection starts paused. */
  dial(address: SocketAddress, handlers: TcpHandlers): MemoryTcp {
    const [near, far] = MemoryTcp.pair(this.tcpLimit)
    near.handlers = handlers
    const listener = this.listeners.get(formatAddress(address))
    if (listener === undefined) near.fail(systemError('ECONNREFUSED'))
    else
      setImmediate(() => {
        const accepted = listener.accept(far)
        if (accepted === null) far.close()
        else far.handlers = accepted
      })
    return near
  }

  listen(address: SocketAddress, accept: (connection: MemoryTcp) => TcpHandlers | null): void {
    this.listeners.set(formatAddress(address), {
      accept: (connection) => (connection instanceof MemoryTcp ? accept(connection) : null),
    })
  }

  runtime(): Runtime {
    return new MemoryRuntime(this)
  }
}

class MemoryRuntime implements Runtime {
  readonly name = 'node'
  readonly version = 'memory'
  #network: MemoryNetwork

  constructor(network: MemoryNetwork) {
    this.#network = network
  }

  readonly clock: Clock = {
    ...realClock,
    monotonic: () => this.#network.clock.monotonic() + this.#network.clockAhead,
    wall: () => this.#network.clock.wall() + this.#network.wallAhead,
    setTimer: (callback, ms) => this.#network.clock.setTimer(callback, ms),
    clearTimer: (timer) => this.#network.clock.clearTimer(timer),
  }

  cpuTime(): number {
    return 0
  }

  async resolve(host: string): Promise<readonly Omit<SocketAddress, 'port'>[]> {
    if (/^[\d.]+$/.test(host)) return [{ family: 4, address: host, scope: 0 }]
    this.#network.lookups.push(host)
    await this.#network.lookupGate
    const found = this.#network.hosts.get(host)
    if (found === undefined) throw systemError('ENOTFOUND')
    return found.split(' ').map((address) => ({ family: address.includes(':') ? 6 : 4, address, scope: 0 }))
  }

  #checkPresent({ address }: SocketAddress): void {
    if (this.#network.absent.has(address)) throw systemError('EADDRNOTAVAIL')
  }

  async openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    const { bind } = options
    this.#checkPresent(bind)
    const { here } = this.#network
    const { connect } = options
    if (connect !== undefined && (here === undefined || this.#network.unreachable.has(connect.address))) {
      throw systemError('ENETUNREACH')
    }
    const address = bind.address === '0.0.0.0' ? (here ?? bind.address) : bind.address
    const local = { ...bind, address, port: this.#network.port(bind.port) }
    const key = formatAddress(local)
    if (this.#network.udp.has(key)) throw systemError('EADDRINUSE')
    const socket = new MemoryUdp(this.#network, local, options, handlers)
    this.#network.udp.set(key, socket)
    return socket
  }

  async listenTcp(
    address: SocketAddress,
    _options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
  ): Promise<TcpListener> {
    this.#checkPresent(address)
    const local = { ...address, port: this.#network.port(address.port) }
    const key = formatAddress(local)
    if (this.#network.listeners.has(key)) throw systemError('EADDRINUSE')
    this.#network.listeners.set(key, { accept })
    return { local, close: () => void this.#network.listeners.delete(key) }
  }

  dialTcp(address: SocketAddress, _options: TcpOptions, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
    const [near, far] = MemoryTcp.pair(this.#network.tcpLimit)
    near.handlers = handlers
    const key = formatAddress(address)
    this.#network.dials.push(key)
    if (this.#network.silent.has(key)) return near
    const listener = this.#network.listeners.get(key)
    if (listener === undefined) {
      near.fail(systemError('ECONNREFUSED'))
      return near
    }
    setImmediate(() => {
      if (near.broken) return
      const accepted = listener.accept(far)
      if (accepted === null) far.close()
      else far.handlers = accepted
      onOpen()
    })
    return near
  }

  async serveHttp(address: SocketAddress, fetch: HttpHandler): Promise<HttpServer> {
    this.#checkPresent(address)
    const local = { ...address, port: this.#network.port(address.port) }
    this.#network.http.set(formatAddress(local), fetch)
    return { local, close: () => void this.#network.http.delete(formatAddress(local)) }
  }

  onTerminate(): void {}

  onReload(): void {}

  async readFile(): Promise<Uint8Array> {
    throw systemError('ENOENT')
  }

  print(_stream: 'stdout' | 'stderr', text: string): void {
    this.#network.printed.push(text)
  }

  exit(status: number): never {
    throw new Error(`exit ${status}`)
  }
}

/** Lets pending deliveries, lookups and deferred callbacks complete, none of which depends on a timer. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** Waits until a condition holds, or until the test's time limit. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const start = performance.now()
  while (!condition()) {
    if (performance.now() - start > 30_000) throw new Error(`timeout: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
