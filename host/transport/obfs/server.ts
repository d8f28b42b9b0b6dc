/**
 * The server side of an obfuscated transport (protocol.md 9): dpi/tcp-wnd listens as a web server for cover, dpi/tcp
 * only captures. Applies reloads, and resolves names again if nothing was received for a long time.
 */

import type { Config } from '../../config/config.ts'
import type { Aead } from '../../crypto/aead.ts'
import type { Driver } from '../../driver/driver.ts'
import { coreConfig } from '../../engine/config-block.ts'
import { ConfigError, isTemporary, quote, StartError, step } from '../../errors.ts'
import { deviceIndex } from '../../linux/socket-options.ts'
import { syscallsOf } from '../../linux/syscalls.ts'
import type { Log } from '../../log/log.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import type { OperatingSystem, Runtime, TcpListener } from '../../runtime.ts'
import { ResolveLoop } from '../resolve-loop.ts'
import {
  isComplete,
  NO_ADDRESSES,
  type ResolvedAddresses,
  resolveAddresses,
  sameMaybe,
  throwFatal,
} from '../resolver.ts'
import type { Transport, TransportOptions } from '../transport.ts'
import { CoverServer } from './cover-server.ts'
import { type FirewallTarget, firewallNotice } from './firewall.ts'
import { FirewallWatch } from './firewall-watch.ts'
import type { ObfsSocket } from './socket.ts'
import { captureInterface, markSocket, obfsSystem, openSockets } from './sockets.ts'

/** protocol.md 9.2 */
const BACKLOG = 16
/** All other options are set on the listening socket (coverSocket) and inherited by its connections. */
const COVER_TCP = { nodelay: true, keepalive: false }

export class ObfsServer implements Transport {
  addresses: ResolvedAddresses = NO_ADDRESSES
  readonly peerFound = true
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  readonly #aead: Aead | undefined
  readonly #os: OperatingSystem
  readonly #cover: CoverServer
  readonly #firewall: FirewallWatch
  #config: Config
  #socket: ObfsSocket | undefined
  #listener: TcpListener | undefined
  /** The address at which packets are captured. */
  #attached: SocketAddress | undefined
  /** Index of the capture interface, 0: all. */
  #ifindex = 0
  #closed = false
  /** Serializes actions that change the sockets. */
  #queue: Promise<void> = Promise.resolve()
  /** `kcp_bind` as bound; undefined: not yet. */
  #bound: SocketAddress | undefined
  #family: 4 | 6 = 4
  readonly #resolving: ResolveLoop

