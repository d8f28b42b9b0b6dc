/**
 * The target of a server, of the kind that `connect` names: an address of TCP, or a Unix socket. A reload may change
 * the kind.
 */

import type { Config } from '../config/config.ts'
import type { Dial, Dialling } from '../driver/stream.ts'
import type { Log } from '../log/log.ts'
import { isUnix, parseUnix } from '../net/unix-path.ts'
import type { Runtime, TcpOptions } from '../runtime.ts'
import { Target } from '../transport/target.ts'
import { UnixTarget } from '../transport/unix-target.ts'

/** What a server dials. */
interface AnyTarget {
  /** Why it cannot be dialled; undefined if it can. */
  readonly failure: string | undefined
  /** @throws ConfigError */
  open(): Promise<void>
  close(): void
  dial(dialling: Dialling): Dial
}

export class ServerTarget {
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #tcp: TcpOptions
  readonly #onChange: () => void
  #target: AnyTarget

  /** @param onChange `failure` changed */
  constructor(runtime: Runtime, log: Log, tcp: TcpOptions, config: Config, onChange: () => void) {
    this.#runtime = runtime
    this.#log = log
    this.#tcp = tcp
    this.#onChange = onChange
    this.#target = this.#make(config)
  }

  /** Why there is no address; undefined if there is one. */
  get failure(): string | undefined {
    return this.#target.failure
  }

  /** @throws ConfigError */
  open(): Promise<void> {
    return this.#target.open()
  }

  close(): void {
    this.#target.close()
  }

  /** Uses another target from now on, or the same one looked up anew. @throws ConfigError */
  async reload(config: Config): Promise<void> {
    const before = this.#target
    const text = config.connect ?? ''
    if (before instanceof Target && !isUnix(text)) return before.reload(text)
    const next = this.#make(config)
    await next.open()
    this.#target = next
    before.close()
    this.#onChange()
  }

  /** Connects to the target. `dialling` is never called inside this call. */
  dial(dialling: Dialling): Dial {
    return this.#target.dial(dialling)
  }

  #make({ connect = '' }: Config): AnyTarget {
    if (isUnix(connect)) return new UnixTarget(this.#runtime, parseUnix('connect', connect))
    return new Target(this.#runtime, this.#log, this.#tcp, connect, this.#onChange)
  }
}
