/** Programs of a simulated world that use the public library: its clients, servers and tunnels, and their ends. */

import type { Endpoint } from '../../host/endpoint/endpoint.ts'
import { messageOf } from '../../host/errors.ts'
import type { Client, Logger, Running, Tunnel, WebStream } from '../../host/library/api.ts'
import type { Channel } from '../../host/library/channel.ts'
import { makeLibrary } from '../../host/library/library.ts'
import { webStreamOf } from '../../host/library/web-stream.ts'
import type { TcpHandlers } from '../../host/runtime.ts'
import { KcpStream, streamOf } from '../../runtime-shared/duplex.ts'
import type { Connection, Scheduler } from './application.ts'
import type { Carrier } from './carrier.ts'
import {
  type Act,
  checkCode,
  Debts,
  DuplexConnection,
  Enough,
  type LibraryConnection,
  WebConnection,
} from './library-connection.ts'
import type { Process } from './machine.ts'
import { EndpointProgram, type ProgramOptions } from './program.ts'
import type { SimulatedRuntime } from './runtime.ts'
import type { LibraryPlan } from './scenario.ts'

/** close() takes no longer than `linger` and this, ms. */
const CLOSE_GRACE_MS = 1000
/** Interval of looks at statistics, ms. */
const LOOK_MS = 5000
/** Most bytes that wait in a channel (host/library/channel.ts). */
const CHANNEL_BYTES = 262_144 + 65_536

type AnyStream = KcpStream | WebStream

/** How an application opens a stream. */
export interface Opening {
  readonly call: 'connect' | 'open'
  /** ms after which it gives `connect` up; 0: never. */
  readonly patience: number
}

/** What a program does with the library. */
export interface LibraryRole {
  readonly kind: 'client' | 'server' | 'tunnel'
  /** Makes a carrier of datagrams in place of UDP. */
  readonly carrier?: (process: Process) => Carrier
  readonly isGreedy: boolean
  /** How it closes. */
  readonly closing: LibraryPlan['closing']
}

export class LibraryProgram extends EndpointProgram {
  readonly role: LibraryRole
  readonly debts = new Debts()
  /** What was done, for the coverage. */
  readonly acts = new Set<Act>()
  /** Server: serves a stream. */
  onStream: (connection: Connection) => TcpHandlers = () => {
    throw new Error('nobody serves streams')
  }
  /** What it ran is closed: its sessions are lost. */
  onClosed: () => void = () => {}
  readonly #connections = new Set<LibraryConnection>()
  #running: Running | undefined
  #isClosing = false
  #resumeAt = 0
  #streams = 0
  /** Ends what runs at once, by its signal. */
  #abort: () => void = () => {}
  #carrier: Carrier | undefined

  /** @param config options of createClient or createServer, or the configuration of a tunnel */
  constructor(options: ProgramOptions, config: object, role: LibraryRole) {
    super(options, config)
    this.role = role
  }

  override get endpoint(): Endpoint | undefined {
    return this.#running && Reflect.get(this.#running, 'openEndpoint')
  }

  /** Only tunnels reload. */
  override get canReload(): boolean {
    return this.role.kind === 'tunnel'
  }

  override reload(): void {
    const tunnel = this.#running as Tunnel | undefined
    if (!this.canReload || tunnel === undefined || this.#isClosing) return
    const { process } = this
    process?.at(this.#now, () => {
      const settle = this.debts.owe('a reload')
      tunnel.reload(structuredClone(this.config)).then(settle, settle)
    })
  }

  /** Closes what runs by close(), by its signal, or by the end of its carrier; then starts it again. */
  override stop(downtime: number): void {
    const running = this.#running
    const process = this.process
    if (running === undefined || process === undefined || this.#isClosing) return
    this.#resumeAt = this.#now + downtime
    this.#isClosing = true
    process.at(this.#now, () => {
      const { closing } = this.role
      const way = closing === 'end of the carrier' && this.#carrier === undefined ? 'signal' : closing
      this.#did(way)
      if (way === 'signal') this.#abort()
      else if (way === 'close()') this.#close(running, process)
      else this.#carrier?.end()
    })
  }

