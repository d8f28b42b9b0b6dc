/** Programs of a simulated world that are started, reloaded, stopped and restarted: endpoints, single or as workers. */
import type { Config } from '../../host/config/config.ts'
import { parseConfig } from '../../host/config/load.ts'
import type { RuntimeCrypto } from '../../host/crypto/open.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { makeReload } from '../../host/endpoint/reload.ts'
import { ConfigField } from '../../host/engine/core.ts'
import { Log } from '../../host/log/log.ts'
import type { WorkerCalls, WorkerProcess } from '../../host/runtime.ts'
import { runWorker } from '../../host/workers/child.ts'
import { WorkerGroup } from '../../host/workers/workers.ts'
import { faultText } from '../checked-core.ts'
import { type Machine, Process, type Violation } from './machine.ts'
import { ipv4, type Network } from './network.ts'
import { SimulatedRuntime } from './runtime.ts'
import type { TcpPorts } from './tcp.ts'
import { BoundPort, PortGroup } from './udp.ts'

/** Time after which an exited program is restarted, ms, as by a service manager. */
const RESTART_MS = 1000
const LOG_LEVEL = 6

export interface ProgramOptions {
  readonly machine: Machine
  readonly network: Network
  readonly tcp: TcpPorts
  readonly crypto: RuntimeCrypto
  readonly name: string
  readonly report: Violation
}

/** A service. `config` is the content of its configuration file. */
export abstract class Program {
  readonly options: ProgramOptions
  config: object
  starts = 0
  protected process: Process | undefined
  protected readonly runtimes: SimulatedRuntime[] = []
  #restartAt = 0

  constructor(options: ProgramOptions, config: object) {
    this.options = options
    this.config = config
  }

  get name(): string {
    return this.options.name
  }

  /** Whether a changed configuration applies without a restart. */
  get canReload(): boolean {
    return true
  }

  /** Lines of the logs of all its runs. */
  get lines(): readonly string[] {
    return this.runtimes.flatMap(({ lines, process }) => lines.map((line) => `${process.name}: ${line}`))
  }

  start(): void {
    const { machine, name, report } = this.options
    const process = new Process(machine, `${name}#${++this.starts}`, report)
    this.process = process
    process.onEnd(() => {
      if (this.process === process) this.process = undefined
      this.#restartAt = Math.max(this.#restartAt, machine.loop.now + RESTART_MS)
      machine.loop.at(this.#restartAt, () => {
        if (this.process === undefined) this.start()
      })
    })
    const runtime = this.makeRuntime(process)
    process.at(machine.loop.now, () => void this.run(process, runtime))
  }

  /**
   * Ends it as SIGKILL does.
   * @param downtime ms until it is restarted
   */
  kill(downtime: number): void {
    this.#restartAt = this.options.machine.loop.now + downtime
    this.process?.end()
  }

  /** Ends it without a restart. */
  end(): void {
    this.#restartAt = Number.POSITIVE_INFINITY
    this.process?.end()
  }

  /** Ends it as SIGTERM does. */
  stop(downtime: number): void {
    this.kill(downtime)
  }

  abstract reload(): void
  /** @returns whether an engine could be made to trap */
  abstract trap(): boolean
  /** The endpoint, for the invariants; undefined while it does not run or is not accessible. */
  get endpoint(): Endpoint | undefined {
    return undefined
  }

  protected abstract run(process: Process, runtime: SimulatedRuntime): Promise<void>

  protected makeRuntime(process: Process, shared = new Map<number, BoundPort>()): SimulatedRuntime {
    const { network, tcp } = this.options
    const readFile = (): string => JSON.stringify(this.config)
    const runtime = new SimulatedRuntime(process, { network, tcp, shared, readFile })
    this.runtimes.push(runtime)
    return runtime
  }

  protected logOf(runtime: SimulatedRuntime): Log {
    const log = new Log(runtime.print, () => new Date(runtime.clock.wall()))
    log.setLevel(LOG_LEVEL)
    return log
  }

  protected reloadOf(
    runtime: SimulatedRuntime,
    log: Log,
    endpoint: { config: Config; reload(config: Config): Promise<void> },
  ) {
    return makeReload({ runtime, log, path: 'config.json', endpoint, applyLog() {} })
  }

  protected failed(process: Process, runtime: SimulatedRuntime, error: unknown): void {
    runtime.print('stderr', `start failed: ${error instanceof Error ? error.message : error}`)
    process.end()
  }
}

/** A single endpoint. */
export class EndpointProgram extends Program {
  #endpoint: Endpoint | undefined
  #reload: (() => Promise<unknown>) | undefined
  /** Traps injected into the endpoint that `checkTraps` saw last. */
  #injected = 0
  #watched: Endpoint | undefined

  override get endpoint(): Endpoint | undefined {
    return this.#endpoint
  }

