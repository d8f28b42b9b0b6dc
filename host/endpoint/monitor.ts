/**
 * Statistics of a running endpoint: those of the engine in use plus the totals of the engines that trapped. Everything
 * is read on demand; monitoring/ renders it.
 */

import { type Config, MODE_CLIENT, MODE_RENDEZVOUS } from '../config/config.ts'
import type { Driver } from '../driver/driver.ts'
import type { Core } from '../engine/core.ts'
import type { History, HistoryRow } from '../monitoring/history.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import {
  type Counters,
  type Health,
  lastCounters,
  NO_COUNTERS,
  readCounters,
  readSessions,
  type SessionSteps,
  type Snapshot,
  silenceLimit,
  sumCounters,
  totalsOf,
  waitingKey,
} from '../monitoring/stats.ts'
import type { Runtime } from '../runtime.ts'
import { type ContextSteps, readContexts } from '../transport/obfs/context-stats.ts'
import type { Transport } from '../transport/transport.ts'
import { KeyFigures } from './key-figures.ts'

/** The objects that the statistics are read from. */
export interface Shown {
  readonly config: Config
  readonly driver: Driver
  readonly transport: Transport | undefined
  readonly waiting: string | undefined
}

export class EndpointMonitor implements Monitor {
  readonly started: number
  readonly #runtime: Runtime
  readonly #shown: Shown
  /** Totals of the engines that trapped, and the last of these engines. */
  #past = totalsOf(NO_COUNTERS)
  #broken: Core | undefined
  #history: History | undefined
  readonly #keys: KeyFigures

  constructor(runtime: Runtime, shown: Shown) {
    this.#runtime = runtime
    this.#shown = shown
    this.#keys = new KeyFigures(shown.driver, () => shown.config)
    this.started = runtime.clock.monotonic()
  }

  /** An engine trapped: adds its totals to those of the past. */
  engineLost(broken: Core): void {
    if (broken === this.#broken) return
    this.#broken = broken
    this.#keys.engineLost(broken)
    this.#past = sumCounters([this.#past, totalsOf(lastCounters(broken))])
  }

  snapshot(): Snapshot {
    const at = this.#runtime.clock.monotonic()
    const counters = sumCounters([this.#past, this.#counters()])
    return {
      at,
      uptime: at - this.started,
      cpu: this.#runtime.cpuTime(),
      rss: this.#runtime.residentBytes?.(),
      date: new Date(this.#runtime.clock.wall()),
      counters,
    }
  }

  /** Records a history from now on. Its code is loaded only where that is of use. */
  async record(): Promise<void> {
    const { History } = await import('../monitoring/history.ts')
    const { driver } = this.#shown
    this.#history ??= new History(driver, () => this.#runtime.clock.wall())
    driver.onDrained = this.#history.onDrained
  }

  history(): HistoryRow[] {
    return this.#history?.rows() ?? []
  }

  sessions(): SessionSteps {
    const { driver } = this.#shown
    return this.#steps((core) =>
      readSessions(
        core,
        () => driver.now(),
        (handle) => driver.streams.remoteOf(handle),
        (key) => driver.keys?.nameOf(key),
      ),
    )
  }

  keys(): ReturnType<KeyFigures['status']> {
    return this.#keys.status()
  }

  contexts(): ContextSteps | undefined {
    return this.#shown.config.obfs === undefined ? undefined : this.#steps(readContexts)
  }

  health(): Health {
    const { config, driver, transport, waiting } = this.#shown
    const client = (config.mode & MODE_CLIENT) !== 0
    return {
      client,
      waiting: waitingKey(waiting),
      pending: client && (config.mode & MODE_RENDEZVOUS) !== 0 && transport?.peerFound !== true,
      lastReceived: driver.read((core) => core.receivedAge(driver.now()), undefined),
      silence: silenceLimit(config.keepalive),
    }
  }

  hostCounters(): Driver['diagnostics']['counters'] {
    return this.#shown.driver.diagnostics.counters
  }

  path(): LinkStatus {
    const { driver, transport } = this.#shown
    return {
      local: driver.sockets.sender?.local,
      peer: transport?.remote ?? driver.peer,
      rendezvous: transport?.addresses.rendezvous,
      peerFound: transport?.peerFound === true,
      pongRtt: driver.pongRtt,
      problem: driver.peerLog.problem,
    }
  }

  ping(): void {
    this.#shown.driver.pingPeer()
  }

  #counters(): Counters {
    const { driver } = this.#shown
    const counters = driver.read((core) => readCounters(core, driver.now()), undefined)
    if (counters !== undefined) return counters
    // the engine trapped; its totals count unless engineLost has already added them
    return driver.core === this.#broken ? totalsOf(NO_COUNTERS) : totalsOf(lastCounters(driver.core))
  }

  /** Iterates over a list of the engine; ends early if the engine is replaced. */
  *#steps<Step>(read: (core: Core) => Iterator<Step, void>): Generator<Step, void, undefined> {
    const { driver } = this.#shown
    const { core } = driver
    const steps = read(core)
    while (driver.core === core) {
      const step = driver.read(() => steps.next(), undefined)
      if (step === undefined || step.done === true) return
      yield step.value
    }
  }
}
