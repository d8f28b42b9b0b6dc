/** One of several tunnels in a process: an endpoint or the workers of one, under a name. */

import type { Config } from '../config/config.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import { type Endpoint, startEndpoint } from '../endpoint/endpoint.ts'
import { messageOf, StartError } from '../errors.ts'
import { formatDuration } from '../format.ts'
import type { Log } from '../log/log.ts'
import { TunnelLog } from '../log/tunnel-log.ts'
import type { Monitor } from '../monitoring/monitoring.ts'
import type { Runtime, Timer } from '../runtime.ts'
import { openWorkers, type WorkerGroup } from '../workers/workers.ts'

/** Pause before a tunnel whose engine failed is started again, ms; doubles up to the longest one. */
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
  /** A tunnel failed and cannot be started again. */
  onFailed(error: Error): void
}

export class Tunnel {
  readonly name: string
  readonly log: TunnelLog
  readonly #host: TunnelHost
  #config: Config
  #running: Endpoint | WorkerGroup | undefined
  #failure: string | undefined
  #timer: Timer | undefined
  #pause = RESTART_MS
  #failedAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(host: TunnelHost, config: Config) {
    const { runtime, log } = host
    this.#host = host
    this.#config = config
    this.name = config.name ?? ''
    this.log = new TunnelLog(log, this.name, () => new Date(runtime.clock.wall()))
  }

  get config(): Config {
    return this.#config
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

  /**
   * Opens everything that may require privileges.
   * @throws StartError that names the tunnel
   */
  async open(): Promise<void> {
    const { runtime, crypto, records } = this.#host
    const config = this.#config
    try {
      if (config.workers > 1) this.#running = await openWorkers(runtime, config, this.log, records)
      else {
        const endpoint = await startEndpoint(runtime, config, this.log, crypto)
        this.#running = endpoint
        if (records) await endpoint.monitor.record()
      }
      this.#running.onStatus = () => this.#host.onStatus()
      void this.#running.failed.then((error) => this.#onFailed(error))
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
    this.#config = config
  }

  sendLevel(): void {
    if (this.#running !== undefined && 'sendLevel' in this.#running) this.#running.sendLevel()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#host.runtime.clock.clearTimer(this.#timer)
    await this.#running?.close()
  }

  #named(error: unknown): StartError {
    return new StartError(`tunnel ${this.name}: ${messageOf(error)}`)
  }

  /** The engine trapped repeatedly, and the endpoint is closed. The other tunnels go on. */
  #onFailed(error: Error): void {
    if (this.#closed) return
    const { clock } = this.#host.runtime
    const now = clock.monotonic()
    if (now - this.#failedAt >= RESTART_CALM_MS) this.#pause = RESTART_MS
    this.#failedAt = now
    this.#failure = `engine: ${messageOf(error)}`
    this.log.error(`restarting the tunnel in ${formatDuration(this.#pause)}`)
    this.#host.onStatus()
    this.#timer = clock.setTimer(() => {
      this.#failure = undefined
      this.open().then(
        () => this.#host.onStatus(),
        (reason) => this.#host.onFailed(reason),
      )
    }, this.#pause)
    this.#pause = Math.min(2 * this.#pause, RESTART_LONGEST_MS)
  }
}
