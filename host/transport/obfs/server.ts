/**
 * The server side of an obfuscated transport (protocol.md 9): dpi/tcp-wnd listens as a web server for cover, dpi/tcp
 * only captures. Applies reloads, and resolves names again if nothing was received for a long time.
 */

import type { Config } from '../../config/config.ts'
import type { Aead } from '../../crypto/aead.ts'
import type { Driver } from '../../driver/driver.ts'
import { coreConfig } from '../../engine/config-block.ts'
import { ConfigError, messageOf, quote, StartError } from '../../errors.ts'
import { syscallsOf } from '../../linux/syscalls.ts'
import type { Log } from '../../log/log.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import type { OperatingSystem, Runtime, TcpListener } from '../../runtime.ts'
import { NO_ADDRESSES, type ResolvedAddresses, resolveAddresses, sameMaybe } from '../resolver.ts'
import type { Transport, TransportOptions } from '../transport.ts'
import { CoverServer } from './cover-server.ts'
import { firewallNotice } from './firewall.ts'
import type { ObfsSocket } from './socket.ts'
import { captureInterface, obfsSystem, openSockets } from './sockets.ts'

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
  #config: Config
  #socket: ObfsSocket | undefined
  #listener: TcpListener | undefined
  /** The address at which packets are captured. */
  #attached: SocketAddress | undefined
  #closed = false
  /** Serializes actions that change the sockets. */
  #queue: Promise<void> = Promise.resolve()
  #failing = false

  /** @throws StartError if the operating system does not provide the required calls */
  constructor({ runtime, config, log, driver, aead }: TransportOptions) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
    this.#os = obfsSystem(runtime, config)
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

  async open(): Promise<{ readonly local: SocketAddress }> {
    const { addresses, failures } = await resolveAddresses(this.#runtime, this.#config, NO_ADDRESSES)
    if (failures[0] !== undefined) throw failures[0]
    this.addresses = addresses
    const bind = bindOf(addresses)
    const isTcp = this.#config.obfs === 'dpi/tcp'
    if (isTcp && bind.port === 0) {
      throw new ConfigError('kcp_bind', quote(this.#config.kcp_bind ?? ''), 'obfs dpi/tcp requires a port')
    }
    this.#driver.start(coreConfig(this.#config, this.#aead, bind.family))
    this.#socket = await openSockets(this.#os, this.#config, this.#driver, bind.family)
    try {
      await this.#bind(bind)
    } catch (error) {
      throw new StartError(`kcp_bind: cannot open ${formatAddress(bind)}: ${messageOf(error)}`)
    }
    if (isTcp) this.#log.notice(firewallNotice({ side: 'server', address: bind }))
    return this.#socket
  }

  close(): void {
    this.#closed = true
    this.#listener?.close()
    this.#cover.resetAll()
  }

  onPeerFound(): void {}

  onUdpError(): void {}

  readonly onResolve = (): void => void this.#look()

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
      this.#warn(error)
    }
  }

  reload(config: Config): Promise<void> {
    return this.#inTurn(() => this.#follow(config))
  }

  /** Resolves names again and reopens what moved. Never rejects. */
  #look(): Promise<void> {
    return this.#inTurn(() => this.#follow(this.#config)).catch((error) => this.#warn(error))
  }

  /** Runs an action that changes the sockets after all earlier ones. */
  #inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#queue.then(action)
    this.#queue = turn.catch(() => {})
    return turn
  }

  /** Logs the first of a series of failures. */
  #warn(error: unknown): void {
    if (!this.#failing) this.#log.warning(`address update failed, retrying: ${messageOf(error)}`)
    this.#failing = true
  }

  /**
   * Resolves the names of a configuration and applies it; it may be the current one or a new one.
   * @throws StartError, or the error of a socket; a new configuration is then not applied
   */
  async #follow(config: Config): Promise<void> {
    const { addresses, failures } = await resolveAddresses(this.#runtime, config, this.addresses)
    const socket = this.#socket
    if (this.#closed || socket === undefined) return
    const before = this.addresses
    const old = this.#config
    const bind = bindOf(addresses)
    try {
      if (bind.family !== bindOf(before).family) {
        throw new StartError(`kcp_bind: changing to IPv${bind.family} requires a restart`)
      }
      if (config !== old) this.#driver.reconfigure(coreConfig(config, this.#aead, bind.family))
      this.#config = config
      if (sameMaybe(before.bind, bind)) this.#attach(socket.local)
      else await this.#bind(bind)
    } catch (error) {
      if (config === old) {
        // the target moves nevertheless
        this.#setAddresses({ ...addresses, bind: before.bind })
      } else {
        this.#config = old
        this.#driver.reconfigure(coreConfig(old, this.#aead, bindOf(before).family))
      }
      if (this.#attached !== undefined) this.#attach(this.#attached)
      throw error
    }
    this.#setAddresses(addresses)
    if (failures[0] === undefined) this.#failing = false
    else this.#warn(failures[0])
  }

  #setAddresses(addresses: ResolvedAddresses): void {
    const { target } = this.addresses
    this.addresses = addresses
    if (addresses.target !== undefined && !sameMaybe(target, addresses.target)) {
      this.#log.notice(`connect: now ${formatAddress(addresses.target)}`)
    }
  }

  /** Listens and captures at an address. */
  async #bind(bind: SocketAddress): Promise<void> {
    if (this.#config.obfs === 'dpi/tcp') {
      this.#attach(bind)
      this.#log.notice(`obfs bind: ${formatAddress(bind)}`)
      return
    }
    const syscalls = syscallsOf(this.#os)
    const before = this.#attached
    const fd = syscalls.coverSocket(bind.family, { reuseport: this.#config.tcp.reuseport })
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
    // one that fails leaves the place to go back to
    this.#attached = local
  }
}

function bindOf(addresses: ResolvedAddresses): SocketAddress {
  if (addresses.bind === undefined) throw new StartError('kcp_bind: missing')
  return addresses.bind
}
