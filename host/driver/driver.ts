/**
 * Runs the loop around the engine: receive datagrams, drain, send datagrams, handle events, arm one host timer
 * (docs/abi.md, "The rule"). When the engine traps, it resets all streams, starts a fresh engine and keeps the sockets.
 *
 * The driver opens no sockets itself. UDP sockets are in udp-sockets.ts, datagrams pass through receive.ts and
 * transmit.ts, TCP is in stream-table.ts, events are in events.ts. endpoint/ defines the start order; transport/
 * resolves names and opens sockets.
 */

import type { Core, CoreConfig } from '../engine/core.ts'
import { type Announcement, type Engine, isTrap } from '../engine/engine.ts'
import { NO_USE, type RateParts, type RateUse, readRateUse } from '../engine/rate-share.ts'
import { Traps } from '../engine/traps.ts'
import { type SystemError, stackOf, toError } from '../errors.ts'
import { LOG_ERROR, type Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, Timer, UdpSocket } from '../runtime.ts'
import { Admission, type AdmissionHost } from './admission.ts'
import { type ClockHost, onClockJump } from './clock-jump.ts'
import { Diagnostics } from './diagnostics.ts'
import type { DriverOptions } from './driver-options.ts'
import { type EventHost, Events } from './events.ts'
import { HeldReceive } from './held-receive.ts'
import type { Key, KeyRing, NewKey } from './key-ring.ts'
import { PeerLog } from './peer-log.ts'
import { type ReceiveHost, Receiver } from './receive.ts'
import type { StreamHost } from './stream.ts'
import { StreamTable } from './stream-table.ts'
import { HostTimer, TIMER_MIN_MS } from './timer.ts'
import { type TransmitHost, Transmitter } from './transmit.ts'
import { UdpSockets, type UdpSocketsHost } from './udp-sockets.ts'

/** A blocked socket is retried after this time, ms, unless onWritable is called first. */
const BLOCKED_RETRY_MS = 1000
/** Maximum rounds of one drain before it yields to the event loop. */
const DRAIN_ROUNDS = 256
/** Maximum handle_timeout calls of one drain. */
const TIMEOUT_ROUNDS = 4

