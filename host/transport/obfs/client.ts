/**
 * The client side of an obfuscated transport (protocol.md 9): dials, sets the driver's peer when the tunnel is ready,
 * and redials when it fails. Each dial uses a new local port, so sessions do not survive a redial. After a failed dial
 * the next address of the name is dialled.
 */

import type { Config } from '../../config/config.ts'
import type { Aead } from '../../crypto/aead.ts'
import type { Driver } from '../../driver/driver.ts'
import { coreConfig } from '../../engine/config-block.ts'
import { messageOf, StartError } from '../../errors.ts'
import { formatDuration } from '../../format.ts'
import { deviceIndex } from '../../linux/socket-options.ts'
import { syscallsOf } from '../../linux/syscalls.ts'
import { LOG_WARNING, type Log } from '../../log/log.ts'
import { formatAddress, type SocketAddress } from '../../net/address.ts'
import type { OperatingSystem, Runtime, Timer } from '../../runtime.ts'
import { NO_ADDRESSES, type ResolvedAddresses, resolveAddresses, sameMaybe, throwFatal } from '../resolver.ts'
import type { Transport, TransportOptions } from '../transport.ts'
import { udpOptions } from '../udp-options.ts'
import { CoverClient } from './cover-client.ts'
import { type FirewallTarget, firewallNotice } from './firewall.ts'
import { FirewallWatch } from './firewall-watch.ts'
import { Redial } from './redial.ts'
import type { ObfsSocket } from './socket.ts'
import { captureInterface, markSocket, obfsSystem, openSockets } from './sockets.ts'

/** Local ports of dpi/tcp: 49152..65535 (protocol.md 9.4). */
const FIRST_PORT = 49152
const PORTS = 16384

/** Timeout of a dpi/tcp SYN, ms. A lost SYN is not retransmitted; the next dial sends a new one. */
const ANSWER_MS = 5000

/** What may be wrong when nothing is answered; a device that drops the tunnel's packets reports nothing. */
const UNANSWERED =
  'no answer: the server is down, or a firewall or router on the path drops the packets, ' +
  'as conntrack does in state INVALID'

/** A server that is silent so soon after a suspension has ended the tunnel, ms. */
const RESUMED_MS = 10_000

const randomPort = (): number => FIRST_PORT + ((crypto.getRandomValues(new Uint16Array(1))[0] ?? 0) % PORTS)

export class ObfsClient implements Transport {
  addresses: ResolvedAddresses = NO_ADDRESSES
  readonly peerFound = true
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  readonly #aead: Aead | undefined
  readonly #os: OperatingSystem
  readonly #redial: Redial
  readonly #firewall: FirewallWatch
  #config: Config
  #socket: ObfsSocket | undefined
  #cover: CoverClient | undefined
  /** The engine's context of the dial in progress or of the tunnel; 0 = none. */
  #context = 0
  /** Local address and capture interface of the last dial. */
  #attached: { readonly local: SocketAddress; readonly ifindex: number } | undefined
  #ready = false
  #family: 4 | 6 = 4
  #closed = false
  #resumedAt = Number.NEGATIVE_INFINITY
  #answerTimer: Timer | undefined
  /** Why the name was not resolved. */
  #missing: string | undefined
  readonly #onWaiting: () => void
  /** Counts dials: one superseded while it resolved a name is abandoned. */
  #dialled = 0

