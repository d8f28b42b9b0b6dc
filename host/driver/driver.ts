/**
 * The loop around the engine: datagrams in, drain, datagrams out, events, one host timer (docs/abi.md, "The rule"); and
 * what happens when the engine traps: streams are reset, a fresh one takes over, and sockets stay.
 *
 * Sans-socket: UDP comes through udp-sockets.ts, datagrams go in by receive.ts and out by transmit.ts,
 * TCP is stream-table.ts, events are events.ts. Start order is endpoint/, names and sockets are transport/.
 */

import type { Aead } from '../crypto/aead.ts'
import { type Core, type CoreConfig, TICKS_PER_MS } from '../engine/core.ts'
import { type Engine, isTrap } from '../engine/engine.ts'
import { Traps } from '../engine/traps.ts'
import type { SystemError } from '../errors.ts'
import { toError } from '../errors.ts'
import { formatDuration } from '../format.ts'
import { LOG_ERROR, type Log } from '../log/log.ts'
import type { SocketAddress } from '../net/address.ts'
import type { Runtime, TcpConnection, TcpHandlers, TcpOptions, Timer, UdpSocket } from '../runtime.ts'
import { Diagnostics } from './diagnostics.ts'
import { type EventHandlers, type EventHost, Events } from './events.ts'
import { type ReceiveHost, Receiver } from './receive.ts'
import type { StreamHost } from './stream.ts'
import { StreamTable } from './stream-table.ts'
import { HostTimer, TIMER_MIN_MS } from './timer.ts'
import { type TransmitHost, Transmitter } from './transmit.ts'
import { UdpSockets, type UdpSocketsHost } from './udp-sockets.ts'

/** A socket that took nothing is tried again after this time, ms, should onWritable not come. */
const BLOCKED_RETRY_MS = 1000
/** Rounds of one drain before the event loop gets a turn. */
const DRAIN_ROUNDS = 256
/** handle_timeout calls of one drain. */
const TIMEOUT_ROUNDS = 4

export interface DriverOptions extends EventHandlers {
  readonly runtime: Runtime
  readonly engine: Engine
  /** Undefined: no method, datagrams are plaintext. */
  readonly aead: Aead | undefined
  readonly log: Log
  readonly tcp: TcpOptions
  /** Server: where DIAL leads to. */
  target(): SocketAddress | undefined
  /** The UDP socket reported an error: a hint. */
  onUdpError?(error: SystemError): void
  /** The engine trapped, and another one is about to take its place. */
  onTrap?(broken: Core): void
  /** A fresh engine is in use, with configuration, peer and announcement of the one before. */
  onEngineReplaced?(): void
  /** The engine trapped again and again, or cannot be replaced: everything is closed by now, this driver is over. */
  onFatal(error: Error): void
}

/** Drives the engines of one endpoint, one after the other. Call `start` once, then give `sockets` one. */
export class Driver implements StreamHost, ReceiveHost, TransmitHost, EventHost, UdpSocketsHost {
  readonly runtime: Runtime
  readonly log: Log
  readonly streams: StreamTable
  readonly sockets: UdpSockets = new UdpSockets(this)
  readonly diagnostics: Diagnostics
  #options: DriverOptions
  readonly #engine: Engine
  #aead: Aead | undefined
  readonly #receiver: Receiver
  readonly #transmitter: Transmitter
  readonly #events: Events
  readonly #timer: HostTimer
  readonly #traps: Traps
  /** There is no engine to call: it trapped, or we are closed. */
  #dead = false
  #closed = false
  #pumping = false
  /** Something happened that needs another round. */
  #dirty = false
  #immediate: Timer | undefined
  /** How often what happened: for tests and the curious. */
  readonly counts = { drains: 0, timerWakes: 0 }

  constructor(options: DriverOptions) {
    const { engine, aead, runtime, log } = options
    this.#options = options
    this.runtime = runtime
    this.#engine = engine
    this.log = log
    this.#aead = aead
    const clock = (): number => runtime.clock.monotonic()
    this.diagnostics = new Diagnostics(engine.core, log, aead !== undefined, clock)
    this.streams = new StreamTable(this, options.tcp, options.target)
    this.#receiver = new Receiver(this, aead, engine.peers)
    this.#transmitter = new Transmitter(this, aead, engine.peers)
    this.#events = new Events(this, engine, options)
    this.#timer = new HostTimer(runtime.clock, this.#onTimer)
    this.#traps = new Traps(runtime, log)
  }

  /** The engine in use, or the broken one while there is none. */
  get core(): Core {
    return this.#engine.core
  }

  /** Whether there is no engine to call. */
  get dead(): boolean {
    return this.#dead
  }

  /** The engine's clock: ticks of 1/8 ms, wrapping. */
  now(): number {
    return this.#engine.now()
  }

