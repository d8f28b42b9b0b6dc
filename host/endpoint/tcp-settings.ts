/** Options of the TCP sockets of an endpoint, and the sockets that a worker adopts. */

import type { Config } from '../config/config.ts'
import { socketOptionsOf } from '../config/socket-options.ts'
import type { SecretPart } from '../engine/secret.ts'
import type { Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { SocketOptions, TcpOptions } from '../runtime.ts'

/** The socket and secret of a worker, one of several endpoints that share a port (host/workers). */
export interface WorkerSocket {
  /** Descriptor of the first bound socket to use for `listen` or `kcp_bind`; the others follow. */
  readonly fd: number
  /** Addresses of the sockets: several for a `listen` or `kcp_bind` with several. */
  readonly addresses: readonly SocketAddress[]
  /** This worker's share of the secret. */
  readonly secret: SecretPart
}

const NO_OPTIONS: SocketOptions = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '', refused() {} }

/** Adds the worker's socket, if any, to socket options. */
export const adopting = (
  options: SocketOptions | undefined,
  worker: WorkerSocket | undefined,
  number = 0,
): SocketOptions | undefined => (worker === undefined ? options : { ...NO_OPTIONS, ...options, fd: worker.fd + number })

export class TcpSettings {
  readonly #config: () => Config
  readonly #log: Log
  readonly #worker: WorkerSocket | undefined
  /** Cached so that an option that could not be set is logged once. */
  readonly #known = new WeakMap<Config, SocketOptions>()

  /**
   * @param config the configuration in force
   * @param worker set if its sockets are listeners
   */
  constructor(config: () => Config, log: Log, worker: WorkerSocket | undefined) {
    this.#config = config
    this.#log = log
    this.#worker = worker
  }

  /**
   * Options of TCP connections; adapters read them at every dial and accept.
   * @param number of a client's listener
   */
  options(number = 0): TcpOptions {
    const current = this.#config
    const socketOptions = (): SocketOptions | undefined => adopting(this.#socketOptions(), this.#worker, number)
    return {
      get nodelay() {
        return current().tcp.nodelay
      },
      get keepalive() {
        return current().tcp.keepalive
      },
      get socketOptions() {
        return socketOptions()
      },
    }
  }

  #socketOptions(): SocketOptions | undefined {
    const config = this.#config()
    const known = this.#known.get(config)
    if (known !== undefined) return known
    const options = socketOptionsOf('tcp', config.tcp, undefined, this.#log)
    if (options !== undefined) this.#known.set(config, options)
    return options
  }
}
