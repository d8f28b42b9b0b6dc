/**
 * Runs one configuration in several processes (`workers`). The first process opens a SO_REUSEPORT socket for each
 * worker, starts the workers (child.ts), restarts them, and serves their combined statistics (`http_listen`).
 *
 * The kernel assigns peers to sockets by a hash over the addresses and ports of both endpoints. The sockets stay open
 * in the first process, so the assignment does not change when a worker ends; datagrams wait in the socket until its
 * replacement serves.
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { keepFixed } from '../config/diff.ts'
import { configWarnings, modeName } from '../config/rules.ts'
import { assertStartable } from '../config/security.ts'
import { methods } from '../crypto/methods.ts'
import { ClockJump } from '../engine/clock-jump.ts'
import { ALL_PARTS, NO_USE, type RateMember, type RateParts, RateShare, type RateUse } from '../engine/rate-share.ts'
import { EndpointSecret } from '../engine/secret.ts'
import { ConfigError, messageOf, StartError } from '../errors.ts'
import { formatDuration } from '../format.ts'
import { limitHint } from '../linux/address-space.ts'
import { deviceIndex } from '../linux/socket-options.ts'
import { type Syscalls, syscallsOf } from '../linux/syscalls.ts'
import { watchInterfaces } from '../linux/system-watch.ts'
import type { Log } from '../log/log.ts'
import type { Monitoring } from '../monitoring/monitoring.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { OperatingSystem, Runtime, Timer, Watch, WorkerCalls, WorkerProcess } from '../runtime.ts'
import { ipv6Warnings } from '../transport/resolver.ts'
import { Retry } from '../transport/retry.ts'
import type { FromWorker, ToWorker } from './messages.ts'
import { openSockets, type SharedSockets } from './shared-sockets.ts'
import { WorkerStats } from './stats.ts'

/** Initial restart delay, ms. It doubles up to the longest, and is reset after a worker ran for a while. */
const RESTART_MS = 500
const RESTART_LONGEST_MS = 60_000
const RESTART_CALM_MS = 60_000
/** Slots of the nonce base reserved for each worker process, for its consecutive engines. */
const WORKER_SLOTS = 256
/** Time for a worker to end before it is killed, ms. */
const STOP_MS = 2000

/** Whether a client accepts datagrams. */
const isUdp = ({ udp_listen }: Config): boolean => udp_listen !== undefined

/** One worker: its number, its sockets, and its current process. */
class Worker implements RateMember {
  readonly number: number
  readonly #sockets: readonly number[]
  readonly #group: WorkerGroup
  #process: WorkerProcess | undefined
  #pause = RESTART_MS
  #startedAt = 0
  #timer: Timer | undefined
  #serving = false
  /** What it retries; empty: nothing. */
  status = ''
  #use = NO_USE
  /** Of the rate limits; a process that is started again has them, too. */
  #parts = ALL_PARTS
  #reason = ''
  #stopping = false
  /** Pending callbacks; resolved at the latest when the process ends. */
  readonly #onServing: ((failure: string | undefined) => void)[] = []
  readonly #onReloaded: ((failure: string | undefined) => void)[] = []
  /** The group configuration last sent to this worker. */
  #given: Config | undefined
  readonly #onGone: (() => void)[] = []

  constructor(group: WorkerGroup, number: number, sockets: readonly number[]) {
    this.#group = group
    this.number = number
    this.#sockets = sockets
  }

  get serving(): boolean {
    return this.#serving
  }

  /** Starts a process. Resolves to undefined when it serves, or to the reason if it ends before. */
  start(): Promise<string | undefined> {
    const { calls, runtime } = this.#group
    this.#reason = ''
    this.#startedAt = runtime.clock.monotonic()
    this.#process = calls.start(
      this.number,
      this.#sockets,
      (message) => this.#on(message as FromWorker),
      (how) => this.#ended(how),
    )
    return new Promise((resolve) => this.#onServing.push(resolve))
  }

  send(message: ToWorker): void {
    this.#process?.send(message)
  }

  rateUse(): RateUse {
    return this.#use
  }

  shareRate(parts: RateParts): void {
    this.#parts = parts
    this.send({ kind: 'rate', parts })
  }

