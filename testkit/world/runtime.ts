/** The runtime of a simulated process: implements host/runtime.ts on a machine of a simulated world. */
import type { SocketAddress } from '../../host/net/address.ts'
import type {
  Clock,
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
import { codeError } from './errors.ts'
import type { Process } from './machine.ts'
import type { Network } from './network.ts'
import type { TcpPorts } from './tcp.ts'
import { type BoundPort, SimulatedUdp } from './udp.ts'

/** Duration of a lookup, ms. */
const LOOKUP_MS = 4
/** Log lines kept per process. */
const LOG_LINES = 400

export interface ProcessSurroundings {
  readonly network: Network
  readonly tcp: TcpPorts
  /** Sockets opened for workers, by descriptor. */
  readonly shared: Map<number, BoundPort>
  /** The configuration file. */
  readFile(): string
}

export class SimulatedRuntime implements Runtime {
  readonly name = 'node'
  readonly version = 'simulated'
  readonly clock: Clock
  readonly process: Process
  readonly lines: string[] = []
  onReloadSignal: (() => void) | undefined
  readonly #around: ProcessSurroundings

  constructor(process: Process, around: ProcessSurroundings) {
    this.process = process
    this.clock = process.clock
    this.#around = around
  }

  /** As an object whose methods are its own: the library spreads the runtimes, which are such objects. */
  get spreadable(): Runtime {
    const result: Record<string, unknown> = {}
    Object.assign(result, this)
    for (const name of Object.getOwnPropertyNames(SimulatedRuntime.prototype)) {
      const method: unknown = name === 'spreadable' ? undefined : Reflect.get(this, name)
      if (typeof method === 'function') result[name] = method.bind(this)
    }
    return result as unknown as Runtime
  }

  cpuTime(): number {
    return 0
  }

  resolve(host: string): Promise<readonly Omit<SocketAddress, 'port'>[]> {
    const { network } = this.#around
    const answer = (addresses: string): readonly Omit<SocketAddress, 'port'>[] =>
      addresses.split(' ').map((address) => ({ family: 4, address, scope: 0 }))
    if (/^[\d.]+$/.test(host)) return Promise.resolve(answer(host))
    return new Promise((resolve, reject) => {
      this.process.at(network.loop.now + LOOKUP_MS, () => {
        const address = network.isNameServerDown ? undefined : network.names.get(host)
        if (address === undefined) reject(codeError(network.isNameServerDown ? 'EAI_AGAIN' : 'ENOTFOUND'))
        else resolve(answer(address))
      })
    })
  }

  openUdp(options: UdpOptions, handlers: UdpHandlers): Promise<UdpSocket> {
    return this.#open(() => {
      const { network, shared } = this.#around
      const fd = options.socketOptions?.fd
      return new SimulatedUdp(network, this.process, options, handlers, fd === undefined ? undefined : shared.get(fd))
    })
  }

  listenTcp(
    address: SocketAddress,
    _options: TcpOptions,
    accept: (connection: TcpConnection) => TcpHandlers | null,
  ): Promise<TcpListener> {
    const { tcp } = this.#around
    return this.#open(() => tcp.listen(address, this.process, accept))
  }

  dialTcp(address: SocketAddress, _options: TcpOptions, handlers: TcpHandlers, onOpen: () => void): TcpConnection {
    return this.#around.tcp.dial(address, this.process, handlers, onOpen)
  }

  serveHttp(address: SocketAddress): Promise<HttpServer> {
    return Promise.resolve({ local: address, close() {} })
  }

  onTerminate(): void {}

  onReload(callback: () => void): void {
    this.onReloadSignal = callback
  }

  readFile(): Promise<Uint8Array> {
    return Promise.resolve(new TextEncoder().encode(this.#around.readFile()))
  }

  readonly print = (_stream: 'stdout' | 'stderr', text: string): void => {
    this.lines.push(`${this.#around.network.loop.now.toFixed(3)} ${text.trimEnd()}`)
    if (this.lines.length > LOG_LINES) this.lines.shift()
  }

  exit(): never {
    this.process.end()
    throw new ProcessExit()
  }

  /** Resolves in a later turn, as system calls do, and never after the end of the process. */
  #open<T>(make: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.process.at(this.#around.network.loop.now, () => {
        try {
          resolve(make())
        } catch (error) {
          reject(error)
        }
      })
    })
  }
}

/** Thrown by `exit`, which never returns. */
export class ProcessExit extends Error {}
