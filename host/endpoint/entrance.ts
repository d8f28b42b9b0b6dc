/**
 * The TCP port of a client: listens on every address of `listen`, and retries while none of them exists yet
 * (protocol.md 10.4, 10.5).
 */

import { isTemporary, messageOf, StartError, step } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../runtime.ts'
import { Retry } from '../service/retry.ts'
import { resolveAll } from '../transport/resolver.ts'

export interface EntranceHost {
  readonly runtime: Runtime
  readonly log: Log
  readonly tcp: TcpOptions
  /** As in Runtime.listenTcp. */
  accept(connection: TcpConnection): TcpHandlers | null
  onAcceptError(error: Error): void
  /** `failure` changed. */
  onChange(): void
}

export class Entrance {
  readonly #host: EntranceHost
  readonly #text: string
  readonly #retry: Retry
  readonly #listeners: TcpListener[] = []
  #closed = false

  /** @param text `listen` */
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

  /** The first address it listens on; undefined while there is none. */
  get local(): SocketAddress | undefined {
    return this.#listeners[0]?.local
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

  close(): void {
    this.#closed = true
    this.#retry.close()
    this.#shut()
  }

  #shut(): void {
    for (const listener of this.#listeners.splice(0)) listener.close()
  }

  async #open(): Promise<void> {
    const addresses = await resolveAll(this.#host.runtime, 'listen', this.#text, 'bind')
    const failures: string[] = []
    try {
      for (const address of addresses) {
        await this.#listen(address).catch((error) => {
          if (!isTemporary(error)) throw error
          failures.push(messageOf(error))
        })
      }
      if (this.#listeners.length === 0) throw new StartError(failures[0] ?? 'listen: no address', true)
    } catch (error) {
      this.#shut()
      throw error
    }
    // a name may have addresses that this machine does not use
    for (const failure of failures) this.#host.log.warning(failure)
  }

  async #listen(address: SocketAddress): Promise<void> {
    const { runtime, log, tcp } = this.#host
    // with port 0 the other addresses get the port of the first
    const wanted = { ...address, port: address.port || (this.local?.port ?? 0) }
    const listener = await step(`listen: cannot listen on ${formatAddress(wanted)}`, () =>
      runtime.listenTcp(
        wanted,
        tcp,
        (connection) => this.#host.accept(connection),
        (error) => this.#host.onAcceptError(error),
      ),
    )
    if (this.#closed) {
      listener.close()
      return
    }
    this.#listeners.push(listener)
    log.notice(`tcp listen: ${formatAddress(listener.local)}`)
  }
}
