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
import type { QueuedBytes } from '../runtime.ts'
import { Target } from '../transport/target.ts'
import { UnixTarget } from '../transport/unix-target.ts'

/** What a server dials. */
interface AnyTarget {
  /** Why it cannot be dialled; undefined if it can. */
  readonly failure: string | undefined
  /** @throws ConfigError */
  open(): Promise<void>
  close(): void
  dial(dialling: Dialling, peer: () => SocketAddress | undefined, user?: () => string | undefined): Dial
}

export interface ServerTargetHost extends ProxyTargetHost {
  readonly held: QueuedBytes
  /** The UDP address that peers reach. */
  local(): SocketAddress | undefined
}

type Greet = (dialling: Dialling, peer: SocketAddress | undefined) => Dialling

export class ServerTarget {
  readonly #host: ServerTargetHost
  readonly #onChange: () => void
  #target: AnyTarget | undefined
  /** With the PROXY protocol only: puts a header before what the target gets. */
  #greet: Greet | undefined

  /** @param onChange `failure` changed */
  constructor(host: ServerTargetHost, onChange: () => void) {
    this.#host = host
    this.#onChange = onChange
  }

  /** Why there is no address; undefined if there is one. */
  get failure(): string | undefined {
    return this.#target?.failure
  }

  /** Begins with the target of a configuration. @throws ConfigError */
  async open(config: Config): Promise<void> {
    this.#greet = await this.#greetingOf(config)
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
    this.#greet = await this.#greetingOf(config)
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
   * @param user whose key it has, if there are several
   */
  dial(dialling: Dialling, peer: () => SocketAddress | undefined, user?: () => string | undefined): Dial {
    if (this.#target === undefined) throw new Error('connect is not open')
    return this.#target.dial(this.#greet?.(dialling, peer()) ?? dialling, peer, user)
  }

  /** The code of the PROXY protocol is loaded only where it is of use. */
  async #greetingOf({ proxy_protocol }: Config): Promise<Greet | undefined> {
    if (proxy_protocol === undefined) return undefined
    const { greeting } = await import('../proxy-protocol/greeting.ts')
    const { held, local } = this.#host
    return (dialling, peer) => greeting(proxy_protocol, dialling, held, peer, local())
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
