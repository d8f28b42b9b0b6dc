/**
 * Several processes for one configuration (`workers`): the first one opens a socket for each with SO_REUSEPORT, starts
 * the workers (workers-child.ts), keeps them running, and shows their numbers as one (`http_listen`).
 *
 * The kernel deals peers out by a hash over the addresses and ports of both ends. The sockets stay open in the first
 * process, so the group of sockets, and with it who belongs where, stays the same when a worker ends; what arrives
 * before the next one serves waits in the socket.
 */

import { type Config, MODE_CLIENT } from '../config/config.ts'
import { keepFixed } from '../config/diff.ts'
import { configWarnings, modeName } from '../config/rules.ts'
import { assertStartable } from '../config/security.ts'
import { socketOptionsOf } from '../config/socket-options.ts'
import { methods } from '../crypto/methods.ts'
import { ClockJump } from '../engine/clock-jump.ts'
import { EndpointSecret } from '../engine/secret.ts'
import { ConfigError, messageOf, StartError, step } from '../errors.ts'
import { formatDuration } from '../format.ts'
import { AF_INET, AF_INET6, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM } from '../linux/libc.ts'
import { bindWithOptions } from '../linux/socket-options.ts'
import { type Syscalls, syscallsOf } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import { type Monitoring, openMonitoring } from '../monitoring/monitoring.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { OperatingSystem, Runtime, Timer, WorkerCalls, WorkerProcess } from '../runtime.ts'
import { resolveKey } from '../transport/resolver.ts'
import type { FromWorker, ToWorker } from './messages.ts'
import { WorkerStats } from './stats.ts'

/** A worker that ended is started again after this time, ms; it doubles up to the longest, until one lived for a while. */
const RESTART_MS = 500
const RESTART_LONGEST_MS = 60_000
const RESTART_CALM_MS = 60_000
/** Slots of the nonce base that a worker gets, for its engines one after the other. */
const WORKER_SLOTS = 256
/** How long a worker may take to end before it is killed, ms. */
const STOP_MS = 2000

/** One worker: its number, its socket, and the process that has it now. */
class Worker {
  readonly number: number
  readonly #socket: number
  readonly #group: WorkerGroup
  #process: WorkerProcess | undefined
  #pause = RESTART_MS
  #startedAt = 0
  #timer: Timer | undefined
  #serving = false
  #reason = ''
  #stopping = false
  /** Called at the end of the process, or before when what they wait for came. */
  readonly #onServing: ((failure: string | undefined) => void)[] = []
  readonly #onReloaded: ((failure: string | undefined) => void)[] = []
  /** The configuration of the group that this worker was given last. */
  #given: Config | undefined
  readonly #onGone: (() => void)[] = []

  constructor(group: WorkerGroup, number: number, socket: number) {
    this.#group = group
    this.number = number
    this.#socket = socket
  }

  get serving(): boolean {
    return this.#serving
  }

  /** Starts a process. Fulfilled when it serves, with undefined, or when it is gone before, with the reason. */
  start(): Promise<string | undefined> {
    const { calls, runtime } = this.#group
    this.#reason = ''
    this.#startedAt = runtime.clock.monotonic()
    this.#process = calls.start(
      this.number,
      this.#socket,
      (message) => this.#on(message as FromWorker),
      (how) => this.#ended(how),
    )
    return new Promise((resolve) => this.#onServing.push(resolve))
  }

  send(message: ToWorker): void {
    this.#process?.send(message)
  }