  get #now(): number {
    return this.options.machine.loop.now
  }

  #close(running: Running, process: Process): void {
    const { machine, name, report } = this.options
    const { linger = 30 } = this.config as { linger?: number }
    const since = this.#now
    const settle = this.debts.owe('close()')
    void running.close().then(() => {
      settle()
      if (process.isOver) return
      const ms = this.#now - Math.max(since, machine.frozenUntil)
      if (ms > linger * 1000 + CLOSE_GRACE_MS) report(`${name}: close() took ${ms} ms, linger is ${linger} s`)
    })
  }

  protected override async run(process: Process, runtime: SimulatedRuntime): Promise<void> {
    this.#running = undefined
    this.#isClosing = false
    process.onEnd(() => {
      this.#running = undefined
      this.debts.forgive()
    })
    await this.#create(process, runtime)
  }

  async #create(process: Process, runtime: SimulatedRuntime): Promise<void> {
    const settle = this.debts.owe('a start')
    const controller = new AbortController()
    try {
      const running = await this.#make(process, runtime, controller.signal)
      this.#running = running
      this.#isClosing = false
      this.#abort = () => controller.abort(new Enough('aborted by a signal'))
      this.#watch(running, process, runtime)
    } catch (error) {
      if (/EADDRINUSE/.test(messageOf(error))) this.options.report(`${this.name}: ${messageOf(error)}`)
      this.failed(process, runtime, error)
    } finally {
      settle()
    }
  }

  #make(process: Process, runtime: SimulatedRuntime, signal: AbortSignal): Promise<Running> {
    const { kind, carrier } = this.role
    const library = makeLibrary<AnyStream>({
      runtime: () => runtime.spreadable,
      crypto: this.options.crypto,
      sharesMemory: true,
      // in turn, as the runtimes do
      streamOf: (channel: Channel, address) => (this.#streams++ % 2 === 0 ? streamOf : webStreamOf)(channel, address),
    })
    const print = (text: string): void => runtime.print('stdout', text)
    const logger: Logger = { error: print, warn: print, info: print, debug: print }
    if (kind === 'tunnel') return library.createTunnel({ config: structuredClone(this.config), logger, signal })
    const transport = carrier?.(process)
    this.#carrier = transport
    const options = { ...this.config, logger, signal, ...(transport && { transport }) }
    if (kind === 'client') return library.createClient(options)
    return library.createServer(options, (stream) => this.#serve(stream, process))
  }

  /** Whatever ended it: it is started again. */
  #watch(running: Running, process: Process, runtime: SimulatedRuntime): void {
    const { name, report } = this.options
    let closes = 0
    let isUp: boolean | undefined
    const onState = (state: boolean): void => {
      if (isUp === state) report(`${name}: the event ${state ? 'up' : 'down'} twice`)
      isUp = state
    }
    running.on('up', () => onState(true)).on('down', () => onState(false))
    running.on('close', () => {
      if (++closes > 1) report(`${name}: the event close twice`)
    })
    const onEnd = (error?: unknown): void => {
      if (process.isOver) return
      if (!this.#isClosing) runtime.print('stdout', `it closed by itself: ${messageOf(error)}`)
      this.#isClosing = true
      this.#running = undefined
      this.onClosed()
      process.at(Math.max(this.#now + 1, this.#resumeAt), () => void this.#create(process, runtime))
    }
    running.closed.then(onEnd, onEnd)
    const look = (): void => {
      if (this.#running !== running) return
      running.stats()
      this.#carrier?.look()
      process.at(this.#now + LOOK_MS, look)
    }
    look()
  }

  /** Bounds of what waits for applications. */
  checkBounds(): void {
    for (const connection of this.#connections) {
      if (connection.isSilent) this.#connections.delete(connection)
      else connection.checkBounds()
    }
    const { held } = this.endpoint?.driver.streams ?? {}
    const channels: number = this.#channels.size
    if (held !== undefined && this.role.kind !== 'tunnel' && held.toTcp > channels * CHANNEL_BYTES)
      this.options.report(`${this.name}: ${held.toTcp} bytes wait for ${channels} streams`)
  }

  get #channels(): ReadonlySet<unknown> {
    return (this.#running && Reflect.get(this.#running, 'channels')) ?? new Set()
  }

  /** What is left when all streams have ended. */
  remains(): string[] {
    const { debts, name } = this
    const left = debts.open.map((what) => `${name}: ${what} is still to come`)
    if (this.#channels.size > 0) left.push(`${name}: ${this.#channels.size} channels are left`)
    return left
  }

  readonly #did = (act: Act): void => void this.acts.add(act)

  #around(process: Process) {
    const scheduler: Scheduler = { in: (ms, run) => process.at(this.#now + ms, run) }
    const { report } = this.options
    const running = this.#running
    const isClosing = (): boolean => this.#isClosing || this.#running !== running
    return { process, scheduler, debts: this.debts, report, did: this.#did, isClosing }
  }

  #connectionOf(stream: AnyStream, process: Process, fail?: (error: Error) => void): LibraryConnection {
    const around = this.#around(process)
    const connection =
      stream instanceof KcpStream ? new DuplexConnection(around, stream, fail) : new WebConnection(around, stream)
    connection.isGreedy = this.role.isGreedy
    this.#connections.add(connection)
    return connection
  }

  /** The handler of streams: every other one fails in place of a reset. */
  #serve(stream: AnyStream, process: Process): unknown {
    let fail: ((error: Error) => void) | undefined
    let result: Promise<void> | undefined
    if (this.#streams % 4 < 2) {
      result = new Promise((_, reject) => {
        fail = reject
      })
    }
    const connection = this.#connectionOf(stream, process, fail)
    process.call(() => {
      connection.handlers = this.onStream(connection)
    })
    return result
  }

  /**
   * Client: opens a stream.
   * @param onOpen gets its connection, and gives its handlers
   * @param onFailed called if there is none; no other is called then
   */
  connect(opening: Opening, onOpen: (connection: Connection) => TcpHandlers, onFailed: () => void): void {
    const { process } = this
    let isSettled = false
    const failed = (): void => {
      if (isSettled) return
      isSettled = true
      onFailed()
    }
    if (process === undefined) {
      onFailed()
      return
    }
    process.onEnd(failed)
    process.at(this.#now, async () => {
      const around = { did: this.#did, report: this.options.report }
      try {
        const stream = await this.#open(opening, process)
        if (process.isOver) return
        const connection = this.#connectionOf(stream, process)
        isSettled = true
        process.call(() => {
          connection.handlers = onOpen(connection)
        })
      } catch (error) {
        if (this.#running !== undefined) checkCode(error, opening.call, around)
        if (!process.isOver) failed()
      }
    })
  }

  async #open({ call, patience }: Opening, process: Process): Promise<AnyStream> {
    const client = this.#running as Client<AnyStream> | undefined
    if (client === undefined) throw new Enough('it does not run')
    this.#did(call)
    if (this.endpoint?.driver.isPeerDown) this.#did('opened in an outage')
    if (call === 'open') return client.open()
    const controller = new AbortController()
    const settle = this.debts.owe('connect()')
    let isPending = true
    if (patience > 0)
      process.at(this.#now + patience, () => {
        if (isPending) this.#did('connect given up')
        controller.abort(new Enough('out of patience'))
      })
    return client.connect({ signal: controller.signal }).finally(() => {
      isPending = false
      settle()
    })
  }
}