  override reload(): void {
    this.process?.call(() => void this.#reload?.())
  }

  override stop(downtime: number): void {
    this.process?.call(() => this.#endpoint?.close())
    super.stop(downtime)
  }

  override trap(): boolean {
    this.checkTraps()
    const driver = this.endpoint?.driver
    if (driver === undefined || driver.dead) return false
    const { core } = driver
    const { calls } = core
    const poll_transmit = (): never => {
      throw new WebAssembly.RuntimeError('injected')
    }
    Object.assign(core, { calls: { ...calls, poll_transmit } })
    this.#injected++
    this.process?.call(() => driver.wake())
    return true
  }

  /**
   * Lowers the engine's memory ceiling, in bytes.
   * @returns restores the configured ceiling
   */
  lowerCeiling(bytes: number): () => void {
    const driver = this.endpoint?.driver
    if (driver === undefined || driver.dead) return () => {}
    const { core } = driver
    const word = (core.calls.config_ptr() >>> 2) + ConfigField.memoryCeiling
    core.refresh()
    const before = core.u32[word] ?? 0
    const set = (value: number): void => {
      if (driver.dead || driver.core !== core) return
      core.refresh()
      core.u32[word] = value
      if (core.calls.configure(driver.now()) !== 0) this.options.report(`${this.name}: ceiling ${value} was rejected`)
      core.refresh()
    }
    set(bytes)
    return () => set(before)
  }

  /** Reports traps that were not injected. */
  checkTraps(): void {
    const { endpoint } = this
    if (endpoint !== this.#watched) this.#injected = 0
    this.#watched = endpoint
    const driver = endpoint?.driver
    if (driver === undefined || driver.diagnostics.counters.engine_traps <= this.#injected) return
    this.options.report(`${this.name}: the engine trapped: ${faultText(driver.core.calls) ?? this.lines.at(-1)}`)
    this.#injected = driver.diagnostics.counters.engine_traps
  }

  protected override async run(process: Process, runtime: SimulatedRuntime): Promise<void> {
    const log = this.logOf(runtime)
    try {
      const config = parseConfig(await runtime.readFile())
      const endpoint = await startEndpoint(runtime, config, log, this.options.crypto)
      this.#endpoint = endpoint
      process.onEnd(() => {
        if (this.#endpoint === endpoint) this.#endpoint = undefined
      })
      this.#reload = this.reloadOf(runtime, log, endpoint)
      void endpoint.failed.then(() => process.end())
    } catch (error) {
      this.failed(process, runtime, error)
    }
  }
}

/** A server with several worker processes. */
export class WorkersProgram extends Program {
  readonly #count: number
  readonly #port: number
  #group: WorkerGroup | undefined
  #reload: (() => Promise<unknown>) | undefined
  #children: { process: Process; runtime: SimulatedRuntime }[] = []

  /** @param port of the UDP socket that all share */
  constructor(options: ProgramOptions, config: object, count: number, port: number) {
    super(options, config)
    this.#count = count
    this.#port = port
  }

  override reload(): void {
    this.process?.call(() => void this.#reload?.())
  }

  /** Kills one worker; the others continue. */
  override trap(): boolean {
    const child = this.#children.find(({ process }) => !process.isOver)
    child?.process.end()
    return child !== undefined
  }

  protected override async run(process: Process, runtime: SimulatedRuntime): Promise<void> {
    const { machine, network } = this.options
    const log = this.logOf(runtime)
    const local = ipv4('0.0.0.0', this.#port)
    const ports = Array.from({ length: this.#count }, (_, i) => new BoundPort(network, `${machine.name}/${i}`, local))
    const key = `${machine.name} *:${this.#port}`
    network.sockets.set(key, new PortGroup(ports))
    process.onEnd(() => {
      network.sockets.delete(key)
      for (const port of ports) port.close()
      for (const child of this.#children.splice(0)) child.process.end()
    })
    try {
      const config = parseConfig(await runtime.readFile())
      const shared = new Map(ports.map((port, i) => [i, port]))
      const group = new WorkerGroup(runtime, config, log, this.#callsOf(process, shared), async () => ({
        local: [local],
        shown: [],
        sockets: ports.map((_, i) => [i]),
      }))
      this.#group = group
      await group.open()
      await group.start()
      this.#reload = this.reloadOf(runtime, log, group)
    } catch (error) {
      this.failed(process, runtime, error)
    }
  }

  get group(): WorkerGroup | undefined {
    return this.#group
  }

  #callsOf(parent: Process, shared: Map<number, BoundPort>): WorkerCalls {
    const { machine, report } = this.options
    const { loop } = machine
    const copy = (message: object): unknown => JSON.parse(JSON.stringify(message))
    const start: WorkerCalls['start'] = (number, [socket = 0], onMessage, onEnd): WorkerProcess => {
      const process = new Process(machine, `${parent.name}/worker${number}`, report)
      const runtime = this.makeRuntime(process, shared)
      this.#children.push({ process, runtime })
      let toChild: (message: unknown) => void = () => {}
      let signal = 'ended'
      process.onEnd(() => {
        this.#children = this.#children.filter((child) => child.process !== process)
        parent.at(loop.now, () => onEnd(signal))
      })
      const calls: WorkerCalls = {
        inside: number,
        socket,
        start,
        send(message, sent) {
          const sentCopy = copy(message)
          parent.at(loop.now, () => onMessage(sentCopy))
          if (sent !== undefined) process.at(loop.now, sent)
        },
        receive(onToChild) {
          toChild = onToChild
        },
      }
      process.at(loop.now, () => runWorker(runtime, calls, this.options.crypto))
      return {
        pid: number,
        send(message) {
          const sentCopy = copy(message)
          process.at(loop.now, () => toChild(sentCopy))
        },
        kill(name) {
          signal = `was ended by ${name}`
          process.end()
        },
      }
    }
    return { inside: undefined, socket: -1, start, send() {}, receive() {} }
  }
}