  /** @throws StartError if the operating system does not provide the required calls */
  constructor({ runtime, config, log, driver, aead, onWaiting }: TransportOptions) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
    this.#os = obfsSystem(runtime, config)
    this.#firewall = new FirewallWatch(this.#os, driver, log, () => this.#firewallTarget())
    this.#resolving = new ResolveLoop(
      {
        isUnbound: () => this.#bound === undefined,
        isUnsettled: () => false,
        resolve: () => this.#look(),
        onEnded: onWaiting,
      },
      log,
      runtime.clock,
    )
    this.#cover = new CoverServer(
      {
        accept: (remote) => {
          let context = 0
          driver.run(() => {
            context = this.#socket?.accept(remote) ?? 0
          })
          return context
        },
        release: (context) => driver.run(() => this.#socket?.release(context)),
      },
      () => new Date(runtime.clock.wall()),
    )
  }

  async open(): Promise<void> {
    const { addresses, failures, warnings } = await resolveAddresses(this.#runtime, this.#config, NO_ADDRESSES)
    throwFatal(failures)
    for (const text of warnings) this.#log.warning(text)
    this.addresses = addresses
    const { bind } = addresses
    const isTcp = this.#config.obfs === 'dpi/tcp'
    if (isTcp && bind?.port === 0) {
      throw new ConfigError('kcp_bind', quote(this.#config.kcp_bind ?? ''), 'obfs dpi/tcp requires a port')
    }
    // the sockets require privileges, so they are opened at once
    this.#family = bind?.family ?? 4
    this.#driver.start(coreConfig(this.#config, this.#aead, this.#family))
    this.#socket = await openSockets(this.#os, this.#config, this.#driver, this.#family, this.#onPackets)
    let failure: unknown = failures[0]
    if (bind !== undefined) {
      await this.#bind(bind).catch((error) => {
        if (!isTemporary(error)) throw error
        failure ??= error
      })
      if (isTcp) this.#log.notice(firewallNotice({ side: 'server', address: bind }))
    }
    this.#resolving.ended(failure)
  }

  get waiting(): string | undefined {
    const isOpen = this.#bound !== undefined && isComplete(this.#config, this.addresses)
    return isOpen ? undefined : this.#resolving.failure
  }

  close(): void {
    this.#closed = true
    this.#resolving.close()
    this.#listener?.close()
    this.#cover.resetAll()
  }

  readonly #onPackets = (count: number): void => {
    if (this.#config.obfs === 'dpi/tcp') this.#firewall.onPackets(count)
  }

  #firewallTarget(): FirewallTarget | undefined {
    return this.#attached && { side: 'server', address: this.#attached }
  }

  onPeerFound(): void {}

  onUdpError(): void {}

  readonly onResolve = (): void => void this.#resolving.look()

  /** An interface `netdev` that was created again is another one for the capture socket. */
  onInterfaces(): void {
    const index = deviceIndex(this.#os, this.#config.netdev)
    if (index !== 0 && index !== this.#ifindex) void this.#resolving.look()
  }

  readonly onResume = (): void => this.onResolve()

  onObfsEnded(context: number): void {
    this.#cover.end(context)
  }

  /** A fresh engine has no contexts. Resetting the covers makes their clients redial. */
  onEngineReplaced(): void {
    this.#socket?.engineReplaced()
    this.#cover.resetAll()
    if (this.#attached === undefined) return
    try {
      this.#attach(this.#attached)
    } catch (error) {
      this.#resolving.ended(error)
    }
  }

  async reload(config: Config): Promise<void> {
    this.#resolving.ended(await this.#inTurn(() => this.#follow(config)))
  }

  /** Resolves names again and reopens what moved. */
  async #look(): Promise<void> {
    const failure = await this.#inTurn(() => this.#follow(this.#config))
    if (failure !== undefined) throw failure
  }

  /** Runs an action that changes the sockets after all earlier ones. */
  #inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    const turn = this.#queue.then(action)
    this.#queue = turn.then(
      () => {},
      () => {},
    )
    return turn
  }

  /**
   * Resolves the names of a configuration and applies it; it may be the current one or a new one.
   * @returns the failure of a lookup; a name keeps its address then
   * @throws StartError, or the error of a socket; a new configuration is then not applied
   */
  async #follow(config: Config): Promise<Error | undefined> {
    const { addresses, failures } = await resolveAddresses(this.#runtime, config, this.addresses)
    const socket = this.#socket
    if (this.#closed || socket === undefined) return undefined
    const old = this.#config
    const { bind } = addresses
    if (bind === undefined) return failures[0]
    try {
      if (bind.family !== this.#family) {
        throw new StartError(`kcp_bind: changing to IPv${bind.family} requires a restart`)
      }
      if (config !== old) this.#driver.reconfigure(coreConfig(config, this.#aead, bind.family))
      this.#config = config
      if (sameMaybe(this.#bound, bind)) this.#attach(socket.local)
      else await this.#bind(bind)
    } catch (error) {
      if (config !== old) {
        this.#config = old
        this.#driver.reconfigure(coreConfig(old, this.#aead, this.#family))
      }
      if (this.#attached !== undefined) this.#attach(this.#attached)
      throw error
    }
    this.addresses = addresses
    return failures[0]
  }

  /** @throws StartError */
  async #bind(bind: SocketAddress): Promise<void> {
    await step(`kcp_bind: cannot open ${formatAddress(bind)}`, () => this.#open(bind))
    this.#bound = bind
  }

  /** Listens and captures at an address. */
  async #open(bind: SocketAddress): Promise<void> {
    if (this.#config.obfs === 'dpi/tcp') {
      this.#attach(bind)
      this.#log.notice(`obfs bind: ${formatAddress(bind)}`)
      return
    }
    const syscalls = syscallsOf(this.#os)
    const before = this.#attached
    const fd = syscalls.coverSocket(bind.family, { reuseport: this.#config.tcp.reuseport })
    markSocket(syscalls, fd, this.#config, this.#log)
    let local: SocketAddress
    try {
      syscalls.bind(fd, bind, formatAddress(bind))
      syscalls.listen(fd, BACKLOG)
      local = syscalls.localAddress(fd)
      this.#attach(local)
    } catch (error) {
      syscalls.close(fd)
      throw error
    }
    const listener = await this.#os
      .adoptListener(fd, COVER_TCP, this.#cover.accept, (error) => this.#driver.diagnostics.acceptError(error))
      .catch((error) => {
        this.#attached = before
        throw error
      })
    this.#listener?.close()
    this.#listener = listener
    if (this.#closed) listener.close()
    this.#log.notice(`obfs listen: ${formatAddress(local)}`)
  }

  #attach(local: SocketAddress): void {
    const ifindex = captureInterface(this.#os, this.#config, local, this.#log)
    this.#driver.run(() => this.#socket?.attach(local, ifindex))
    this.#ifindex = ifindex
    // one that fails leaves the place to go back to
    this.#attached = local
  }
}
