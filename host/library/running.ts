/** What clients, servers and tunnels have in common: an endpoint with events, statistics and an end. */

import { modeName } from '../config/rules.ts'
import { ClosedError, toError } from '../errors.ts'
import { sessionJson, summaryOf } from '../monitoring/stats-json.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Runtime } from '../runtime.ts'
import type { Service } from '../servers/start.ts'
import { PROGRAM, VERSION } from '../version.ts'
import type { EndpointEvents, Running, SessionFigures, Signal, Stats } from './api.ts'
import type { Channel } from './channel.ts'
import { Emitter } from './emitter.ts'
import type { KeptClock } from './keep-alive.ts'

/** How often a closing endpoint looks whether everything is delivered, ms. */
const CLOSING_MS = 10
const MS_PER_SECOND = 1000
/** Round trips without a datagram after which a closing endpoint takes its peers for done. */
const QUIET_RTTS = 3
const QUIET_RTT_MAX_MS = 300
/** Silence after which a closing endpoint takes its peers for gone, ms. */
const GONE_MS = 5000

export interface RunningParts {
  readonly runtime: Runtime & { readonly clock: KeptClock }
  readonly signal: Signal | undefined
  /** Text of an address for users. */
  readonly addressText?: (address: SocketAddress) => string | undefined
}

const closedByOwner = (): Error => new ClosedError('it is closed')

/** The longest round trip of a session, within bounds, ms. */
function roundTrip({ monitor }: Service): number {
  const sessions = [...monitor.sessions()].flat()
  const longest = sessions.reduce((most, { rtt }) => Math.max(most, rtt), 0)
  return Math.min(Math.max(longest, CLOSING_MS), QUIET_RTT_MAX_MS)
}

/** The reason of an aborted signal. */
export const reasonOf = (signal: Signal): Error =>
  toError((signal as { readonly reason?: unknown }).reason ?? 'aborted')

export abstract class RunningEndpoint extends Emitter<EndpointEvents> implements Running {
  readonly closed: Promise<void>
  protected readonly parts: RunningParts
  #endpoint: Service | undefined
  /** Undefined: not known yet. */
  #isUp: boolean | undefined
  #isClosed = false
  #closing: Promise<void> | undefined
  #settle!: (error: Error | undefined) => void

  constructor(parts: RunningParts) {
    super()
    this.parts = parts
    this.closed = new Promise((resolve, reject) => {
      this.#settle = (error) => (error === undefined ? resolve() : reject(error))
    })
    this.closed.catch(() => {})
  }

  /**
   * Waits for the endpoint that is being started for this object.
   * @throws why it did not start, or what ended it meanwhile
   */
  protected async begin(starting: Promise<Service>): Promise<void> {
    this.#watchSignal()
    const started = starting.then((endpoint) => this.#take(endpoint))
    const ended = this.closed.then(() => {
      throw new ClosedError('it was closed while it started')
    })
    try {
      await Promise.race([started, ended])
    } catch (error) {
      this.end(toError(error))
      throw error
    }
  }

  #take(endpoint: Service): void {
    if (this.#isClosed) {
      endpoint.close()
      return
    }
    this.#endpoint = endpoint
    void endpoint.failed.then((error) => this.end(error))
  }

