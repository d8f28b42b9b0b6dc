/**
 * The UDP transport: opens the socket, follows changes of the configuration's names (protocol.md 7.6, 10.4) and of the
 * local network, and announces the endpoint to a rendezvous server.
 *
 * The socket is reopened only after a change, and keeps its port then: a server that identifies sessions by address and
 * port keeps them. Another port is used only when the peer answers there and not at the old one (port-probe.ts).
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { checkServiceId } from '../config/mtu.ts'
import { SOURCE_SELECTED } from '../config/rules.ts'
import { coreConfig } from '../engine/config-block.ts'
import { codeOf, isTemporary, messageOf, quote, type SystemError, step } from '../errors.ts'
import { deviceIndex } from '../linux/socket-options.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { UdpOptions, UdpSocket } from '../runtime.ts'
import { PathMonitor } from './path-monitor.ts'
import { PortProbe } from './port-probe.ts'
import { ProbingSocket } from './probing-socket.ts'
import { localTowards, RendezvousAnnouncer } from './rendezvous.ts'
import { ResolveLoop } from './resolve-loop.ts'
import {
  isComplete,
  isOpenable,
  isWildcard,
  NO_ADDRESSES,
  packetFamily,
  peersOf,
  type ResolvedAddresses,
  resolveAddresses,
  sameMaybe,
  throwFatal,
  udpOptions,
} from './resolver.ts'
import type { Transport, TransportOptions } from './transport.ts'

/** Whether two configurations differ in options that are set when a UDP socket is opened. */
const needsOtherSocket = (old: Config, fresh: Config): boolean =>
  (['netdev', 'fwmark', 'dscp'] as const).some((key) => old[key] !== fresh[key]) ||
  JSON.stringify(old.udp) !== JSON.stringify(fresh.udp)

/** The path is checked this long after a change of interfaces, ms: addresses and routes follow one another. */
const SETTLE_MS = 200

export class UdpTransport implements Transport {
  addresses: ResolvedAddresses = NO_ADDRESSES
  peerFound = false
  readonly #options: TransportOptions
  readonly #resolving: ResolveLoop
  readonly #path: PathMonitor
  readonly #announcer: RendezvousAnnouncer
  readonly #portProbe: PortProbe
  readonly #probing: ProbingSocket
  #isPortReported = false
  #config: Config
  /** The socket does not match the addresses, or there is none. */
  #stale = true
  /** Options the socket in use was opened with. */
  #opened: UdpOptions | undefined
  /** Local port to keep. */
  #port = 0
  /** Index of the interface `netdev` that the socket is bound to, 0 if none. */
  #device = 0
  #family: 4 | 6 = 4
  #closed = false
  /** Serializes actions that change the socket. */
  #queue: Promise<void> = Promise.resolve()

