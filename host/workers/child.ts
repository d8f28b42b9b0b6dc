/**
 * A worker: one endpoint in its own process, on an inherited socket, controlled by the first process (workers.ts). It
 * sends its log there and ends when that process is gone.
 */
import type { Config } from '../config/config.ts'
import type { RuntimeCrypto } from '../crypto/open.ts'
import { activityOf, RATE_LOOK_MS, type RateUse } from '../engine/rate-share.ts'
import { messageOf } from '../errors.ts'
import { Log } from '../log/log.ts'
import type { Runtime, Timer, WorkerCalls } from '../runtime.ts'
import { type Service, startService } from '../servers/start.ts'
import type { FromWorker, ToWorker } from './messages.ts'

/** Timeout for sending the last messages before the process ends, ms. */
const LAST_WORDS_MS = 1000

/** Runs this process as a worker until it ends. */
export function runWorker(runtime: Runtime, calls: WorkerCalls, crypto: RuntimeCrypto): void {
  new Worker(runtime, calls, crypto).run()
}

class Worker {
  readonly #runtime: Runtime
  readonly #calls: WorkerCalls
  readonly #crypto: RuntimeCrypto
  readonly #log: Log
  #endpoint: Service | undefined
  /** Serializes start and reloads. */
  #turn: Promise<void> = Promise.resolve()
  #rateTimer: Timer | undefined
  /** Of the last report for the division of rate limits. */
  #activity = 0
  #rateAt = 0

  constructor(runtime: Runtime, calls: WorkerCalls, crypto: RuntimeCrypto) {
    this.#runtime = runtime
    this.#calls = calls
    this.#crypto = crypto
    this.#log = new Log(
      () => {},
      () => new Date(runtime.clock.wall()),
      () => (level, text) => this.#send({ kind: 'log', level, text }),
    )
    this.#log.setOutput('syslog')
  }

  run(): void {
    // a terminal sends these signals to all processes; the first process handles them
    this.#runtime.onReload(() => {})
    this.#runtime.onReopen?.(() => {})
    this.#runtime.onTerminate((signal) => {
      if (signal === 'SIGTERM') this.#leave(0)
    })
    this.#calls.receive(
      (message) => this.#on(message as ToWorker),
      () => {
        this.#endpoint?.close()
        this.#runtime.exit(0)
      },
    )
    this.#send({ kind: 'hello' })
  }

  #on(message: ToWorker): void {
    switch (message.kind) {
      case 'start':
        this.#inTurn(() => this.#start(message))
        break
      case 'reload':
        this.#inTurn(() => this.#reload(message.config))
        break
      case 'rate':
        this.#inTurn(async () => this.#endpoint?.shareRate(message.parts))
        break
      case 'level':
        this.#log.setLevel(message.level)
        break
      case 'ping':
        this.#endpoint?.monitor.ping()
        break
      case 'stats':
        this.#report(message.id, message.sessions, message.history).catch((error) => this.#log.error(messageOf(error)))
        break
    }
  }

  #send(message: FromWorker, sent?: () => void): void {
    this.#calls.send(message, sent)
  }

  #inTurn(action: () => Promise<void>): void {
    this.#turn = this.#turn.then(action).catch((error) => this.#log.error(messageOf(error)))
  }

  #leave(status: number, last: FromWorker = { kind: 'bye' }): void {
    const exit = (): void => this.#runtime.exit(status)
    this.#endpoint?.close()
    this.#runtime.clock.setTimer(exit, LAST_WORDS_MS)
    this.#send(last, exit)
  }

  async #start({ config, level, secret, addresses, records }: Extract<ToWorker, { kind: 'start' }>): Promise<void> {
    this.#log.setLevel(level)
    try {
      const socket = { fd: this.#calls.socket, addresses, secret }
      this.#endpoint = await startService(this.#runtime, config, this.#log, this.#crypto, socket)
      if (records) await this.#endpoint.monitor.record()
    } catch (error) {
      return this.#leave(1, { kind: 'failed', text: messageOf(error) })
    }
    const { status } = this.#endpoint
    this.#endpoint.onActive = this.#onActive
    this.#endpoint.onStatus = (text) => this.#send({ kind: 'status', text })
    if (status !== '') this.#send({ kind: 'status', text: status })
    this.#send({ kind: 'serving' })
    // the engine trapped too often; already logged
    void this.#endpoint.failed.then((error) => {
      void this.#report(0, false, false)
      this.#leave(1, { kind: 'failed', text: messageOf(error) })
    })
  }

  async #reload(config: Config): Promise<void> {
    try {
      await this.#endpoint?.reload(config)
    } catch (error) {
      return this.#send({ kind: 'reloaded', failure: messageOf(error) })
    }
    this.#send({ kind: 'reloaded' })
  }

  /** Something passes: reports it soon, if limits are to be divided. */
  readonly #onActive = (): void => {
    if (this.#rateTimer !== undefined || this.#endpoint === undefined) return
    const { up, down } = this.#endpoint.config.rate
    if (up + down === 0) return
    const use = this.#endpoint.rateUse()
    // after a pause, what it was before
    if (use.at - this.#rateAt > 2 * RATE_LOOK_MS) this.#sendRate(use)
    this.#rateTimer = this.#runtime.clock.setTimer(this.#reportRate, RATE_LOOK_MS)
  }

  #sendRate(use: RateUse): void {
    this.#activity = activityOf(use)
    this.#rateAt = use.at
    this.#send({ kind: 'rate', use })
  }

  readonly #reportRate = (): void => {
    this.#rateTimer = undefined
    if (this.#endpoint === undefined) return
    const use = this.#endpoint.rateUse()
    if (activityOf(use) === this.#activity) return
    this.#sendRate(use)
    this.#onActive()
  }

  /** Sends statistics, those of the sessions and the history first. */
  async #report(id: number, withSessions: boolean, withHistory: boolean): Promise<void> {
    if (this.#endpoint === undefined) return
    const { monitor } = this.#endpoint
    if (withSessions) {
      for (const sessions of monitor.sessions()) {
        this.#send({ kind: 'sessions', id, sessions })
        // yield to tunnel traffic
        await new Promise<void>((resolve) => this.#runtime.clock.defer(resolve))
      }
    }
    if (withHistory) this.#send({ kind: 'history', id, rows: monitor.history() })
    const { cpu, rss, counters } = monitor.snapshot()
    const part = {
      cpu: cpu ?? 0,
      rss,
      counters,
      host: monitor.hostCounters(),
      health: monitor.health(),
      path: monitor.path(),
      servers: monitor.servers?.(),
      keys: monitor.keys?.(),
    }
    this.#send({ kind: 'stats', id, part })
  }
}