  /**
   * First configuration of the engine.
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
   * Later configuration: what docs/abi.md lets change.
   * @throws Error naming the field that is out of range; the configuration before stays in force then
   */
  reconfigure(config: CoreConfig): void {
    const before = this.#engine.config
    this.#engine.config = config
    try {
      this.run(() => this.#engine.reconfigure())
    } catch (error) {
      this.#engine.config = before
      throw error
    }
    this.streams.held.setCeiling(config.memoryCeiling)
  }

  // What UdpSockets reports

  get alive(): boolean {
    return !this.#dead
  }

  onDatagram(data: Uint8Array, from: SocketAddress): void {
    try {
      if (this.#receiver.receive(data, from)) this.onBatchEnd()
    } catch (error) {
      this.caught(error)
    }
  }

  onBatchEnd(): void {
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
      if (this.diagnostics.udpError(error, this.#transmitter.longest) === 'back off') this.#transmitter.backOff()
      this.#options.onUdpError?.(error)
    } catch (thrown) {
      this.caught(thrown)
    }
  }

  onSender(socket: UdpSocket | null, connected: SocketAddress | undefined): void {
    this.#transmitter.attach(socket, connected)
    if (socket === null) return
    this.diagnostics.udpOpened()
    this.pump()
  }

  /** Client: where new sessions go; undefined = nowhere. */
  get peer(): SocketAddress | undefined {
    return this.#engine.peer
  }

  setPeer(peer: SocketAddress | undefined): void {
    this.#engine.peer = peer
    this.run(() => this.#engine.tellPeer())
  }

  /**
   * With a rendezvous server: where it is, what our own socket is called locally, and the service; LISTEN or CONNECT
   * leaves at once (protocol.md 8).
   */
  setRendezvous(server: SocketAddress, local: SocketAddress, service: Uint8Array): void {
    this.#engine.announcement = { server, local, service }
    this.run(() => this.#engine.announce())
  }

  /** Client: round trip of the last ping that was answered, ms; undefined before the first. */
  get pongRtt(): number | undefined {
    return this.#events.pongRtt
  }

  /** Client: whether the peer leaves pings unanswered. */
  get peerSilent(): boolean {
    return !this.#dead && this.core.counter('peer_silent_pings') > 0n
  }

  /** Client: one PING to the peer now, beside the keepalive. */
  pingPeer(): void {
    this.run(() => this.core.calls.ping_peer(this.now()))
  }

  /** For Runtime.listenTcp. */
  readonly accept = (connection: TcpConnection): TcpHandlers | null => this.streams.accept(connection)

  wake(): void {
    if (this.#dead || this.#pumping) this.#dirty = true
    else this.#immediate ??= this.runtime.clock.defer(this.#onImmediate)
  }

  wakeLate(): void {
    if (this.#dead || this.#pumping) this.#dirty = true
    else this.#immediate ??= this.runtime.clock.defer(this.#onEarlyImmediate)
  }

  /**
   * What a callback threw. A trap of the engine ends all streams.
   * @returns whether there is no engine now
   */
  caught(error: unknown): boolean {
    if (this.#dead) return true
    if (isTrap(error)) {
      this.#trap(error)
      return true
    }
    this.log.limited('unexpected', LOG_ERROR, () => `unexpected error: ${describe(error)}`)
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
    } catch (error) {
      if (!this.caught(error)) this.#timer.arm(TIMER_MIN_MS)
    } finally {
      this.#pumping = false
    }
  }

  /** Stops: resets TCP, closes UDP, wipes the key. Sends nothing to the peer (protocol.md 6.8). */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#dead = true
    this.#halt()
    this.diagnostics.close()
    this.sockets.close()
    this.#aead?.wipe()
    this.#engine.close()
  }

  /**
   * What a call that only reads the engine answers.
   * @param otherwise the answer while there is no engine, or when the call traps
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

  #drain(): void {
    const { core } = this
    this.counts.drains++
    const jump = this.#engine.renewAfterJump()
    if (jump !== 0) this.log.info(`the clock jumped by ${formatDuration(jump)}: random bytes and nonces are drawn anew`)
    this.streams.report()
    let timeouts = 0
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      this.#dirty = false
      const drained = this.#transmitter.transmit()
      const events = this.#events.handle()
      if (this.#dead) return
      if (events > 0 || this.#dirty) continue
      if (!drained) {
        // timers are for a drained engine (docs/abi.md, "The rule"); onWritable goes on
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
      if (wait < 0) this.#timer.disarm()
      else this.#timer.arm(Math.ceil((wait >>> 0) / TICKS_PER_MS))
      return
    }
    // more to do, but others want the event loop too
    this.#immediate ??= this.runtime.clock.defer(this.#onImmediate)
  }

  readonly #onTimer = (): void => {
    if (this.#dead) return
    this.counts.timerWakes++
    this.#transmitter.unblock()
    // the drain calls handle_timeout when it is due, and arms for the rest when this fired early
    this.pump()
  }

  readonly #onImmediate = (): void => {
    this.#immediate = undefined
    this.pump()
  }

  readonly #onEarlyImmediate = (): void => {
    this.#immediate = this.#dead ? undefined : this.runtime.clock.defer(this.#onImmediate)
  }

  /** Calls of the engine from outside the loop, with the drain that must follow; nothing while there is no engine. */
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

  /** The engine broke: its streams end at once, another one replaces it after the current call has returned. */
  #trap(error: Error): void {
    this.#dead = true
    this.diagnostics.counters.engine_traps++
    const bytes = this.core.calls.memory.buffer.byteLength
    const final = this.#traps.add(error, `${this.streams.size} streams lost, memory ${bytes} bytes`)
    this.#halt()
    if (final === undefined) {
      // the call into the engine has returned by then, and no other callback ran
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
      // one that cannot be started is no better than one that traps
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

  /** Nothing calls the engine from here on, and no stream is left. */
  #halt(): void {
    this.#timer.disarm()
    this.runtime.clock.clearDeferred(this.#immediate)
    this.#immediate = undefined
    this.streams.abortAll()
  }
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