  constructor(options: TransportOptions) {
    const { config, driver, log, runtime } = options
    this.#options = options
    this.#config = config
    this.#announcer = new RendezvousAnnouncer(runtime, log, driver)
    this.#resolving = new ResolveLoop(
      {
        isUnbound: () => driver.sockets.sender === undefined,
        isUnsettled: () => this.#stale || driver.peerSilent,
        resolve: () => this.#resolve(),
        onEnded: () => options.onWaiting(),
      },
      log,
      runtime.clock,
    )
    this.#probing = new ProbingSocket(runtime, driver)
    this.#portProbe = new PortProbe(
      {
        isPeerSilent: () => driver.peerSilent,
        inTurn: (action) => this.#inTurn(action),
        addresses: () => peersOf(this.addresses).length,
        openProbe: (address) => {
          const peer = peersOf(this.addresses)[address]
          return this.#probing.open(this.#socketOptions(peer), peer, this.addresses.rendezvous, this.#config.fwmark)
        },
        closeProbe: () => this.#probing.close(),
        pingBoth: () => this.#probing.pingBoth(),
        moveToProbe: () => this.#moveToProbe(),
      },
      runtime.clock,
      log,
    )
    this.#path = new PathMonitor(
      {
        local: () => this.#remote && driver.sockets.sender?.local,
        isLocalFree: () => this.#isLocalFree,
        isConnected: () => this.addresses.peer !== undefined,
        isPeerSilent: () => driver.peerSilent,
        localTowardsPeer: async () => this.#remote && localTowards(runtime, this.#remote, this.#config.fwmark),
        inTurn: (action) => this.#inTurn(action),
        reconnect: () => this.#reconnect(),
        onSilence: () => this.#portProbe.onSilence(),
        onRoute: (wasLost) => this.#announce(wasLost),
        onFailure: (error) => this.#resolving.ended(error),
      },
      runtime.clock,
    )
  }

  get waiting(): string | undefined {
    const isOpen = this.#options.driver.sockets.sender !== undefined
    return isOpen && isComplete(this.#config, this.addresses) ? undefined : this.#resolving.failure
  }

  async open(): Promise<void> {
    const { addresses, failures, warnings } = await resolveAddresses(this.#options.runtime, this.#config, NO_ADDRESSES)
    throwFatal(failures)
    for (const text of warnings) this.#options.log.warning(text)
    this.addresses = addresses
    this.#family = packetFamily(addresses)
    checkServiceId(this.#config, this.#family)
    this.#options.driver.start(coreConfig(this.#config, this.#options.aead, this.#family))
    let failure: unknown = failures[0]
    if (isOpenable(this.#config, addresses)) {
      await this.#reopenAny().catch((error) => {
        if (!isTemporary(error)) throw error
        failure ??= error
      })
    }
    this.#setPeer()
    await this.#announce(true)
    this.#resolving.ended(failure)
  }

  close(): void {
    this.#closed = true
    this.#resolving.close()
    this.#path.close()
    this.#portProbe.close()
    this.#announcer.close()
  }

  readonly onResolve = (): void => {
    void this.#resolving.look()
    if (this.#remote !== undefined) this.#path.checkIn(0)
  }

  readonly onInterfaces = (): void => {
    if (this.#isDeviceNew()) void this.#resolving.look()
    this.#path.checkIn(SETTLE_MS)
  }

  readonly onResume = (): void => {
    void this.#resolving.look()
    this.#path.checkIn(0)
  }

  readonly onProbed = (): void => this.#portProbe.onAnswer()

  readonly onUdpError = (error: SystemError): void => this.#path.onError(error)

  readonly onPeerFound = (peer: SocketAddress): void => {
    this.peerFound = true
    this.#options.log.notice(`rendezvous: peer found at ${formatAddress(peer)}`)
  }

  async reload(config: Config): Promise<void> {
    const { runtime } = this.#options
    const { addresses, failures } = await resolveAddresses(runtime, config, this.addresses)
    if (this.#closed) return
    await this.#inTurn(() => this.#follow(addresses, config))
    this.#resolving.ended(failures[0])
  }

  /** One lookup of the resolve loop. */
  async #resolve(): Promise<void> {
    const config = this.#config
    const { addresses, failures } = await resolveAddresses(this.#options.runtime, config, this.addresses)
    if (this.#closed) return
    let failure: unknown = failures[0]
    let isReplaced = false
    await this.#inTurn(async () => {
      isReplaced = config !== this.#config
      if (!isReplaced) await this.#follow(addresses, config)
    }).catch((error) => {
      failure ??= error
    })
    // a reload replaced the configuration during the lookup
    if (isReplaced) return this.#resolve()
    if (failure !== undefined) throw failure
  }

  /**
   * Applies resolved addresses, together with a new configuration if `config` is not the current one.
   * @throws ConfigError, StartError, or the error of the socket; a new configuration is then not applied
   */
  async #follow(addresses: ResolvedAddresses, config: Config): Promise<void> {
    if (this.#closed) return
    const { driver, log, aead } = this.#options
    const before = { addresses: this.addresses, config: this.#config, family: this.#family, stale: this.#stale }
    const isReload = config !== before.config
    const family = packetFamily(addresses)
    if (isReload) checkServiceId(config, family)
    if (isReload && needsOtherSocket(before.config, config)) this.#stale = true
    const { bind, peer, rendezvous } = before.addresses
    if (!sameMaybe(bind, addresses.bind) || !sameMaybe(peer, addresses.peer)) this.#stale = true
    if (rendezvous?.family !== addresses.rendezvous?.family) this.#stale = true
    if (this.#isDeviceNew()) {
      log.notice(`netdev ${this.#config.netdev} was created: binding to it`)
      this.#stale = true
    }
    const reopen = this.#stale && isOpenable(config, addresses)
    try {
      if (isReload || family !== before.family) driver.reconfigure(coreConfig(config, aead, family))
      this.addresses = addresses
      this.#config = config
      this.#family = family
      if (reopen) await this.#reopenAny()
    } catch (error) {
      if (!isReload || this.#closed) throw error
      this.addresses = before.addresses
      this.#config = before.config
      this.#family = before.family
      this.#stale = before.stale || driver.sockets.sender === undefined
      driver.reconfigure(coreConfig(before.config, aead, before.family))
      throw error
    }
    this.#setPeer()
    if (reopen) driver.pingPeer()
    await this.#announce(reopen)
  }

  #setPeer(): void {
    if (this.addresses.peer !== undefined) this.#options.driver.setPeer(this.addresses.peer)
  }

  /** Reopens the socket for the same peer. Setting the peer again makes the engine ping it at once. */
  async #reconnect(): Promise<SocketAddress> {
    const { local } = await this.#reopen()
    this.#options.driver.setPeer(undefined)
    this.#setPeer()
    return local
  }

  /** Uses another address of the peer's name from the next reopen on. */
  #usePeer(peer: SocketAddress | undefined): void {
    const { driver, aead } = this.#options
    this.addresses = { ...this.addresses, peer }
    const family = packetFamily(this.addresses)
    if (family !== this.#family) driver.reconfigure(coreConfig(this.#config, aead, family))
    this.#family = family
  }

  /**
   * Reopens the socket, for another address of the peer's name if there is no path to the one in use.
   * @throws StartError
   */
  async #reopenAny(): Promise<void> {
    const [peer, ...others] = peersOf(this.addresses)
    try {
      await this.#reopen()
    } catch (error) {
      for (const other of isTemporary(error) ? others : []) {
        this.#usePeer(other)
        if (await this.#reopen().catch(() => undefined)) return
      }
      this.#usePeer(peer)
      throw error
    }
  }

  /**
   * Reopens the socket, with its previous local port if the configuration does not set one.
   * @throws StartError
   */
  async #reopen(): Promise<UdpSocket> {
    const { log } = this.#options
    const options = this.#socketOptions()
    this.#portProbe.reset()
    const again = this.#port !== 0
    this.#stale = true
    const device = deviceIndex(this.#options.runtime.os, this.#config.netdev)
    const where = `udp: cannot open ${formatAddress(options.bind)}`
    const socket = await step(where, () => this.#openKeepingPort(options))
    this.#stale = false
    this.#device = device
    this.#port = socket.local.port
    this.#path.onOpened()
    if (again) log.notice('udp socket restart')
    log.notice(`udp bind: ${formatAddress(socket.local)}`)
    if (socket.path !== undefined) log.notice(`udp path: ${socket.path}`)
    const { kcp_bind } = this.#config
    const isSelected = options.replyFromAsked && isWildcard(options.bind) && socket.repliesFromAsked !== true
    if (isSelected && kcp_bind !== undefined && !again) {
      log.notice(`config key kcp_bind = ${quote(kcp_bind)}: ${SOURCE_SELECTED}`)
    }
    if (options.connect !== undefined) log.notice(`udp connect: ${formatAddress(options.connect)}`)
    return socket
  }

  /** Whether the interface `netdev` was created since the socket was opened. A worker's socket is not its own. */
  #isDeviceNew(): boolean {
    const { runtime, socketOptions } = this.#options
    const index = deviceIndex(runtime.os, this.#config.netdev)
    return index !== 0 && index !== this.#device && socketOptions(this.#config)?.fd === undefined
  }

  #socketOptions(peer = this.addresses.peer): UdpOptions {
    const config = this.#config
    return {
      ...udpOptions({ ...this.addresses, peer }),
      path: config.udp.path,
      gso: config.udp.gso === 'auto',
      gro: config.udp.gro === 'auto',
      // a client has one path, which follows the routes
      replyFromAsked: (config.mode & MODE_CLIENT) === 0,
      socketOptions: this.#options.socketOptions(config),
    }
  }

  /**
   * Uses the other address that the probing socket was for, or the probing socket itself, unless the configuration sets
   * the local port.
   * @returns whether it did
   */
  async #moveToProbe(): Promise<boolean> {
    const { driver, log } = this.#options
    const probe = this.#probing.opened
    if (probe === undefined) return true
    if (!sameMaybe(probe.peer, this.addresses.peer)) {
      await this.#moveToPeer(probe.peer)
      return true
    }
    const who = driver.peer === undefined ? 'rendezvous server' : 'peer'
    const what = `the ${who} answers at a new local port, not at port ${this.#port}: a NAT keeps a dead mapping for it`
    if (udpOptions(this.addresses).bind.port !== 0) {
      if (!this.#isPortReported) {
        log.warning(`${what}. kcp_bind sets the port, so it is kept, and nothing gets through; set port 0 there`)
      }
      this.#isPortReported = true
      return false
    }
    this.#probing.takeOver()
    this.#opened = probe.options
    this.#port = probe.socket.local.port
    this.#path.onOpened()
    log.warning(`${what}. Moved to port ${this.#port}; connections that the peer does not find there are reset`)
    driver.pathMoved()
    await this.#announce(true)
    return true
  }

  /** Another address of the peer's name answers, the one in use does not. It may be another server. */
  async #moveToPeer(peer: SocketAddress | undefined): Promise<void> {
    const { driver, log } = this.#options
    const before = this.addresses.peer
    if (peer === undefined || before === undefined) return
    log.warning(
      `no answer from ${formatAddress(before)}, but from ${formatAddress(peer)}, another address of kcp_connect: ` +
        'using that; connections that are not known there are reset',
    )
    this.#usePeer(peer)
    await this.#reopen().catch((error) => {
      this.#usePeer(before)
      throw error
    })
    driver.pathMoved()
    this.#setPeer()
  }

  async #openKeepingPort(options: UdpOptions): Promise<UdpSocket> {
    if (options.bind.port === 0 && this.#port !== 0) {
      try {
        return await this.#replace({ ...options, bind: { ...options.bind, port: this.#port } })
      } catch (error) {
        if (codeOf(error) !== 'EADDRINUSE') throw error
      }
    }
    return this.#replace(options)
  }

  /**
   * Opens a socket and replaces the one in use, which serves until then. A socket with the same port must be closed
   * first; it is reopened if the new one cannot be opened.
   */
  async #replace(options: UdpOptions): Promise<UdpSocket> {
    const { sockets } = this.#options.driver
    const before = sockets.sender
    const opened = this.#opened
    const isSamePort = options.bind.port !== 0 && options.bind.port === before?.local.port
    if (isSamePort) sockets.remove(before)
    try {
      const socket = await this.#add(options)
      sockets.remove(before)
      return socket
    } catch (error) {
      if (isSamePort && opened !== undefined && !this.#closed) {
        await this.#add({ ...opened, bind: { ...opened.bind, port: options.bind.port } }).catch((again) =>
          this.#options.log.warning(`udp: cannot reopen the previous socket: ${messageOf(again)}`),
        )
      }
      throw error
    }
  }

  async #add(options: UdpOptions): Promise<UdpSocket> {
    const { driver, runtime } = this.#options
    const socket = await driver.sockets.add((handlers) => runtime.openUdp(options, handlers))
    driver.sockets.send(socket, options.connect)
    this.#opened = options
    return socket
  }

  /** Announces the endpoint to the rendezvous server if the announcement changed or `anew` is set. */
  async #announce(anew: boolean): Promise<void> {
    const { rendezvous } = this.addresses
    if (rendezvous === undefined) return
    await this.#announcer.announce(rendezvous, this.#config.service_id, !this.#isLocalFree, anew, this.#config.fwmark)
  }

  /** The remote address that determines the local address of the path. */
  get #remote(): SocketAddress | undefined {
    return this.addresses.peer ?? this.addresses.rendezvous
  }

  /** Whether the kernel selects the socket's local IP. */
  get #isLocalFree(): boolean {
    const { bind } = this.addresses
    return bind === undefined || isWildcard(bind)
  }

  /** Runs an action that changes the socket after all earlier ones. */
  #inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#queue.then(action)
    this.#queue = turn.catch(() => {})
    return turn
  }
}
