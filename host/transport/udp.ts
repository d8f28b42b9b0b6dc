/**
 * Keeps the UDP socket on the way to where the configuration's names lead: opens it, looks names up again when the
 * engine hears nothing (protocol.md 7.6), notices that the own network changed, tells a rendezvous server where we are.
 *
 * The socket is kept as long as nothing changed. A connected one is stuck to the local address that the system chose
 * when it was connected, so when that is no more the way to the server, the socket is opened again with the same port:
 * a server that identifies sessions by address and port loses none. Errors that the network reports are hints to look
 * at the way at once; what counts is what the look finds.
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { checkServiceId } from '../config/mtu.ts'
import type { Aead } from '../crypto/aead.ts'
import type { Driver } from '../driver/driver.ts'
import { coreConfig } from '../engine/config-block.ts'
import { codeOf, messageOf, type SystemError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime, Timer, UdpOptions, UdpSocket } from '../runtime.ts'
import { announcedAddress, asSeenBy, localTowards } from './rendezvous.ts'
import {
  isWildcard,
  type Names,
  NO_NAMES,
  packetFamily,
  resolveNames,
  sameMaybe,
  step,
  udpOptions,
} from './resolver.ts'

/** Without a UDP socket a new one is tried after this time, ms. */
const REOPEN_MS = 2000
/** Names that failed, or lead to a silent peer, are looked up again after this time, ms; it doubles up to the longest. */
const RETRY_MS = 5000
const RETRY_LONGEST_MS = 60_000
/** While the peer is silent or unreachable the way to it is looked at so often, ms. */
const WATCH_MS = 2000
/** The first look after an error of the network, ms. */
const HINT_MS = 200
/** A silent socket that reported errors is opened again at most so often, ms, though the way looks unchanged. */
const SUSPECT_MS = 10_000

/** Errors that say something about our own way to the peer, not about the peer. */
const PATH_ERRORS: ReadonlySet<string> = new Set([
  'EADDRNOTAVAIL',
  'EHOSTUNREACH',
  'EINVAL',
  'ENETDOWN',
  'ENETUNREACH',
  'ENODEV',
  'EPERM',
])

interface Announced {
  readonly server: SocketAddress
  readonly local: SocketAddress
  readonly service: string
}

export class Follower {
  names: Names = NO_NAMES
  /** Whether a rendezvous client has found its peer. */
  peerFound = false
  readonly #runtime: Runtime
  readonly #log: Log
  readonly #driver: Driver
  readonly #aead: Aead | undefined
  #config: Config
  /** The socket does not fit the names, or there is none. */
  #stale = true
  /** Local port to keep. */
  #port = 0
  #family: 4 | 6 = 4
  #announced: Announced | undefined
  #closed = false
  /** The look under way, and whether another one is wanted after it. */
  #looking: Promise<void> | undefined
  #again = false
  /** A row of failures was reported. */
  #failing = false
  #pause = RETRY_MS
  #retryTimer: Timer | undefined
  #watchTimer: Timer | undefined
  #watching = false
  #watchedAt = Number.NEGATIVE_INFINITY
  #reopenedAt = 0
  /** The last look found no way to the peer. */
  #lost = false
  /** The socket reported errors of its way since it was opened. */
  #suspect = false
  /** The system's way to the peer that the socket does not take though it was opened anew (netdev). */
  #foreign = ''
  /** What changes the socket runs one after the other. */
  #queue: Promise<void> = Promise.resolve()

  constructor(runtime: Runtime, config: Config, log: Log, driver: Driver, aead: Aead | undefined) {
    this.#runtime = runtime
    this.#config = config
    this.#log = log
    this.#driver = driver
    this.#aead = aead
  }

