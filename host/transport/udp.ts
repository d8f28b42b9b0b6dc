/**
 * The UDP transport: opens the socket, follows changes of the configuration's names (protocol.md 7.6, 10.4) and of the
 * local network, and announces the endpoint to a rendezvous server.
 *
 * The socket is reopened only after a change, and keeps its port then: a server that identifies sessions by address and
 * port keeps them. Another port is used only when the peer answers there and not at the old one (port-probe.ts).
 */

import type { Config } from '../config/config.ts'
import { checkServiceId } from '../config/mtu.ts'
import { rangeOf } from '../config/rules.ts'
import { coreConfig } from '../engine/config-block.ts'
import { isTemporary, type SystemError, step } from '../errors.ts'
import { deviceIndex } from '../linux/socket-options.ts'
import { formatAddress, formatAddresses, type SocketAddress, sameAddress } from '../net/address.ts'
import type { UdpOptions, UdpSocket } from '../runtime.ts'
import { logOpened } from './opened-log.ts'
import { PathMonitor } from './path-monitor.ts'
import { PortHop } from './port-hop.ts'
import { PortProbe } from './port-probe.ts'
import { ProbingSocket } from './probing-socket.ts'
import { localTowards, RendezvousAnnouncer } from './rendezvous.ts'
import { ResolveLoop } from './resolve-loop.ts'
import {
  isComplete,
  isOpenable,
  isWildcard,
  NO_ADDRESSES,
  type Remote,
  type ResolvedAddresses,
  remotesOf,
  resolveAddresses,
  sameMaybe,
  throwFatal,
} from './resolver.ts'
import { SendingSocket } from './sending-socket.ts'
import type { Transport, TransportOptions } from './transport.ts'
import { allOptionsFor, isSameSocket, needsOtherSocket, optionsFor, packetFamily } from './udp-options.ts'

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
  readonly #socket: SendingSocket
  readonly #hop: PortHop
  #isPortReported = false
  #config: Config
  /** The socket does not match the addresses, or there is none. */
  #stale = true
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
    this.#hop = new PortHop({
      driver,
      log,
      clock: runtime.clock,
      range: () => rangeOf('kcp_connect', this.addresses.peer && this.#config.kcp_connect),
      interval: () => this.#config.hop_interval,
      inTurn: (action) => this.#inTurn(action),
      wanted: () => this.#optionsFor(this.addresses),
      replace: (next) => this.#socket.replace(next),
      adopted: (used, port) => this.#socket.adopted(used, port),
      onHopped: () => {
        this.#portProbe.reset()
        this.#path.onOpened()
      },
    })
    this.#socket = new SendingSocket(this.#hop.through(runtime), driver, log)
    this.#portProbe = new PortProbe(
      {
        isPeerSilent: () => driver.peerSilent,
        inTurn: (action) => this.#inTurn(action),
        addresses: () => this.#remotes.length,
        openProbe: (address) => {
          const remote = this.#remotes[address] ?? this.addresses
          return this.#probing.open(this.#optionsFor(remote), remote, this.#config.fwmark)
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

  get remote(): SocketAddress | undefined {
    return this.#hop.where(this.#options.driver.peer)
  }

  get waiting(): string | undefined {
    const isOpen = this.#options.driver.sockets.sender !== undefined
    return isOpen && isComplete(this.#config, this.addresses) ? undefined : this.#resolving.failure
  }

  async open(): Promise<void> {
    const { addresses, failures } = await this.#resolveAll(this.#config)
    throwFatal(failures)
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
    this.#hop.follow()
    await this.#passUnreachable()
    await this.#announce(true)
    this.#resolving.ended(failure)
  }

  close(): void {
    this.#closed = true
    this.#resolving.close()
    this.#path.close()
    this.#portProbe.close()
    this.#hop.close()
    this.#announcer.close()
    this.#socket.close()
  }

  readonly onResolve = (): void => {
    void this.#resolving.look()
    if (this.#remote !== undefined) this.#path.checkIn(0)
  }

  readonly onInterfaces = (): void => {
    if (this.#isDeviceNew() || this.#socket.isPartial) void this.#resolving.look()
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
    const { addresses, failures } = await this.#resolveAll(config)
    if (this.#closed) return
    await this.#inTurn(() => this.#follow(addresses, config))
    this.#resolving.ended(failures[0])
  }

  async #resolveAll(config: Config): ReturnType<typeof resolveAddresses> {
    const { runtime, bound } = this.#options
    const resolved = await resolveAddresses(runtime, config, this.addresses)
    return bound === undefined ? resolved : { ...resolved, addresses: { ...resolved.addresses, binds: bound } }
  }

  /** One lookup of the resolve loop. */
  async #resolve(): Promise<void> {
    const config = this.#config
    const { addresses, failures } = await this.#resolveAll(config)
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
    if (isReload && this.#hop.isAstray(rangeOf('kcp_connect', addresses.peer && config.kcp_connect))) this.#stale = true
    if (!isSameSocket(before.addresses, addresses)) this.#stale = true
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
      else if (this.#socket.isPartial) await this.#socket.complete()
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
    this.#hop.follow()
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

  /** The remote end in use, then the others to try. Which peer a rendezvous server found is not ours to choose. */
  get #remotes(): readonly [Remote, ...Remote[]] {
    const isFound = this.addresses.peer === undefined && this.#options.driver.peer !== undefined
    return isFound ? [this.addresses] : remotesOf(this.addresses)
  }

  /** At the start, passes over addresses of the rendezvous server without a route if there is one with a route. */
  async #passUnreachable(): Promise<void> {
    for (const { rendezvous } of remotesOf(this.addresses)) {
      if (rendezvous === undefined || !(await localTowards(this.#options.runtime, rendezvous, this.#config.fwmark)))
        continue
      this.addresses = { ...this.addresses, rendezvous }
      return
    }
  }

  /** Uses another remote end from the next reopen on. */
  #use({ peer, rendezvous }: Remote): void {
    const { driver, aead } = this.#options
    this.addresses = { ...this.addresses, peer, rendezvous }
    const family = packetFamily(this.addresses)
    if (family !== this.#family) driver.reconfigure(coreConfig(this.#config, aead, family))
    this.#family = family
  }

  /**
   * Reopens the socket, for another address of the peer's name if there is no path to the one in use.
   * @throws StartError
   */
  async #reopenAny(): Promise<void> {
    const [before, ...others] = this.addresses.peer === undefined ? ([this.addresses] as const) : this.#remotes
    try {
      await this.#reopen()
    } catch (error) {
      for (const other of isTemporary(error) ? others : []) {
        this.#use(other)
        if (await this.#reopen().catch(() => undefined)) return
      }
      this.#use(before)
      throw error
    }
  }

  /**
   * Reopens the socket, with its previous local port if the configuration does not set one.
   * @throws StartError
   */
  async #reopen(): Promise<UdpSocket> {
    const { log } = this.#options
    const [first, ...others] = allOptionsFor(this.#options, this.#config, this.addresses)
    const options = this.#hop.options(first)
    const all = [options, ...others]
    this.#portProbe.reset()
    const again = this.#socket.port !== 0
    this.#stale = true
    const device = deviceIndex(this.#options.runtime.os, this.#config.netdev)
    const where = `udp: cannot open ${formatAddresses(all.map(({ bind }) => bind)).join(', ')}`
    const socket = await step(where, () => this.#socket.open(all))
    this.#stale = false
    this.#device = device
    this.#path.onOpened()
    const isSearching = this.#options.driver.isSearchingMtu
    logOpened(log, this.#config, { options, socket, locals: this.#socket.locals, again, isSearching })
    return socket
  }

  #optionsFor({ peer, rendezvous }: Remote): UdpOptions {
    return optionsFor(this.#options, this.#config, { ...this.addresses, peer, rendezvous })
  }

  /** Whether the interface `netdev` was created since the socket was opened. A worker's socket is not its own. */
  #isDeviceNew(): boolean {
    const { runtime, socketOptions } = this.#options
    const index = deviceIndex(runtime.os, this.#config.netdev)
    return index !== 0 && index !== this.#device && socketOptions(this.#config)?.fd === undefined
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
    if (!sameMaybe(probe.remote.peer, this.addresses.peer)) {
      await this.#moveToPeer(probe.remote.peer)
      return true
    }
    if (!sameMaybe(probe.remote.rendezvous, this.addresses.rendezvous)) {
      await this.#moveToRendezvous(probe.remote.rendezvous)
      return true
    }
    const who = driver.peer === undefined ? 'rendezvous server' : 'peer'
    const what = `the ${who} answers at a new local port, not at port ${this.#socket.port}: a NAT keeps a dead mapping for it`
    if (this.#optionsFor(this.addresses).bind.port !== 0) {
      if (!this.#isPortReported) {
        log.warning(`${what}. kcp_bind sets the port, so it is kept, and nothing gets through; set port 0 there`)
      }
      this.#isPortReported = true
      return false
    }
    this.#probing.takeOver()
    this.#socket.adopted(probe.options, probe.socket.local.port)
    this.#path.onOpened()
    log.warning(`${what}. Moved to port ${this.#socket.port}; connections that the peer does not find there are reset`)
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
    const { rendezvous } = this.addresses
    this.#use({ peer, rendezvous })
    await this.#reopen().catch((error) => {
      this.#use({ peer: before, rendezvous })
      throw error
    })
    driver.pathMoved()
    this.#setPeer()
  }

  /** Another address of the rendezvous server's name answers, the one in use does not. It may be another server. */
  async #moveToRendezvous(rendezvous: SocketAddress | undefined): Promise<void> {
    const before = this.addresses.rendezvous
    // a client that has found its peer meanwhile needs none
    if (rendezvous === undefined || before === undefined || this.#options.driver.peer !== undefined) return
    this.#options.log.warning(
      `no answer from ${formatAddress(before)}, but from ${formatAddress(rendezvous)}, another address of ` +
        'rendezvous_server: using that',
    )
    // the socket reaches every address of the name
    this.#use({ peer: undefined, rendezvous })
    await this.#announce(true)
  }

  /** Announces the endpoint to the rendezvous server if the announcement changed or `anew` is set. */
  async #announce(anew: boolean): Promise<void> {
    const { rendezvous, rendezvousAddresses } = this.addresses
    if (rendezvous === undefined) return
    const others = rendezvousAddresses.filter((address) => !sameAddress(address, rendezvous))
    const { service_id: service, fwmark } = this.#config
    const bound = !this.#isLocalFree
    await this.#announcer.announce({ server: rendezvous, others, service, bound, fwmark }, anew)
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
