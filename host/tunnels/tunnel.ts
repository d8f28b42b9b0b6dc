/** One of several tunnels in a process: an endpoint or the workers of one, under a name. */

import type { Config } from '../config/config.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import { messageOf, StartError } from '../errors.ts'
import { formatDuration } from '../format.ts'
import type { Log } from '../log/log.ts'
import { TunnelLog } from '../log/tunnel-log.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import type { Health } from '../monitoring/stats.ts'
import type { Runtime, Timer } from '../runtime.ts'
import { type Service, startService } from '../servers/start.ts'
import { openWorkers, type WorkerGroup } from '../workers/workers.ts'

/** Pause before a tunnel that failed is started again, ms; doubles up to the longest one. */
const RESTART_MS = 1000
const RESTART_LONGEST_MS = 60_000
/** After this time without a failure the pause is the first one again. */
const RESTART_CALM_MS = 600_000

/** What all tunnels of a process have in common. */
export interface TunnelHost {
  readonly runtime: Runtime
  readonly crypto: RuntimeCrypto
  /** That of the process. */
  readonly log: Log
  /** Whether a history is recorded. */
  readonly records: boolean
  /** `status` of a tunnel changed. */
  onStatus(): void
}

export class Tunnel {
  readonly name: string
  readonly log: TunnelLog
  readonly #host: TunnelHost
  config: Config
  #running: Service | WorkerGroup | undefined
  #failure: string | undefined
  #timer: Timer | undefined
  #pause = RESTART_MS
  #failedAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(host: TunnelHost, config: Config) {
    const { runtime, log } = host
    this.#host = host
    this.config = config
    this.name = config.name ?? ''
    this.log = new TunnelLog(log, this.name, () => new Date(runtime.clock.wall()))
  }

  get isOpen(): boolean {
    return !this.#closed
  }

  /** What is retried, for people; empty: nothing. */
  get status(): string {
    return this.#failure ?? this.#running?.status ?? ''
  }

  /** Of the endpoint that runs or ran last. @throws Error before `open` */
  get monitor(): Monitor {
    const running = this.#running
    if (running === undefined) throw new Error('the tunnel is not open')
    return 'stats' in running ? running.stats : running.monitor
  }

  health(): Health {
    const health = this.monitor.health()
    return this.#failure === undefined ? health : { ...health, waiting: 'restart' }
  }

  /**
   * Opens everything that may require privileges.
   * @throws StartError that names the tunnel
   */
  async open(): Promise<void> {
    const { runtime, crypto, records } = this.#host
    const { config } = this
    try {
      if (config.workers > 1) this.#running = await openWorkers(runtime, config, this.log, records)
      else {
        const endpoint = await startService(runtime, config, this.log, crypto)
        this.#running = endpoint
        if (records) await endpoint.monitor.record()
      }
      this.#running.onStatus = () => this.#host.onStatus()
      void this.#running.failed.then((error) => this.#retry(messageOf(error)))
      // closed in the meantime
      if (this.#closed) await this.#running.close()
    } catch (error) {
      throw this.#named(error)
    }
  }

  /** Starts workers, if any. @throws StartError that names the tunnel */
  async start(): Promise<void> {
    const running = this.#running
    if (running === undefined || !('start' in running)) return
    await running.start().catch((error) => {
      throw this.#named(error)
    })
  }

  /** See Endpoint.reload. @throws Error that names the tunnel; nothing is changed then */
  async reload(config: Config): Promise<void> {
    try {
      await this.#running?.reload(config)
    } catch (error) {
      throw this.#named(error)
    }
    this.config = config
  }

  sendLevel(): void {
    if (this.#running !== undefined && 'sendLevel' in this.#running) this.#running.sendLevel()
  }

  /** Also when it is closed already. Resolves when workers are gone. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#host.runtime.clock.clearTimer(this.#timer)
    await this.#running?.close()
  }

  #named(error: unknown): StartError {
    return new StartError(`tunnel ${this.name}: ${messageOf(error)}`)
  }

  /** Starts it after it was closed, with another configuration. @throws StartError; it is as before then */
  async openAs(config: Config): Promise<void> {
    const before = this.config
    this.#closed = false
    this.config = config
    try {
      await this.open()
      await this.start()
    } catch (error) {
      this.#closed = true
      this.config = before
      throw error
    }
  }

  /** Starts it again after it was closed; if that fails, it is tried again and again. */
  async reopen(): Promise<void> {
    this.#closed = false
    await this.#restart()
  }

  async #restart(): Promise<void> {
    try {
      await this.open()
      await this.start()
      this.#failure = undefined
      this.#host.onStatus()
    } catch (error) {
      this.#retry(messageOf(error))
    }
  }

  /** It failed and is closed: it is started again after a pause, and the other tunnels go on. */
  #retry(failure: string): void {
    if (this.#closed) return
    const { clock } = this.#host.runtime
    const now = clock.monotonic()
    if (now - this.#failedAt >= RESTART_CALM_MS) this.#pause = RESTART_MS
    this.#failedAt = now
    this.#failure = failure
    this.log.error(`${failure}; starting the tunnel again in ${formatDuration(this.#pause)}`)
    this.#host.onStatus()
    this.#timer = clock.setTimer(() => void this.#restart(), this.#pause)
    this.#pause = Math.min(2 * this.#pause, RESTART_LONGEST_MS)
  }
}