  /**
   * Gives the worker a configuration of the group, unless it has it.
   * @returns why it was refused; undefined: it was taken over, or the worker is gone
   */
  reload(config: Config): Promise<string | undefined> {
    if (this.#process === undefined || this.#given === config) return Promise.resolve(undefined)
    this.#given = config
    this.send({ kind: 'reload', config: this.#group.configFor(config) })
    return new Promise((resolve) => this.#onReloaded.push(resolve))
  }

  /** Fulfilled when the process is gone. */
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
        break
      case 'serving':
        this.#serving = true
        for (const resolve of this.#onServing.splice(0)) resolve(undefined)
        break
      case 'failed':
        this.#reason = message.text
        break
      case 'reloaded':
        this.#onReloaded.shift()?.(message.failure)
        break
      case 'bye':
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
    this.#group.stats.gone(this.number)
    const why = this.#reason === '' ? `worker ${this.number} ${how}` : this.#reason
    for (const resolve of this.#onReloaded.splice(0)) resolve(undefined)
    for (const resolve of this.#onServing.splice(0)) resolve(why)
    for (const resolve of this.#onGone.splice(0)) resolve()
    if (this.#stopping || !this.#group.started) return
    if (this.#group.runtime.clock.monotonic() - this.#startedAt >= RESTART_CALM_MS) this.#pause = RESTART_MS
    const pause = formatDuration(this.#pause)
    this.#group.log.error(
      `worker ${this.number} ${how}${this.#reason && `: ${this.#reason}`}; started again in ${pause}`,
    )
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
  readonly stats: WorkerStats
  /** Every worker served once: from now on one that ends is started again. */
  started = false
  /** Nothing ends a group from inside. */
  readonly failed: Promise<Error> = new Promise(() => {})
  #config: Config
  /** Of the shared sockets. */
  readonly #local: SocketAddress
  readonly #workers: readonly Worker[]
  readonly #secret = new EndpointSecret()
  readonly #clock: ClockJump
  #http: Monitoring | undefined

  constructor(runtime: Runtime, config: Config, log: Log, calls: WorkerCalls, shared: SharedSockets) {
    this.runtime = runtime
    this.#config = config
    this.log = log
    this.calls = calls
    this.#local = shared.local
    this.#clock = new ClockJump(runtime.clock)
    this.#workers = shared.sockets.map((socket, index) => new Worker(this, index + 1, socket))
    this.stats = new WorkerStats(runtime, () => this.#workers.filter(({ serving }) => serving), config)
  }

  get config(): Config {
    return this.#config
  }

  /** @throws ConfigError, StartError */
  async openMonitoring(): Promise<void> {
    this.#http = await openMonitoring(this.runtime, this.#config, this.log, this.stats)
  }

  /**
   * Starts all workers.
   * @throws StartError with the reason of the first that could not serve; no worker runs then
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
   * Takes over a configuration in all workers or in none, see Endpoint.reload. Beside other keys the shared sockets stay
   * as they are.
   * @throws Error with the reason of the first worker that refused it
   */
  async reload(fresh: Config): Promise<void> {
    const before = this.#config
    const { config, kept } = keepFixed(before, fresh)
    const failure = await this.#give(config)
    if (failure !== undefined) {
      await this.#give(before)
      throw new Error(failure)
    }
    this.#config = config
    this.#http?.reload(config)
    // those that were started meanwhile
    await this.#give(config)
    for (const key of kept) this.log.warning(`config key ${key}: the change needs a restart and is ignored`)
    const known = new Set(configWarnings(before))
    for (const text of configWarnings(config)) if (!known.has(text)) this.log.warning(text)
  }

  /** Gives every worker a configuration. @returns the first reason why it was refused */
  async #give(config: Config): Promise<string | undefined> {
    const failures = await Promise.all(this.#workers.map((worker) => worker.reload(config)))
    return failures.find((failure) => failure !== undefined)
  }

  /** The first message to a worker, also to one that takes the place of another. */
  startOrder(): ToWorker {
    // a clone of this machine gives its workers the same slots
    if (this.#clock.look() !== 0) this.#secret.renew()
    return {
      kind: 'start',
      config: this.configFor(this.#config),
      level: this.log.level,
      secret: this.#secret.part(WORKER_SLOTS),
    }
  }

  /** Of a configuration, what a worker does: everything but what is done here. */
  configFor(config: Config): Config {
    const local = formatAddress(this.#local)
    const shared = (config.mode & MODE_CLIENT) !== 0 ? { listen: local } : { kcp_bind: local }
    return { ...config, ...shared, http_listen: undefined, user: undefined, workers: 1 }
  }

  /** The level of the log changed. */
  sendLevel(): void {
    for (const worker of this.#workers) worker.send({ kind: 'level', level: this.log.level })
  }

  /** Fulfilled when every worker is gone. */
  async close(): Promise<void> {
    this.#http?.close()
    await Promise.all(this.#workers.map((worker) => worker.stop()))
  }
}

interface SharedSockets {
  readonly local: SocketAddress
  readonly sockets: readonly number[]
}

/** Binds alone first: with SO_REUSEPORT a second start of this program would take a part of the peers unnoticed. */
function checkFree(syscalls: Syscalls, kind: 'tcp' | 'udp', address: SocketAddress): void {
  const socket = syscalls.socket(address.family === 4 ? AF_INET : AF_INET6, kind === 'udp' ? SOCK_DGRAM : SOCK_STREAM)
  try {
    if (kind === 'tcp') syscalls.setOption(socket, SO_REUSEADDR, 1)
    syscalls.bind(socket, address, formatAddress(address))
  } finally {
    syscalls.close(socket)
  }
}

/** One socket for each worker, all bound to one address. */
async function openSockets(runtime: Runtime, config: Config, log: Log, syscalls: Syscalls): Promise<SharedSockets> {
  const client = (config.mode & MODE_CLIENT) !== 0
  const [key, text, kind] = client
    ? (['listen', config.listen, 'tcp'] as const)
    : (['kcp_bind', config.kcp_bind, 'udp'] as const)
  const address = await resolveKey(runtime, key, text ?? '', 'bind')
  const options = { ...config[kind], reuseport: true }
  const socketOptions = socketOptionsOf(kind, options, config.netdev, log)
  return step(`${key}: cannot open ${formatAddress(address)}`, async () => {
    if (!config[kind].reuseport) checkFree(syscalls, kind, address)
    const sockets: number[] = []
    let local = address
    while (sockets.length < config.workers) {
      const socket = bindWithOptions(syscalls, kind, local, socketOptions)
      local = { ...address, port: syscalls.port(socket) }
      sockets.push(socket)
    }
    return { local, sockets }
  })
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
 * Opens what several workers need, as far as it may need rights that the program gives up afterwards.
 * @throws ConfigError, or StartError naming the step that failed
 */
export async function openWorkers(runtime: Runtime, config: Config, log: Log): Promise<WorkerGroup> {
  assertStartable(config, methods)
  const { calls, syscalls } = systemCalls(runtime.os, config)
  for (const text of configWarnings(config)) log.warning(text)
  const shared = await openSockets(runtime, config, log, syscalls)
  const what = (config.mode & MODE_CLIENT) !== 0 ? 'tcp listen' : 'udp bind'
  log.notice(`${what}: ${formatAddress(shared.local)}, ${config.workers} workers`)
  const group = new WorkerGroup(runtime, config, log, calls, shared)
  await group.openMonitoring()
  return group
}