/** Drives the successive engines of one endpoint. Call `start` once, then add a socket to `sockets`. */
export class Driver
  implements StreamHost, ReceiveHost, TransmitHost, EventHost, UdpSocketsHost, AdmissionHost, ClockHost
{
  readonly runtime: Runtime
  readonly log: Log
  readonly streams: StreamTable
  readonly sockets: UdpSockets = new UdpSockets(this)
  readonly diagnostics: Diagnostics
  readonly peerLog: PeerLog
  #options: DriverOptions
  readonly #engine: Engine
  readonly keys: KeyRing | undefined
  readonly #receiver: Receiver
  readonly #held: HeldReceive
  readonly #transmitter: Transmitter
  readonly #events: Events
  readonly #admission: Admission
  readonly #timer: HostTimer
  readonly #traps: Traps
  /** No engine may be called: it trapped, or the driver is closed. */
  #dead = false
  #closed = false
  #pumping = false
  /** Another drain round is needed. */
  #dirty = false
  #immediate: Timer | undefined
  /** Called after each drain: set while a history is recorded. */
  onDrained: (() => void) | undefined
  /** Called after each drain: set where one of several engines has a part of a rate limit. */
  onActive: (() => void) | undefined
  /** Activity counts, for tests. */
  readonly counts = { drains: 0, timerWakes: 0 }

  constructor(options: DriverOptions) {
    const { engine, keys, runtime, log } = options
    this.#options = options
    this.runtime = runtime
    this.#engine = engine
    this.log = log
    this.keys = keys
    engine.keys = keys?.keys ?? []
    const clock = (): number => runtime.clock.monotonic()
    const hasHeard = (): boolean => this.receivedAge() !== undefined
    this.peerLog = new PeerLog({ log, clock: runtime.clock, ping: () => this.pingPeer(), hasHeard })
    this.diagnostics = new Diagnostics(engine.core, log, keys !== undefined, clock, this.peerLog)
    if (keys !== undefined) keys.counters = this.diagnostics.counters
    this.streams = new StreamTable(this, (dialling, handle) => options.dial(dialling, handle))
    this.#receiver = new Receiver(this, keys, engine.peers)
    this.#held = new HeldReceive(this.#receiver)
    this.#transmitter = new Transmitter(this, keys, engine.peers)
    this.#events = new Events(this, engine, options)
    this.#admission = new Admission(this, () => options.limitsAdmission?.() === true)
    this.#timer = new HostTimer(runtime.clock, this.#onTimer)
    this.#traps = new Traps(runtime, log)
  }

  /** The engine in use, or the trapped one until it is replaced. */
  get core(): Core {
    return this.#engine.core
  }

  /** Whether no engine may be called. */
  get dead(): boolean {
    return this.#dead
  }

  /** The engine's clock: ticks of 1/8 ms, wrapping. */
  now(): number {
    return this.#engine.now()
  }

  /**
   * Configures and starts the engine.
   * @throws Error naming the field that is out of range
   */
  start(config: CoreConfig): void {
    this.#engine.config = config
    this.streams.held.setCeiling(config.memoryCeiling)
    try {
      this.#engine.start()
    } catch (error) {
      if (!this.caught(error)) throw error
    }
  }

  /**
   * Changes the configuration of a started engine, within the limits of docs/abi.md.
   * @throws Error naming the field that is out of range; the previous configuration then stays in force
   */
  reconfigure(config: CoreConfig): void {
    const before = this.#engine.config
    this.#engine.config = config
    try {
      this.#engine.prepareSearch(this.sockets.sender)
      this.run(() => this.#engine.reconfigure())
    } catch (error) {
      this.#engine.config = before
      this.#engine.prepareSearch(this.sockets.sender)
      throw error
    }
    this.streams.held.setCeiling(config.memoryCeiling)
  }

  // UdpSocketsHost

  get alive(): boolean {
    return !this.#dead
  }

  onDatagram(data: Uint8Array, from: SocketAddress, atProbe: boolean): void {
    try {
      if (this.#receiver.receive(data, from, atProbe)) this.#handle()
    } catch (error) {
      this.caught(error)
    }
  }

  onBatchEnd(): void {
    // while a drain collects what was held, it is handled at once
    if (!this.#held.isHeld || this.#pumping) this.#handle()
  }

  #handle(): void {
    try {
      this.#receiver.handle()
    } catch (error) {
      this.caught(error)
    }
    this.pump()
  }

  onWritable(): void {
    this.#transmitter.unblock()
    this.pump()
  }

  onUdpError(error: SystemError): void {
    try {
      const verdict = this.diagnostics.udpError(error, this.#transmitter.longest, this.peer)
      if (verdict === 'back off') this.#transmitter.backOff()
      this.#options.onUdpError?.(error)
    } catch (thrown) {
      this.caught(thrown)
    }
  }

  onMergedLost(): void {
    this.diagnostics.mergedLost()
  }

  onSender(socket: UdpSocket | null, connected: SocketAddress | undefined): void {
    this.#transmitter.attach(socket, connected)
    this.#held.attach(socket)
    if (socket === null) return
    this.diagnostics.udpOpened()
    if (this.#engine.prepareSearch(socket)) this.run(() => this.#engine.reconfigure())
    this.pump()
  }

  onProbe(socket: UdpSocket | undefined): void {
    this.#transmitter.probe = socket
  }

  /** Client: the server address for new sessions; undefined = none. */
  get peer(): SocketAddress | undefined {
    return this.#engine.peer
  }

  setPeer(peer: SocketAddress | undefined): void {
    this.#engine.peer = peer
    this.run(() => this.#engine.tellPeer())
    if (peer === undefined) return
    this.peerLog.start(peer, 'peer')
    this.#options.onPeerState?.()
  }

  /** Sets the rendezvous server and sends LISTEN or CONNECT at once (protocol.md 8). */
  setRendezvous(announcement: Announcement): void {
    this.#engine.announcement = announcement
    this.run(() => this.#engine.announce())
    if (this.#engine.peer === undefined) this.peerLog.start(announcement.server, 'rendezvous server')
  }

  /** Client: round-trip time of the last answered ping, ms; undefined before the first. */
  get pongRtt(): number | undefined {
    return this.#events.pongRtt
  }

  /** The system reports a step of the wall clock, as when the machine resumes. */
  clockStepped(): void {
    this.#engine.clockStepped()
    this.pump()
  }

  /** Whether the engine searches for the largest datagrams, and the socket can send what that needs. */
  get isSearchingMtu(): boolean {
    return this.#engine.canSearch
  }

  get isMerging(): boolean {
    return this.sockets.sender?.gso === true
  }

  /** Whether pings to the peer, or of a rendezvous endpoint without one to the rendezvous server, are unanswered. */
  get peerSilent(): boolean {
    return !this.#dead && this.core.counter('peer_silent_pings') > 0n
  }

  /** Address of the peer of a session. */
  peerOf(handle: number): SocketAddress | undefined {
    return this.#engine.peerOf(handle)
  }

  /** Whose key a session has; undefined if there is one key. Scans all sessions. */
  userOf(handle: number): string | undefined {
    const { keys } = this
    return keys === undefined || keys.keys.length < 2 ? undefined : keys.nameOf(this.#engine.keyOf(handle))
  }

  /** conv of a session, 0 if it is gone. */
  convOf(handle: number): number {
    return this.#engine.convOf(handle)
  }

  /**
   * Replaces the keys, whose ciphers are taken over. Sessions of keys that are not among them end; a client opens its
   * sessions under the first from now on.
   * @returns those that are not accepted any more
   */
  changeKeys(fresh: readonly NewKey[]): readonly Key[] {
    const ring = this.keys
    if (ring === undefined) return []
    const ended = ring.change(fresh)
    this.#engine.keys = ring.keys
    this.run(() => this.#engine.tellKeys())
    for (const key of ended) {
      let left = 0
      do {
        left = 0
        this.run(() => {
          left = this.core.calls.end_key(key.number, this.now())
        })
      } while (left > 0)
      ring.drop(key)
    }
    return ended
  }

  /** Client: sends one PING to the peer now, in addition to keepalive. */
  pingPeer(): void {
    this.run(() => this.core.calls.ping_peer(this.now()))
  }

  /**
   * Pings the peer, or without one the rendezvous server, from the sending and from the probing socket.
   * @param port local port of the probing socket
   * @param address the address that the probing socket pings; undefined: the same
   */
  probePath(port: number, address: SocketAddress | undefined): void {
    this.run(() => this.#engine.probePath(port, address))
  }

  /** The path to the peer is about to change, or its local port has: resets connections that are still opening. */
  pathMoved(): void {
    this.run(() => this.core.calls.path_moved(this.now()))
  }

  /** What passed, for those who divide a rate limit. */
  rateUse(): RateUse {
    return this.read((core) => readRateUse(core, this.runtime.clock.monotonic(), this.now()), NO_USE)
  }

  /** Sets the parts of the rate limits that this engine has. */
  shareRate(parts: RateParts): void {
    this.run(() => this.#engine.shareRate(parts))
  }

  /** Sends a PING and something of each session at once, as after a suspension. */
  probeSessions(): void {
    this.run(() => this.core.calls.probe_sessions(this.now()))
  }

  /** Whether new connections wait for an answer of the peer, and are reset without one. */
  get isPeerDown(): boolean {
    return this.#admission.isLimiting
  }

  readonly accept = (connection: TcpConnection): TcpHandlers | null => this.#admission.accept(connection)

  onPeerState(): void {
    this.#admission.onPeerState()
    this.#options.onPeerState?.()
  }

  wake(): void {
    if (this.#dead || this.#pumping) this.#dirty = true
    else this.#immediate ??= this.runtime.clock.defer(this.#onImmediate)
  }

  wakeLate(): void {
    if (this.#dead || this.#pumping) this.#dirty = true
    else this.#immediate ??= this.runtime.clock.defer(this.#onEarlyImmediate)
  }

  /**
   * Handles an exception thrown by a callback. A trap of the engine resets all streams.
   * @returns whether no engine may be called any more
   */
  caught(error: unknown): boolean {
    if (this.#dead) return true
    if (isTrap(error)) {
      this.#trap(error)
      return true
    }
    this.log.limited('unexpected', LOG_ERROR, () => `unexpected error: ${stackOf(error)}`)
    return false
  }

  /** Drains the engine and arms the timer. */
  pump(): void {
    if (this.#dead) return
    if (this.#pumping) {
      this.#dirty = true
      return
    }
    this.#pumping = true
    try {
      this.#drain()
      this.onDrained?.()
      this.onActive?.()
    } catch (error) {
      if (!this.caught(error)) this.#timer.arm(TIMER_MIN_MS)
    } finally {
      this.#pumping = false
    }
  }

  /** Stops: resets TCP connections, closes UDP sockets, wipes the key. Sends nothing to the peer (protocol.md 6.8). */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#dead = true
    this.#halt()
    this.diagnostics.close()
    this.peerLog.close()
    this.sockets.close()
    this.keys?.wipe()
    this.#engine.close()
  }

  /**
   * Calls a function that only reads the engine.
   * @param otherwise returned if there is no engine, or if the call traps
   */
  read<T>(call: (core: Core) => T, otherwise: T): T {
    if (this.#dead) return otherwise
    try {
      return call(this.core)
    } catch (error) {
      if (this.caught(error)) return otherwise
      throw error
    }
  }

  /** @returns ms since the last authentic datagram, undefined before the first */
  receivedAge(): number | undefined {
    return this.read((core) => core.receivedAge(this.now()), undefined)
  }

  #drain(): void {
    const { core } = this
    this.counts.drains++
    this.#held.collect()
    if (this.#dead) return
    const jump = this.#engine.renewAfterJump()
    if (jump !== 0 && onClockJump(this, jump)) this.#options.onResume?.()
    this.streams.report()
    let timeouts = 0
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      this.#dirty = false
      const drained = this.#transmitter.transmit()
      const events = this.#events.handle()
      if (this.#dead) return
      if (events > 0 || this.#dirty) continue
      if (!drained) {
        // next_timeout requires a drained engine (docs/abi.md, "The rule"); onWritable resumes the drain
        this.#held.release()
        this.#timer.disarm()
        this.#timer.arm(BLOCKED_RETRY_MS)
        return
      }
      const wait = core.calls.next_timeout(this.now())
      if (wait === 0 && timeouts < TIMEOUT_ROUNDS) {
        timeouts++
        core.calls.handle_timeout(this.now())
        core.refresh()
        continue
      }
      const due = wait < 0 ? wait : wait + core.calls.timeout_slack(this.now())
      this.#timer.armNext(due, this.#held.hold(core.calls.receive_delay(this.now())))
      return
    }
    // yield to the event loop, then continue
    this.#immediate ??= this.runtime.clock.defer(this.#onImmediate)
  }

  readonly #onTimer = (): void => {
    if (this.#dead) return
    this.counts.timerWakes++
    this.#transmitter.unblock()
    // the drain calls handle_timeout if it is due and re-arms the timer if it fired early
    this.pump()
  }

  readonly #onImmediate = (): void => {
    this.#immediate = undefined
    this.pump()
  }

  readonly #onEarlyImmediate = (): void => {
    this.#immediate = this.#dead ? undefined : this.runtime.clock.defer(this.#onImmediate)
  }

  /** Runs a call into the engine from outside the loop, then drains. Does nothing while there is no engine. */
  run(call: () => void): void {
    if (this.#dead) return
    try {
      call()
      this.core.refresh()
    } catch (error) {
      if (this.caught(error)) return
      throw error
    }
    this.pump()
  }

  /** Handles a trap: resets all streams at once and replaces the engine after the current call has returned. */
  #trap(error: Error): void {
    this.#dead = true
    this.diagnostics.counters.engine_traps++
    const bytes = this.core.calls.memory.buffer.byteLength
    const final = this.#traps.add(error, `${this.streams.size} streams lost, memory ${bytes} bytes`)
    this.#halt()
    if (final === undefined) {
      // a microtask runs after the call into the engine has returned and before any other callback
      queueMicrotask(this.#replace)
      return
    }
    this.close()
    this.#options.onFatal(final)
  }

  readonly #replace = (): void => {
    if (this.#closed) return
    try {
      this.#options.onTrap?.(this.core)
      this.#engine.replace()
    } catch (error) {
      // an engine that fails to start counts as a trap
      this.#trap(toError(error))
      return
    }
    this.diagnostics.engineReplaced(this.core)
    this.#receiver.engineReplaced()
    this.#transmitter.engineReplaced()
    this.streams.engineReplaced()
    this.#dead = false
    this.log.notice('a fresh engine is in use')
    try {
      this.#options.onEngineReplaced?.()
    } catch (error) {
      this.caught(error)
    }
    this.pump()
  }

  /** Cancels all timers and resets all streams without calling the engine. */
  #halt(): void {
    this.#held.release()
    this.#timer.disarm()
    this.runtime.clock.clearDeferred(this.#immediate)
    this.#immediate = undefined
    this.#admission.reset()
    this.streams.abortAll()
  }
}
