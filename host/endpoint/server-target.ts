/**
 * The target of a server, of the kind that `connect` names: an address of TCP, a Unix socket, or what the client asks for
 * if the server is a proxy. A reload may change the kind.
 */

import type { Config } from '../config/config.ts'
import { isProxy } from '../config/proxy-rules.ts'
import type { Dial, Dialling } from '../driver/stream.ts'
import type { SocketAddress } from '../net/address.ts'
import { isUnix, parseUnix } from '../net/unix-path.ts'
import type { ProxyTargetHost } from '../proxy/proxy-target.ts'
import { Target } from '../transport/target.ts'
import { UnixTarget } from '../transport/unix-target.ts'

/** What a server dials. */
interface AnyTarget {
  /** Why it cannot be dialled; undefined if it can. */
  readonly failure: string | undefined
  /** @throws ConfigError */
  open(): Promise<void>
  close(): void
  dial(dialling: Dialling, peer: () => SocketAddress | undefined): Dial
}

export class ServerTarget {
  readonly #host: ProxyTargetHost
  readonly #onChange: () => void
  #target: AnyTarget | undefined

  /** @param onChange `failure` changed */
  constructor(host: ProxyTargetHost, onChange: () => void) {
    this.#host = host
    this.#onChange = onChange
  }

  /** Why there is no address; undefined if there is one. */
  get failure(): string | undefined {
    return this.#target?.failure
  }

  /** Begins with the target of a configuration. @throws ConfigError */
  async open(config: Config): Promise<void> {
    this.#target = await this.#make(config)
    await this.#target.open()
  }

  close(): void {
    this.#target?.close()
  }

  /** Uses another target from now on, or the same one looked up anew. @throws ConfigError */
  async reload(config: Config): Promise<void> {
    const before = this.#target
    const { connect = '' } = config
    if (before instanceof Target && !isUnix(connect) && !isProxy(connect)) return before.reload(connect)
    const next = await this.#make(config)
    await next.open()
    this.#target = next
    before?.close()
    this.#onChange()
  }

  /**
   * Connects to the target. `dialling` is never called inside this call.
   * @param peer of the session
   */
  dial(dialling: Dialling, peer: () => SocketAddress | undefined): Dial {
    if (this.#target === undefined) throw new Error('connect is not open')
    return this.#target.dial(dialling, peer)
  }

  /** The code of proxies is loaded only where it is of use. @throws ConfigError */
  async #make(config: Config): Promise<AnyTarget> {
    const { connect = '' } = config
    const { runtime, log, tcp } = this.#host
    if (isProxy(connect)) {
      const { ProxyTarget } = await import('../proxy/proxy-target.ts')
      return new ProxyTarget(this.#host, config)
    }
    if (isUnix(connect)) return new UnixTarget(runtime, parseUnix('connect', connect))
    return new Target(runtime, log, tcp, connect, this.#onChange)
  }
}