  /** @throws StartError if the operating system does not provide the required calls */
  constructor({ runtime, config, log, driver, aead, onWaiting }: TransportOptions) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
    this.#os = obfsSystem(runtime, config)
    this.#firewall = new FirewallWatch(this.#os, driver, log, () => this.#firewallTarget())
    this.#onWaiting = onWaiting
    this.#redial = new Redial(() => void this.#dialAgain(), runtime.clock)
  }

  async open(): Promise<void> {
    const { addresses, failures, warnings } = await resolveAddresses(this.#runtime, this.#config, NO_ADDRESSES)
    throwFatal(failures)
    for (const text of warnings) this.#log.warning(text)
    this.addresses = addresses
    const [failure] = failures
    // the sockets require privileges, so they are opened at once, in the family of what is known
    if (failure === undefined) this.#family = peerOf(addresses).family
    else this.#family = (addresses.peer ?? addresses.bind)?.family ?? 4
    this.#driver.start(coreConfig(this.#config, this.#aead, this.#family))
    this.#socket = await openSockets(this.#os, this.#config, this.#driver, this.#family, this.#onPackets)
    if (failure === undefined) await this.#dial()
    else this.#unresolved(failure)
  }

  get waiting(): string | undefined {
    return this.addresses.peer === undefined ? this.#missing : undefined
  }

  close(): void {
    this.#closed = true
    this.#redial.cancel()
    this.#runtime.clock.clearTimer(this.#answerTimer)
    this.#cover?.close()
  }

  readonly #onPackets = (count: number): void => {
    if (this.#config.obfs === 'dpi/tcp') this.#firewall.onPackets(count)
  }

  #firewallTarget(): FirewallTarget | undefined {
    const { peer } = this.addresses
    return peer && { side: 'client', address: peer }
  }

  onPeerFound(): void {}

  onUdpError(): void {}

  /** The peer does not answer. If the local address changed, the tunnel cannot recover and is redialled. */
  readonly onResolve = (): void => {
    const { peer } = this.addresses
    if (!this.#ready || peer === undefined || this.#socket === undefined) return
    if (this.#runtime.clock.monotonic() - this.#resumedAt < RESUMED_MS) {
      this.#failed('no answer after a suspension')
      return
    }
    try {
      const now = syscallsOf(this.#os).sourceFor(peer, this.#config.fwmark).address
      if (this.addresses.bind === undefined && now !== this.#socket.local.address)
        this.#failed('the local address changed')
    } catch {
      // no route now: the context will time out
    }
  }

  /**
   * An interface `netdev` that was created again is another one for the capture socket. A changed local address counts
   * only when the peer is silent: a redial costs the sessions.
   */
  onInterfaces(): void {
    const attached = this.#attached
    const index = deviceIndex(this.#os, this.#config.netdev)
    if (attached === undefined || index === 0 || index === attached.ifindex || attached.local.scope !== 0) return
    this.#attached = { ...attached, ifindex: index }
    this.#driver.run(() => this.#socket?.attach(attached.local, index))
  }

  /** The engine pings the server; if that is not answered, the tunnel is dialled again. */
  readonly onResume = (): void => {
    this.#resumedAt = this.#runtime.clock.monotonic()
  }

  onObfsReady(context: number): void {
    if (context === this.#context) this.#becomeReady()
  }

  onObfsEnded(context: number): void {
    if (context !== this.#context) return
    this.#context = 0
    this.#failed(UNANSWERED)
  }

  /** A fresh engine has no contexts, so the tunnel is lost: redials. */
  onEngineReplaced(): void {
    const socket = this.#socket
    // nothing was dialled yet
    if (socket === undefined) return
    socket.engineReplaced()
    // the context belonged to the old engine; do not release it in the fresh one
    this.#context = 0
    this.#giveUp()
    const attached = this.#attached
    try {
      // packets captured for the last dial must not reach an engine without obfuscator
      if (attached !== undefined) this.#driver.run(() => socket.attach(attached.local, attached.ifindex))
      this.#redial.now()
    } catch (error) {
      this.#failed(messageOf(error))
    }
  }

  async reload(config: Config): Promise<void> {
    const before = this.addresses
    const { addresses } = await resolveAddresses(this.#runtime, config, before)
    if (this.#closed) return
    if (addresses.peer !== undefined && this.#attached !== undefined) this.#checkFamily(peerOf(addresses))
    this.#driver.reconfigure(coreConfig(config, this.#aead, this.#family))
    const isSameDevice = config.netdev === this.#config.netdev
    this.#config = config
    const isSame = sameMaybe(before.peer, addresses.peer) && sameMaybe(before.bind, addresses.bind)
    if (this.#ready && isSame && isSameDevice) return
    this.#giveUp()
    this.#redial.now()
  }

  #checkFamily({ family }: SocketAddress): void {
    if (family !== this.#family) throw new StartError(`kcp_connect: changing to IPv${family} requires a restart`)
  }

  /** Reopens the sockets if the name turned out to have an address of the other family only. */
  async #prepare(peer: SocketAddress): Promise<void> {
    if (this.#attached !== undefined || peer.family === this.#family) return this.#checkFamily(peer)
    const before = this.#socket
    this.#socket = await openSockets(this.#os, this.#config, this.#driver, peer.family, this.#onPackets)
    this.#driver.sockets.remove(before)
    this.#family = peer.family
    this.#driver.reconfigure(coreConfig(this.#config, this.#aead, peer.family))
  }

  #unresolved({ message }: Error): void {
    this.#missing = message
    this.#failed(message)
    this.#onWaiting()
  }

  async #dialAgain(): Promise<void> {
    const dial = ++this.#dialled
    const { addresses, failures } = await resolveAddresses(this.#runtime, this.#config, this.addresses)
    if (this.#closed || dial !== this.#dialled) return
    this.addresses = addresses
    if (failures[0] !== undefined) return this.#unresolved(failures[0])
    this.#onWaiting()
    await this.#dial()
  }

  async #dial(): Promise<void> {
    try {
      const peer = peerOf(this.addresses)
      await this.#prepare(peer)
      if (this.#closed) return
      if (this.#config.obfs === 'dpi/tcp' && this.#attached === undefined) {
        this.#log.notice(firewallNotice({ side: 'client', address: peer }))
      }
      this.#giveUp()
      if (this.#config.obfs === 'dpi/tcp') this.#dialRaw(peer)
      else this.#dialCovered(peer)
    } catch (error) {
      this.#failed(messageOf(error))
    }
  }

  /** dpi/tcp-wnd: dials a real TCP connection for the cover; the tunnel is ready when the server responds. */
  #dialCovered(peer: SocketAddress): void {
    const syscalls = syscallsOf(this.#os)
    const { bind } = this.addresses
    const fd = syscalls.coverSocket(peer.family)
    markSocket(syscalls, fd, this.#config, this.#log)
    try {
      if (bind !== undefined) syscalls.bind(fd, bind, formatAddress(bind))
      syscalls.connect(fd, peer)
      this.#begin(syscalls.localAddress(fd), peer)
    } catch (error) {
      syscalls.close(fd)
      throw error
    }
    const cover = new CoverClient(
      (handlers, onOpen) => this.#os.adoptConnection(fd, handlers, onOpen),
      formatAddress(peer),
      {
        onReady: () => this.#becomeReady(),
        onFailed: (reason) => {
          this.#cover = undefined
          this.#failed(reason)
        },
      },
    )
    this.#cover = cover
  }

  /** dpi/tcp: the engine sends a SYN; the tunnel is ready when the SYN|ACK arrives. */
  #dialRaw(peer: SocketAddress): void {
    const { bind } = this.addresses
    const { address, scope } = bind ?? syscallsOf(this.#os).sourceFor(peer, this.#config.fwmark)
    this.#begin({ family: peer.family, address, port: randomPort(), scope }, peer)
    this.#answerTimer = this.#runtime.clock.setTimer(() => this.#failed(UNANSWERED), ANSWER_MS)
  }

  #begin(local: SocketAddress, peer: SocketAddress): void {
    const ifindex = captureInterface(this.#os, this.#config, local, this.#log)
    this.#attached = { local, ifindex }
    this.#driver.run(() => {
      this.#socket?.attach(local, ifindex)
      this.#context = this.#socket?.dial(peer) ?? 0
    })
    this.#log.info(`obfs dial: ${formatAddress(local)} -> ${formatAddress(peer)}`)
  }

  #becomeReady(): void {
    const { peer } = this.addresses
    if (this.#ready || peer === undefined) return
    this.#ready = true
    this.#runtime.clock.clearTimer(this.#answerTimer)
    this.#redial.succeeded()
    this.#log.notice(`obfs ready: ${formatAddress(peer)}`)
    // setting the peer again makes the engine ping it at once
    this.#driver.setPeer(undefined)
    this.#driver.setPeer(peer)
  }

  /** Ends the dial in progress or the tunnel. TCP connections of applications are still accepted. */
  #giveUp(): void {
    const context = this.#context
    this.#context = 0
    this.#ready = false
    this.#runtime.clock.clearTimer(this.#answerTimer)
    this.#cover?.close()
    this.#cover = undefined
    if (context !== 0) this.#driver.run(() => this.#socket?.release(context))
  }

  #failed(reason: string): void {
    if (this.#closed) return
    const wasReady = this.#ready
    this.#giveUp()
    const pause = this.#redial.failed()
    const { peer } = this.addresses
    if (!wasReady) this.#useNext()
    this.#log.limited('obfs', LOG_WARNING, () => {
      const when = pause === 0 ? 'now' : `in ${formatDuration(pause)}`
      return `obfs: ${peer === undefined ? '' : `${formatAddress(peer)}: `}${reason}; redialling ${when}`
    })
  }

  /** The next dial goes to the next address of the name, of the same family once something was sent. */
  #useNext(): void {
    const { peer, peers } = this.addresses
    const usable = peers.filter(({ family }) => this.#attached === undefined || family === this.#family)
    const next = usable[(usable.findIndex((address) => sameMaybe(address, peer)) + 1) % usable.length]
    if (next !== undefined) this.addresses = { ...this.addresses, peer: next }
  }
}

function peerOf(addresses: ResolvedAddresses): SocketAddress {
  // only for its checks
  udpOptions(addresses)
  const { peer, bind } = addresses
  if (peer === undefined) throw new StartError('kcp_connect: missing')
  if (bind !== undefined && bind.family !== peer.family) {
    throw new StartError('kcp_connect: with obfs, its address family must match kcp_bind')
  }
  return peer
}
