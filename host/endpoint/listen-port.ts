/**
 * The TCP port of a client: listens on every address of `listen`, and retries while none of them exists yet
 * (protocol.md 10.4, 10.5). Or its Unix socket.
 */

import type { Config } from '../config/config.ts'
import type { HostCounters } from '../driver/diagnostics.ts'
import { isTemporary, messageOf, StartError, step } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import { isUnix, parseMode, parseUnix, unixText } from '../net/unix-path.ts'
import type { Visitors } from '../proxy-protocol/visitors.ts'
import type { QueuedBytes, Runtime, TcpConnection, TcpHandlers, TcpListener, TcpOptions } from '../runtime.ts'
import { resolveAll } from '../transport/resolver.ts'
import { Retry } from '../transport/retry.ts'

export interface ListenPortHost {
  readonly runtime: Runtime
  readonly log: Log
  /** Options of the listener on an address, by its number. */
  tcp(number: number): TcpOptions
  /** Addresses that a worker has sockets for, in place of those of `listen`; none for a Unix socket. */
  readonly bound: readonly string[] | undefined
  readonly held: QueuedBytes
  readonly counters: HostCounters
  /** As in Runtime.listenTcp; a connection that is refused is reset. */
  accept(connection: TcpConnection): TcpHandlers | null
  onAcceptError(error: Error): void
  /** `failure` changed. */
  onChange(): void
}

/** Of a connection that was reset at once. */
const REFUSED: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

export class ListenPort {
  readonly #host: ListenPortHost
  #text: string
  #mode: string
  /** With the PROXY protocol only. */
  #visitors: Visitors | undefined
  readonly #retry: Retry
  readonly #listeners: Pick<TcpListener, 'close'>[] = []
  #closed = false
  /** Whether it is to listen. */
  #isOpen = true
  /** Serializes attempts to listen. */
  #turn: Promise<void> = Promise.resolve()
  /** The first address it listened on: `listen` may leave the port to the system. */
  #local: SocketAddress | undefined

  /** @param config in force; see reload */
  constructor(host: ListenPortHost, { listen = '', listen_mode }: Config) {
    this.#host = host
    this.#text = listen
    this.#mode = listen_mode
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

  /** Where it listens, for people: `local`, or the Unix socket; undefined before. */
  get place(): string | undefined {
    return isUnix(this.#text) ? this.#text : this.#local && formatAddress(this.#local)
  }

  /** Why it does not listen; undefined if it does. */
  get failure(): string | undefined {
    return this.#retry.failure
  }

  /**
   * Listens, or begins to retry if no address exists yet.
   * @param config that of the constructor
   * @throws ConfigError, or StartError for reasons that do not heal
   */
  async open(config: Config): Promise<void> {
    this.#visitors = await this.#visitorsOf(config)
    await this.#retry.start()
  }

  /** The code of the PROXY protocol is loaded only where it is of use. */
  async #visitorsOf(config: Config): Promise<Visitors | undefined> {
    if (config.proxy_protocol === undefined && config.proxy_protocol_from.length === 0) return undefined
    const { Visitors } = await import('../proxy-protocol/visitors.ts')
    const { runtime, log, held, counters, accept } = this.#host
    return new Visitors({ clock: runtime.clock, log, held, counters, accept }, config)
  }

  /**
   * Listens at another place from now on. Existing connections stay.
   * @throws StartError if that is not possible; the old place stays then
   */
  async reload(config: Config): Promise<void> {
    const { listen = '', listen_mode } = config
    const before = { text: this.#text, mode: this.#mode, local: this.#local, visitors: this.#visitors }
    this.#mode = listen_mode
    // connections whose header is awaited stay with those of before
    this.#visitors = await this.#visitorsOf(config)
    if (listen === before.text) {
      if (listen_mode !== before.mode && isUnix(listen) && this.#listeners.length > 0)
        this.#host.runtime.unix?.setMode(parseUnix('listen', listen), parseMode('listen_mode', listen_mode))
      return
    }
    const old = this.#listeners.splice(0)
    this.#text = listen
    this.#local = undefined
    try {
      await this.#retry.start()
    } catch (error) {
      this.#text = before.text
      this.#mode = before.mode
      this.#visitors = before.visitors
      this.#local = before.local
      this.#listeners.push(...old)
      throw error
    }
    for (const listener of old) listener.close()
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
    this.#visitors?.close()
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
    if (isUnix(this.#text)) return this.#openUnix(parseUnix('listen', this.#text))
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
      runtime.listenTcp(wanted, tcp(number), this.#accept, (error) => this.#host.onAcceptError(error)),
    )
    if (!this.#keep(listener)) return
    this.#local ??= listener.local
    log.notice(`tcp listen: ${formatAddress(listener.local)}`)
  }

  async #openUnix(path: string): Promise<void> {
    const { runtime, log, tcp } = this.#host
    const { unix } = runtime
    if (unix === undefined) throw new StartError('listen: this system has no Unix sockets')
    const listener = await step(`listen: cannot listen on ${unixText(path)}`, () =>
      unix.listen(path, parseMode('listen_mode', this.#mode), tcp(0).socketOptions?.fd, this.#accept, (error) =>
        this.#host.onAcceptError(error),
      ),
    )
    if (this.#keep(listener)) log.notice(`listen: ${unixText(path)}`)
  }

  readonly #accept = (connection: TcpConnection): TcpHandlers => {
    const handlers = (this.#visitors ?? this.#host).accept(connection)
    if (handlers !== null) return handlers
    // an application takes FIN for an empty but complete answer
    connection.reset()
    return REFUSED
  }

  /** @returns whether the listener is still wanted */
  #keep(listener: Pick<TcpListener, 'close'>): boolean {
    const isWanted = !this.#closed && this.#isOpen
    if (isWanted) this.#listeners.push(listener)
    else listener.close()
    return isWanted
  }
}