  #watchSignal(): void {
    const { signal } = this.parts
    if (signal === undefined) return
    const onAbort = (): void => this.end(reasonOf(signal), true)
    signal.addEventListener('abort', onAbort)
    const ignore = (): void => signal.removeEventListener('abort', onAbort)
    this.closed.then(ignore, ignore)
  }

  /** @throws ClosedError */
  protected get endpoint(): Service {
    if (this.#endpoint === undefined || this.#isClosed) throw closedByOwner()
    return this.#endpoint
  }

  /** Undefined when it is closed. */
  protected get openEndpoint(): Service | undefined {
    return this.#isClosed ? undefined : this.#endpoint
  }

  /** Whether it has started, and does not close. */
  protected get isRunning(): boolean {
    return this.#endpoint !== undefined && !this.isClosing
  }

  /** Whether no stream may be opened any more. */
  protected get isClosing(): boolean {
    return this.#isClosed || this.#closing !== undefined
  }

  /** The streams of the application, if there are any. */
  protected readonly channels = new Set<Channel>()

  /**
   * Closes at once.
   * @param error why, unless close() was called
   * @param isOwn whether the application wants it
   */
  protected end(error?: Error, isOwn = error === undefined): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const channel of [...this.channels]) channel.closeNow(isOwn)
    this.#endpoint?.close()
    this.emit('close', error)
    this.#settle(error)
  }

  protected textOf(address: SocketAddress): string {
    return this.parts.addressText?.(address) ?? formatAddress(address)
  }

  /** Client: the peer became silent or answered. */
  protected onPeerState(): void {
    if (this.#endpoint === undefined || this.#isClosed) return
    const { driver } = this.#endpoint
    const { isSilent } = driver.peerLog
    if (isSilent && this.#isUp !== false) {
      this.#isUp = false
      this.emit('down', `no answer from ${driver.peer === undefined ? 'the peer' : this.textOf(driver.peer)}`)
    } else if (!isSilent && this.#isUp !== true && driver.pongRtt !== undefined) {
      this.#isUp = true
      this.emit('up', { rtt: driver.pongRtt })
    }
  }

  get address(): string | undefined {
    const local = this.openEndpoint?.driver.sockets.sender?.local
    return local === undefined || this.parts.addressText !== undefined ? undefined : formatAddress(local)
  }

  stats(): Stats {
    const { monitor, config } = this.endpoint
    const { name, version } = this.parts.runtime
    const program = { name: PROGRAM, version: VERSION, note: '', runtime: name, runtimeVersion: version }
    const source = {
      program: { ...program, mode: modeName(config.mode) },
      health: () => monitor.health(),
      hostCounters: () => monitor.hostCounters(),
      keys: () => monitor.keys?.(),
    }
    const sessions = [...monitor.sessions()].flat().map((session) => {
      return { ...(sessionJson(session) as SessionFigures), peer: this.textOf(session.peer) }
    })
    return { ...(summaryOf(source, monitor.snapshot()) as Omit<Stats, 'sessions'>), sessions }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const endpoint = this.#endpoint
    if (this.#isClosed || endpoint === undefined) return this.end()
    // whoever waits for the end needs the event loop
    this.ref()
    const { clock } = this.parts.runtime
    const pause = (ms: number): Promise<void> => new Promise((resolve) => clock.setTimer(resolve, ms))
    // what the application did in this turn of the event loop counts
    await pause(0)
    for (const channel of [...this.channels]) if (!channel.isFinished) channel.giveUp(closedByOwner(), true)
    const until = clock.monotonic() + endpoint.config.linger * MS_PER_SECOND
    do await pause(CLOSING_MS)
    while (!this.#isClosed && !this.#isDone(endpoint) && clock.monotonic() < until)
    this.end()
  }

  /**
   * Whether all that was written was acknowledged, and so was probably all that the peers wrote: if the last ACK was
   * lost, they repeat it. Or nobody is left who would acknowledge.
   */
  #isDone(endpoint: Service): boolean {
    const unsent = [...this.channels].some(({ isFlushed }) => !isFlushed)
    return endpoint.drivers.every((driver) =>
      driver.read((core) => {
        const silence = core.receivedAge(driver.now()) ?? Number.POSITIVE_INFINITY
        if (driver.peerLog.isSilent || silence > GONE_MS) return true
        return !unsent && core.counter('waitsnd') === 0n && silence >= QUIET_RTTS * roundTrip(endpoint)
      }, true),
    )
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  ref(): this {
    return this.#keepAlive(true)
  }

  unref(): this {
    return this.#keepAlive(false)
  }

  #keepAlive(isKept: boolean): this {
    this.parts.runtime.clock.keepAlive(isKept)
    if (!this.#isClosed) this.#endpoint?.keepAlive(isKept)
    return this
  }
}
