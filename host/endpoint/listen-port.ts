/**
 * The TCP port of a client: listens on every address of `listen`, and retries while none of them exists yet
 * (protocol.md 10.4, 10.5).
 */

import { isTemporary, messageOf, StartError, step } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../runtime.ts'
import { resolveAll } from '../transport/resolver.ts'
import { Retry } from '../transport/retry.ts'

export interface ListenPortHost {
  readonly runtime: Runtime
  readonly log: Log
  /** Options of the listener on an address, by its number. */
  tcp(number: number): TcpOptions
  /** Addresses that a worker has sockets for, in place of those of `listen`. */
  readonly bound: readonly string[] | undefined
  /** As in Runtime.listenTcp. */
  accept(connection: TcpConnection): TcpHandlers | null
  onAcceptError(error: Error): void
  /** `failure` changed. */
  onChange(): void
}

export class ListenPort {
  readonly #host: ListenPortHost
  readonly #text: string
  readonly #retry: Retry
  readonly #listeners: TcpListener[] = []
  #closed = false
  /** Whether it is to listen. */
  #isOpen = true
  /** Serializes attempts to listen. */
  #turn: Promise<void> = Promise.resolve()
  /** The first address it listened on: `listen` may leave the port to the system. */
  #local: SocketAddress | undefined

  /** @param text `listen` */
  constructor(host: ListenPortHost, text: string) {
    this.#host = host
    this.#text = text
    this.#retry = new Retry(
      host.runtime.clock,
      host.log,
      () => this.#open(),
      () => host.onChange(),
    )
  }

  /** The first address it listens on, also while it is closed; undefined before. */
  get local(): SocketAddress | undefined {
    return this.#local
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

  /** Closes the port, or opens it again; errors are retried. Existing connections stay. */
  setOpen(isOpen: boolean): void {
    if (isOpen === this.#isOpen || this.#closed) return
    this.#isOpen = isOpen
    this.#host.log.notice(isOpen ? 'tcp listen: opening the port' : 'tcp listen: the peer is down, closing the port')
    if (isOpen) void this.#retry.start(() => false)
    else this.#shut()
  }

  close(): void {
    this.#closed = true
    this.#retry.close()
    this.#shut()
  }

  #shut(): void {
    for (const listener of this.#listeners.splice(0)) listener.close()
  }

  #open(): Promise<void> {
    const turn = this.#turn.then(() => this.#openAll())
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #openAll(): Promise<void> {
    if (!this.#isOpen || this.#listeners.length > 0) return
    const { runtime, bound = [this.#text] } = this.#host
    const found = await Promise.all(bound.map((text) => resolveAll(runtime, 'listen', text, 'bind')))
    const failures: string[] = []
    try {
      for (const [number, address] of found.flat().entries()) {
        await this.#listen(address, number).catch((error) => {
          if (!isTemporary(error)) throw error
          failures.push(messageOf(error))
        })
      }
      if (this.#listeners.length === 0 && this.#isOpen && !this.#closed)
        throw new StartError(failures[0] ?? 'listen: no address', true)
    } catch (error) {
      this.#shut()
      throw error
    }
    // a name may have addresses that this machine does not use
    for (const failure of failures) this.#host.log.warning(failure)
  }

  async #listen(address: SocketAddress, number: number): Promise<void> {
    const { runtime, log, tcp } = this.#host
    // with port 0 the other addresses get the port of the first
    const wanted = { ...address, port: address.port || (this.#local?.port ?? 0) }
    const listener = await step(`listen: cannot listen on ${formatAddress(wanted)}`, () =>
      runtime.listenTcp(
        wanted,
        tcp(number),
        (connection) => this.#host.accept(connection),
        (error) => this.#host.onAcceptError(error),
      ),
    )
    if (this.#closed || !this.#isOpen) {
      listener.close()
      return
    }
    this.#listeners.push(listener)
    this.#local ??= listener.local
    log.notice(`tcp listen: ${formatAddress(listener.local)}`)
  }
}