  /**
   * Sends the worker a configuration of the group, unless it already has it.
   * @returns why the worker rejected it; undefined if it applied it or ended
   */
  reload(config: Config): Promise<string | undefined> {
    if (this.#process === undefined || this.#given === config) return Promise.resolve(undefined)
    this.#given = config
    this.send({ kind: 'reload', config: this.#group.configFor(config) })
    return new Promise((resolve) => this.#onReloaded.push(resolve))
  }

  /** Stops the process and closes its sockets. */
  async end(): Promise<void> {
    await this.stop()
    const { os } = this.#group.runtime
    if (os !== undefined) for (const socket of this.#sockets) syscallsOf(os).close(socket)
  }

  /** Stops the process; resolves when it is gone. */
  stop(): Promise<void> {
    this.#stopping = true
    this.#group.runtime.clock.clearTimer(this.#timer)
    const process = this.#process
    if (process === undefined) return Promise.resolve()
    process.kill('SIGTERM')
    const { clock } = this.#group.runtime
    const timer = clock.setTimer(() => process.kill('SIGKILL'), STOP_MS)
    return new Promise((resolve) =>
      this.#onGone.push(() => {
        clock.clearTimer(timer)
        resolve()
      }),
    )
  }

  #on(message: FromWorker): void {
    const { log, stats } = this.#group
    switch (message.kind) {
      case 'hello':
        this.#given = this.#group.config
        this.send(this.#group.startOrder())
        if (this.#parts !== ALL_PARTS) this.send({ kind: 'rate', parts: this.#parts })
        break
      case 'serving':
        this.#serving = true
        for (const resolve of this.#onServing.splice(0)) resolve(undefined)
        break
      case 'status':
        this.status = message.text
        this.#group.statusChanged()
        break
      case 'failed':
        this.#reason = message.text
        break
      case 'reloaded':
        this.#onReloaded.shift()?.(message.failure)
        break
      case 'bye':
        break
      case 'rate':
        this.#use = message.use
        this.#group.rates.wake()
        break
      case 'log':
        log.write(message.level, `[worker ${this.number}] ${message.text}`)
        break
      default:
        stats.take(this.number, message)
    }
  }

  #ended(how: string): void {
    this.#process = undefined
    this.#serving = false
    this.status = ''
    this.#group.stats.gone(this.number)
    const hint = limitHint(this.#group.runtime.os, how)
    const why = this.#reason === '' ? `worker ${this.number} ${how}${hint}` : this.#reason
    for (const resolve of this.#onReloaded.splice(0)) resolve(undefined)
    for (const resolve of this.#onServing.splice(0)) resolve(why)
    for (const resolve of this.#onGone.splice(0)) resolve()
    if (this.#stopping || !this.#group.started) return
    if (this.#group.runtime.clock.monotonic() - this.#startedAt >= RESTART_CALM_MS) this.#pause = RESTART_MS
    const pause = formatDuration(this.#pause)
    this.#group.log.error(`worker ${this.number} ${how}${this.#reason && `: ${this.#reason}`}; restarting in ${pause}`)
    this.#timer = this.#group.runtime.clock.setTimer(() => this.#restart(), this.#pause)
    this.#pause = Math.min(2 * this.#pause, RESTART_LONGEST_MS)
  }

  #restart(): void {
    this.#group.stats.restarts++
    void this.start().then((failure) => {
      if (failure === undefined) this.#group.log.notice(`worker ${this.number} serves again`)
    })
  }
}

/** All workers. Call `start` once. */
export class WorkerGroup {
  readonly runtime: Runtime
  readonly log: Log
  readonly calls: WorkerCalls
  /** Whether the workers record a history. */
  readonly #records: boolean
  readonly stats: WorkerStats
  /** Whether every worker has served once: from then on ended workers are restarted. */
  started = false
  /** Never resolves: a group does not end by itself. */
  readonly failed: Promise<Error> = new Promise(() => {})
  #config: Config
  /** Addresses of the shared sockets; none until they are open. */
  #local: readonly SocketAddress[] = []
  #isOpen = false
  /** Removes the file of a shared Unix socket. */
  #release = (): void => {}
  #workers: readonly Worker[] = []
  /** Opens the shared sockets. */
  readonly #sockets: Retry
  readonly #httpRetry: Retry
  /** Called by POST /reload. */
  onReloadRequest: ReloadRequest | undefined
  /** Called when `status` changes. */
  onStatus: (status: string) => void = () => {}
  #status = ''
  #closed = false
  readonly #secret = new EndpointSecret()
  readonly rates: RateShare
  readonly #clock: ClockJump
  #http: Monitoring | undefined
  /** Index of the interface `netdev` that the shared sockets are bound to. */
  #device = 0
  #interfaces: Watch | undefined
  #turn: Promise<void> = Promise.resolve()

  /**
   * @param openShared opens the shared sockets
   * @param records whether the workers record a history
   */
  constructor(
    runtime: Runtime,
    config: Config,
    log: Log,
    calls: WorkerCalls,
    openShared: () => Promise<SharedSockets>,
    records = config.http_listen !== undefined,
  ) {
    this.runtime = runtime
    this.#records = records
    this.#config = config
    this.log = log
    this.calls = calls
    this.#clock = new ClockJump(runtime.clock)
    this.stats = new WorkerStats(
      runtime,
      () => this.#workers.filter(({ serving }) => serving),
      config,
      () => this.#failures[0],
    )
    this.rates = new RateShare(
      runtime.clock,
      () => this.#workers,
      () => this.#config.rate,
    )
    const onChange = (): void => this.statusChanged()
    this.#sockets = new Retry(runtime.clock, log, async () => this.#adopt(await openShared()), onChange)
    this.#httpRetry = new Retry(runtime.clock, log, () => this.#openMonitoring(), onChange)
  }

  /** What is retried, for people; empty: nothing. */
  get status(): string {
    return this.#failures.join('; ')
  }

  get #failures(): string[] {
    const own = [this.#sockets.failure, this.#httpRetry.failure].filter((text) => text !== undefined)
    return own.concat(this.#workers.map(({ status }) => status).find((status) => status !== '') ?? [])
  }

  /** A worker or this process reports something else than before. */
  statusChanged(): void {
    const { status } = this
    if (this.#closed || status === this.#status) return
    this.#status = status
    this.onStatus(status)
  }

  #adopt({ local, shown, sockets, release }: SharedSockets): void {
    this.#local = local
    this.#isOpen = true
    this.#release = release ?? this.#release
    this.#device = deviceIndex(this.runtime.os, this.#config.netdev)
    this.#workers = sockets.map((socket, index) => new Worker(this, index + 1, socket))
    this.rates.reset()
    const isClient = (this.#config.mode & MODE_CLIENT) !== 0
    const kind =
      local.length === 0 ? 'listen' : !isClient ? 'udp bind' : isUdp(this.#config) ? 'udp listen' : 'tcp listen'
    for (const text of shown) this.log.notice(`${kind}: ${text}, ${sockets.length} workers`)
    // later than at the start: a worker that fails is restarted
    if (this.started) for (const worker of this.#workers) void worker.start()
  }

  get config(): Config {
    return this.#config
  }

  /**
   * Opens everything that may require privileges. What fails for a temporary reason is retried.
   * @throws ConfigError, StartError for other reasons
   */
  async open(): Promise<void> {
    await this.#sockets.start()
    await this.#httpRetry.start()
    const { os } = this.runtime
    if (os === undefined || this.#config.netdev === undefined) return
    try {
      this.#interfaces = watchInterfaces(os, () => void this.#followDevice())
    } catch (error) {
      this.log.info(`interfaces are not watched: ${messageOf(error)}`)
    }
  }

  /** Follows an interface `netdev` created again: bound to another one, a socket would leave its SO_REUSEPORT group. */
  #followDevice(): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      const { netdev } = this.#config
      const index = deviceIndex(this.runtime.os, netdev)
      if (this.#closed || this.#local.length === 0 || index === 0 || index === this.#device) return
      this.log.warning(`netdev ${netdev} was created: restarting the workers, their sessions end`)
      const before = this.#workers
      this.#workers = []
      this.#local = []
      await Promise.all(before.map((worker) => worker.end()))
      if (!this.#closed) await this.#sockets.start(() => false)
    })
    return this.#turn
  }

  async #openMonitoring(): Promise<void> {
    if (this.#config.http_listen === undefined) return
    const { openMonitoring } = await import('../monitoring/monitoring.ts')
    const http = await openMonitoring(this.runtime, this.#config, this.log, this.stats, {
      reload: (by) => this.onReloadRequest?.(by),
    })
    if (this.#closed) http?.close()
    else this.#http = http
  }

  /**
   * Starts all workers, or begins to serve when the shared sockets are open.
   * @throws StartError with the reason of the first worker that failed; all workers are stopped then
   */
  async start(): Promise<void> {
    const failures = await Promise.all(this.#workers.map((worker) => worker.start()))
    const failure = failures.find((text) => text !== undefined)
    if (failure !== undefined) {
      await this.close()
      throw new StartError(failure)
    }
    this.started = true
    this.log.notice(`${modeName(this.#config.mode)} start`)
  }

  /**
   * Applies a configuration in all workers or in none, see Endpoint.reload. The shared sockets, like other fixed keys,
   * do not change.
   * @throws Error with the reason of the first worker that rejected it
   */
  async reload(fresh: Config): Promise<void> {
    await this.#followDevice()
    const before = this.#config
    const { config, kept } = keepFixed(before, fresh)
    const failure = await this.#give(config)
    if (failure !== undefined) {
      await this.#give(before)
      throw new Error(failure)
    }
    this.#config = config
    this.rates.reset()
    this.#http?.reload(config)
    // workers that were started meanwhile
    await this.#give(config)
    for (const key of kept) this.log.warning(`config key ${key}: the change needs a restart and is ignored`)
    const known = new Set(configWarnings(before))
    for (const text of configWarnings(config)) if (!known.has(text)) this.log.warning(text)
  }

  /**
   * Sends every worker a configuration.
   * @returns the first rejection
   */
  async #give(config: Config): Promise<string | undefined> {
    const failures = await Promise.all(this.#workers.map((worker) => worker.reload(config)))
    return failures.find((failure) => failure !== undefined)
  }

  /** The first message to a worker, also to a replacement. */
  startOrder(): ToWorker {
    // a clone of this machine assigns its workers the same slots
    if (this.#clock.look() !== 0) this.#secret.renew()
    return {
      kind: 'start',
      config: this.configFor(this.#config),
      level: this.log.level,
      secret: this.#secret.part(WORKER_SLOTS),
      addresses: this.#local,
      records: this.#records,
    }
  }

  /** The configuration for a worker: without what the first process does. */
  configFor(config: Config): Config {
    if (!this.#isOpen) throw new Error('the shared sockets are not open')
    const [first] = this.#local
    const local = first && formatAddress(first)
    // a Unix socket has no address: the worker is given the path
    const key = (config.mode & MODE_CLIENT) === 0 ? 'kcp_bind' : isUdp(config) ? 'udp_listen' : 'listen'
    const shared = local === undefined ? {} : { [key]: local }
    return { ...config, ...shared, http_listen: undefined, user: undefined, workers: 1 }
  }

  /** Sends the current log level to all workers. */
  sendLevel(): void {
    for (const worker of this.#workers) worker.send({ kind: 'level', level: this.log.level })
  }

  /** Stops all workers and closes their sockets; resolves when they are gone. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#interfaces?.close()
    this.#sockets.close()
    this.#httpRetry.close()
    this.#http?.close()
    this.rates.close()
    this.#release()
    await Promise.all(this.#workers.map((worker) => worker.end()))
  }
}

function systemCalls(os: OperatingSystem | undefined, config: Config): { calls: WorkerCalls; syscalls: Syscalls } {
  const refuse = (why: string): never => {
    throw new ConfigError('workers', String(config.workers), why)
  }
  const calls = os?.workers ?? refuse('not available: only on Linux')
  try {
    return { calls, syscalls: os === undefined ? refuse('not available here') : syscallsOf(os) }
  } catch (error) {
    return refuse(messageOf(error))
  }
}

/**
 * Opens everything that the workers need and that may require privileges, which the program drops afterwards.
 * @param records whether the workers record a history
 * @throws ConfigError, or StartError naming the step that failed
 */
export async function openWorkers(runtime: Runtime, config: Config, log: Log, records?: boolean): Promise<WorkerGroup> {
  assertStartable(config, methods)
  const { calls, syscalls } = systemCalls(runtime.os, config)
  for (const text of [...configWarnings(config), ...(await ipv6Warnings(runtime, config))]) log.warning(text)
  const openShared = (): Promise<SharedSockets> => openSockets(runtime, config, log, syscalls)
  const group = new WorkerGroup(runtime, config, log, calls, openShared, records)
  await group.open()
  return group
}