  /**
   * The start: resolves, configures the engine, opens the socket.
   * @throws ConfigError, StartError
   */
  async open(): Promise<UdpSocket> {
    const { names, failures } = await resolveNames(this.#runtime, this.#config, NO_NAMES)
    if (failures[0] !== undefined) throw failures[0]
    this.names = names
    const { bind } = udpOptions(names)
    this.#family = packetFamily(names)
    checkServiceId(this.#config, this.#family)
    this.#driver.start(coreConfig(this.#config, this.#aead, this.#family))
    const socket = await step(`udp: cannot open ${formatAddress(bind)}`, () => this.#reopen())
    if (names.peer !== undefined) this.#driver.setPeer(names.peer)
    await this.#announce(true)
    return socket
  }

  close(): void {
    this.#closed = true
    this.#runtime.clock.clearTimer(this.#retryTimer)
    this.#runtime.clock.clearTimer(this.#watchTimer)
  }

  /** RESOLVE came: nothing was heard for long, or the peer left a ping unanswered. Never throws. */
  readonly onResolve = (): void => {
    void this.look()
    if ((this.#config.mode & MODE_CLIENT) !== 0) this.#watchIn(0)
  }

  /** The socket reported an error. */
  readonly onUdpError = (error: SystemError): void => {
    if (!PATH_ERRORS.has(codeOf(error))) return
    this.#suspect = true
    this.#watchIn(HINT_MS)
  }

  /** A rendezvous client found its peer. */
  readonly onPeerFound = (peer: SocketAddress): void => {
    this.peerFound = true
    this.#log.notice(`rendezvous: peer found at ${formatAddress(peer)}`)
  }

  /** A new configuration is in force. `reopen`: the socket needs other options. Fulfilled when names were followed. */
  reload(config: Config, reopen: boolean): Promise<void> {
    this.#config = config
    this.#driver.reconfigure(coreConfig(config, this.#aead, this.#family))
    if (reopen) this.#stale = true
    return this.look()
  }

  /** Looks all names up and follows them. One look at a time; never rejects. */
  look(): Promise<void> {
    if (this.#closed) return Promise.resolve()
    this.#again = true
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
      if (this.#again) void this.look()
    })
    return this.#looking
  }

  async #look(): Promise<void> {
    let failure: unknown
    while (this.#again) {
      this.#again = false
      failure = undefined
      const config = this.#config
      const { names, failures } = await resolveNames(this.#runtime, config, this.names)
      if (this.#closed) return
      // these are the names of an old configuration; the reload asked for another look
      if (config !== this.#config) continue
      failure = failures[0]
      await this.#inTurn(() => this.#follow(names)).catch((error) => {
        failure ??= error
      })
    }
    if (this.#closed) return
    this.#report(failure)
    this.#lookLater(failure !== undefined)
  }

  /** Says a row of failures once: the tunnel may be idle for days without a network. */
  #report(failure: unknown): void {
    if (failure !== undefined && !this.#failing) {
      this.#log.warning(`addresses are looked up again later: ${messageOf(failure)}`)
    }
    if (failure === undefined && this.#failing) this.#log.notice('addresses resolved again')
    this.#failing = failure !== undefined
  }

  #lookLater(failed: boolean): void {
    this.#runtime.clock.clearTimer(this.#retryTimer)
    let pause = this.#pause
    if (this.#driver.udp === undefined) pause = REOPEN_MS
    else if (failed || this.#stale || this.#driver.peerSilent) this.#pause = Math.min(2 * pause, RETRY_LONGEST_MS)
    else {
      this.#pause = RETRY_MS
      return
    }
    this.#retryTimer = this.#runtime.clock.setTimer(() => void this.look(), pause)
  }

  /** Moves to where names lead now. */
  async #follow(names: Names): Promise<void> {
    if (this.#closed) return
    const before = this.names
    this.names = names
    if (names.target !== undefined && !sameMaybe(before.target, names.target)) {
      this.#log.notice(`connect: now ${formatAddress(names.target)}`)
    }
    if (!sameMaybe(before.bind, names.bind) || !sameMaybe(before.peer, names.peer)) this.#stale = true
    if (before.rendezvous?.family !== names.rendezvous?.family) this.#stale = true
    const family = packetFamily(names)
    if (family !== this.#family) {
      this.#family = family
      this.#driver.reconfigure(coreConfig(this.#config, this.#aead, family))
    }
    const reopen = this.#stale
    if (reopen) await this.#reopen()
    if (names.peer !== undefined) this.#driver.setPeer(names.peer)
    await this.#announce(reopen)
  }

  /** Opens the socket anew, with the local port it had if the configuration leaves that free. */
  async #reopen(): Promise<UdpSocket> {
    const options = { ...udpOptions(this.names), path: this.#config.udp.path }
    const again = this.#port !== 0
    this.#stale = true
    const socket = await this.#openKeepingPort(options)
    this.#stale = false
    this.#port = socket.local.port
    this.#reopenedAt = this.#runtime.clock.monotonic()
    this.#suspect = false
    if (again) this.#log.notice('udp socket restart')
    this.#log.notice(`udp bind: ${formatAddress(socket.local)}`)
    if (socket.path !== undefined) this.#log.notice(`udp path: ${socket.path}`)
    if (options.connect !== undefined) this.#log.notice(`udp connect: ${formatAddress(options.connect)}`)
    return socket
  }

  async #openKeepingPort(options: UdpOptions): Promise<UdpSocket> {
    if (options.bind.port === 0 && this.#port !== 0) {
      try {
        return await this.#driver.openUdp({ ...options, bind: { ...options.bind, port: this.#port } })
      } catch (error) {
        if (codeOf(error) !== 'EADDRINUSE') throw error
      }
    }
    return this.#driver.openUdp(options)
  }

  /** Tells the rendezvous server where we are, when that is news or `anew`. */
  async #announce(anew: boolean): Promise<void> {
    const { rendezvous } = this.names
    const socket = this.#driver.udp
    if (rendezvous === undefined || socket === undefined) return
    const probed = await localTowards(this.#runtime, rendezvous)
    const local = announcedAddress(socket.local, !this.#isFree(), probed)
    const server = asSeenBy(socket.local, rendezvous)
    const service = this.#config.service_id
    const old = this.#announced
    if (this.#closed) return
    if (!anew && old?.service === service && sameMaybe(old.server, server) && sameMaybe(old.local, local)) return
    this.#announced = { server, local, service }
    this.#driver.setRendezvous(server, local, new TextEncoder().encode(service))
    this.#log.notice(`rendezvous mode: ${formatAddress(local)} -> ${formatAddress(rendezvous)}`)
  }

  /** Whether the system chooses the socket's local IP. */
  #isFree(): boolean {
    const { bind } = this.names
    return bind === undefined || isWildcard(bind)
  }

  // The way to the peer

  /** Looks at the way to the peer soon, and again while that is broken. */
  #watchIn(delay: number): void {
    if (this.#closed || this.#watching || this.#watchTimer !== undefined) return
    const rest = this.#watchedAt + WATCH_MS - this.#runtime.clock.monotonic()
    this.#watchTimer = this.#runtime.clock.setTimer(this.#watch, Math.max(delay, rest))
  }

  readonly #watch = (): void => {
    this.#watchTimer = undefined
    this.#watching = true
    this.#inTurn(() => this.#checkWay())
      .catch((error) => {
        this.#report(error)
        this.#lookLater(true)
      })
      .finally(() => {
        this.#watching = false
        this.#watchedAt = this.#runtime.clock.monotonic()
        if (this.#lost || this.#driver.peerSilent) this.#watchIn(WATCH_MS)
      })
  }

  async #checkWay(): Promise<void> {
    const { names } = this
    const remote = names.peer ?? names.rendezvous
    const socket = this.#driver.udp
    // without a socket the next look opens one
    if (this.#closed || remote === undefined || socket === undefined) return
    const local = await localTowards(this.#runtime, remote)
    if (this.#closed) return
    const wasLost = this.#lost
    this.#lost = local === undefined
    if (local === undefined) return
    if (names.peer === undefined) {
      await this.#announce(wasLost)
      return
    }
    const { address } = asSeenBy(socket.local, local)
    const moved = this.#isFree() && address !== socket.local.address && address !== this.#foreign
    const stuck =
      this.#suspect && this.#driver.peerSilent && this.#runtime.clock.monotonic() - this.#reopenedAt >= SUSPECT_MS
    if (!wasLost && !moved && !stuck) return
    const { local: taken } = await this.#reopen()
    this.#foreign = taken.address === address ? '' : address
    // setting the peer anew makes the engine ping it at once
    this.#driver.setPeer(undefined)
    this.#driver.setPeer(names.peer)
  }

  /** Runs an action that changes the socket when those before it are done. */
  #inTurn(action: () => Promise<void>): Promise<void> {
    const turn = this.#queue.then(action)
    this.#queue = turn.catch(() => {})
    return turn
  }
}
