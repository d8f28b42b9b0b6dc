/**
 * A simulated world: whole endpoints (engine, driver, transport, resolver, reload) on machines of a virtual network, applications
 * that use the tunnel, faults and attackers, and what must hold whatever happens.
 */
import type { RuntimeCrypto } from '../../host/crypto/open.ts'
import { openAead } from '../../host/crypto/open.ts'
import { Random } from '../sim/random.ts'
import { Attacker } from './attacker.ts'
import { EventLoop } from './event-loop.ts'
import { FAULTS, type FaultKind } from './faults.ts'
import { Invariants } from './invariants.ts'
import { LibraryProgram } from './library-program.ts'
import type { Machine } from './machine.ts'
import { ModelProgram } from './model-program.ts'
import { type Conditions, ipv4, Network } from './network.ts'
import { EndpointProgram, Program } from './program.ts'
import { seedRandomSource } from './random-source.ts'
import { changed } from './reloads.ts'
import { limitReplayFilter } from './replay-filter.ts'
import type { Scenario, StreamPlan } from './scenario.ts'
import { type Stream, Streams } from './streams.ts'
import { TcpPorts } from './tcp.ts'
import { type EndName, keyBytes, makeParties, type Parties, RENDEZVOUS, TARGETS } from './topology.ts'

/** After the last fault every stream is over within this time, ms: a session may wait for its `timeout`, then come again. */
const HEAL_MS = 1_500_000
/** A stream that begins this long after the last fault is complete before its own limit, ms. */
const PROBE_DELAY_MS = 120_000
const PROBE_LIMIT_MS = 120_000
/** When nothing is left of the sessions: `timeout`, `linger` and `time_wait` at their longest, and their check intervals, ms. */
const QUIET_MS = 800_000
const REMAINS_CHECKS = 4
const REMAINS_PAUSE_MS = 3000
/** Violations kept of one run: the first ones matter. */
const VIOLATIONS_MAX = 5

limitReplayFilter()

/** Runs the world for some time, or until something is done. */
type Run = (ms: number, isDone: () => boolean) => Promise<void>

/** What one run reached. */
export interface Result {
  readonly violations: readonly string[]
  readonly kinds: ReadonlySet<FaultKind>
  /** Keys that a running endpoint took over. */
  readonly reloaded: ReadonlySet<string>
  readonly states: ReadonlySet<string>
  /** What applications did with the library. */
  readonly acts: ReadonlySet<string>
  readonly streams: number
  /** Bytes of complete streams. */
  readonly bytes: number
  readonly attempts: number
  readonly events: number
  readonly datagrams: number
  /** End of the run in the time of the world, ms. */
  readonly time: number
  readonly logs: readonly string[]
}

export class World {
  readonly scenario: Scenario
  readonly loop = new EventLoop()
  readonly network: Network
  readonly attacker: Attacker
  readonly parties: Parties
  readonly streams: Streams
  readonly invariants: Invariants
  readonly #violations: string[] = []
  readonly #changes = new Set<Partial<Conditions>>()
  readonly #kinds = new Set<FaultKind>()
  readonly #reloaded = new Set<string>()
  readonly #addresses = { client: 1, server: 1 }
  #targets = 0
  #active = 0

  private constructor(scenario: Scenario, crypto: RuntimeCrypto, aead: Awaited<ReturnType<typeof openAead>>) {
    this.scenario = scenario
    const report = (text: string): void => this.#report(text)
    this.network = new Network(this.loop, new Random(scenario.seed ^ 0x6e_e7))
    this.network.conditions = scenario.conditions
    this.attacker = new Attacker(this.network, new Random(scenario.seed ^ 0xa7_7a), report)
    const tcp = new TcpPorts(this.loop)
    this.parties = makeParties(scenario, { loop: this.loop, network: this.network, tcp, crypto, aead, report })
    this.streams = new Streams({ loop: this.loop, tcp, parties: this.parties, report })
    for (const end of ['client', 'server'] as const) this.#spare(end)
    this.invariants = new Invariants(this.programs, report)
  }

  /** Sets up a scenario. */
  static async make(scenario: Scenario, crypto: RuntimeCrypto): Promise<World> {
    return new World(scenario, crypto, await openAead(scenario.method, keyBytes(), crypto))
  }

  get programs(): Program[] {
    const { client, server, rendezvous } = this.parties
    return [client, server, rendezvous].filter((program) => program instanceof Program)
  }

  #report(text: string): void {
    if (this.#violations.length < VIOLATIONS_MAX) this.#violations.push(`${this.loop.now.toFixed(3)} ms: ${text}`)
  }

  machineOf(end: EndName): Machine {
    return this.parties.machines[end]
  }

  programOf(end: EndName): Program | ModelProgram {
    return this.parties[end]
  }

  /** The attacker leaves a model alone. */
  #spare(end: EndName): void {
    if (this.parties[end] instanceof ModelProgram) this.attacker.spared.add(this.machineOf(end).address)
  }

  /** Changes the conditions of the links. @returns takes the change back */
  modify(change: Partial<Conditions>): () => void {
    this.#changes.add(change)
    this.#applyConditions()
    return () => {
      this.#changes.delete(change)
      this.#applyConditions()
    }
  }

  #applyConditions(): void {
    let conditions = this.scenario.conditions
    for (const change of this.#changes) conditions = { ...conditions, ...change }
    this.network.conditions = conditions
  }

  /** Another address; the name of a server follows. */
  moveMachine(end: EndName): void {
    const { network } = this
    const machine = this.machineOf(end)
    const number = ++this.#addresses[end]
    const fresh = end === 'client' ? `192.0.2.${number}` : `198.51.100.${number}`
    const nat = network.natOf(machine)
    if (nat === undefined) machine.address = fresh
    else {
      machine.address = end === 'client' ? `10.0.0.${1 + number}` : `10.1.0.${1 + number}`
      nat.address = fresh
      nat.rebind()
    }
    this.#spare(end)
    if (end === 'client') this.streams.onClientMoved()
    if (end === 'server') network.names.set('server.example', fresh)
  }

  /** The rendezvous server moves to the other address of its name. */
  moveRendezvous(): void {
    const [first, second] = RENDEZVOUS
    for (const machine of this.network.machines) {
      if (machine.name !== 'rendezvous') continue
      machine.address = machine.address === first ? second : first
    }
  }

  /** The target of `connect` is recreated at another address. */
  moveTarget(): void {
    const address = ipv4(`127.0.1.${++this.#targets}`, TARGETS[0].port)
    this.network.names.set('target.example', address.address)
    this.streams.moveTarget(address)
  }

  /** Changes the file of a program and reloads it, or starts it again where there is none. @returns brings the file back */
  reload(end: EndName, change: Readonly<Record<string, unknown>>): () => void {
    const program = this.programOf(end)
    if (!(program instanceof Program)) return () => {}
    if (!program.canReload) {
      program.stop(0)
      return () => {}
    }
    const { config } = program
    program.config = changed(config, change)
    program.reload()
    return () => {
      this.#noteReloaded(program, change)
      program.config = config
      program.reload()
    }
  }

  /** A key counts when the configuration in force has its value. */
  #noteReloaded(program: Program, change: Readonly<Record<string, unknown>>): void {
    const inForce = program.endpoint?.config
    if (inForce === undefined) return
    for (const [name, value] of Object.entries(change)) {
      const [group = '', key] = name.split('.')
      let found: unknown = Reflect.get(inForce, group)
      if (key !== undefined) found = Reflect.get(found as object, key)
      if (JSON.stringify(found) === JSON.stringify(value)) this.#reloaded.add(name)
    }
  }

  freeze(end: EndName, ms: number): void {
    const machine = this.machineOf(end)
    machine.frozenUntil = Math.max(machine.frozenUntil, this.loop.now + ms)
  }

  /** Lowers the engine's ceiling of memory. @returns brings it back */
  lowerCeiling(end: EndName, bytes: number): () => void {
    const program = this.programOf(end)
    if (!(program instanceof EndpointProgram)) return () => {}
    return program.lowerCeiling(bytes)
  }

  /** Stops or resumes a share of the applications. */
  stopApps(isStopped: boolean, share: number): void {
    let index = 0
    for (const application of this.streams.living) {
      if (!isStopped || (index++ * 0.618) % 1 < share) application.stop(isStopped)
    }
  }

  /** Runs the scenario to its end. */
  async run(): Promise<Result> {
    seedRandomSource(new Random(this.scenario.seed ^ 0xe4_70))
    const uncaught = (error: unknown): void => this.#report(`uncaught: ${error instanceof Error ? error.stack : error}`)
    process.on('uncaughtException', uncaught).on('unhandledRejection', uncaught)
    try {
      await this.#run()
    } finally {
      for (const program of this.programs) program.end()
      seedRandomSource(undefined)
      process.off('uncaughtException', uncaught).off('unhandledRejection', uncaught)
    }
    return this.#result()
  }

  #start(): void {
    const { parties, scenario } = this
    parties.rendezvous?.start()
    parties.server.start()
    parties.client.start()
    for (const [index, plan] of scenario.streams.entries()) this.streams.add(`stream ${index}`, plan)
    for (const plan of scenario.faults) {
      this.#active++
      this.loop.at(plan.at, () => {
        const undo = FAULTS[plan.kind](this, plan)
        this.#kinds.add(plan.kind)
        this.loop.in(plan.duration, () => {
          undo?.()
          this.#active--
        })
      })
    }
  }

  async #run(): Promise<void> {
    const { loop, streams, invariants } = this
    this.#start()
    const isBroken = (): boolean => this.#violations.length > 0
    const after = (): void => invariants.check()
    const run: Run = (ms, isDone) => loop.runUntil(loop.now + ms, () => isBroken() || isDone(), after)
    await run(Number.POSITIVE_INFINITY, () => this.#active === 0)
    if (isBroken()) return
    this.#heal()
    const thaw = Math.max(...Object.values(this.parties.machines).map(({ frozenUntil }) => frozenUntil))
    if (thaw > loop.now) await run(thaw - loop.now, () => false)
    const probe = this.#addProbe(await this.#afterDelay(run))
    await run(PROBE_LIMIT_MS, () => probe.isDone)
    if (!isBroken() && !probe.isDone) this.#report(`a stream opened ${PROBE_DELAY_MS} ms after the last fault is stuck`)
    await run(HEAL_MS, () => streams.isDone)
    if (isBroken()) return
    this.#checkStuck()
    streams.isClosed = true
    await run(QUIET_MS, () => false)
    await this.#checkRemains(run)
  }

  /** Looks more than once: at any moment a PING may be on its way. */
  async #checkRemains(run: Run): Promise<void> {
    let remains = this.invariants.remains()
    for (let i = 1; i < REMAINS_CHECKS && remains.length > 0; i++) {
      await run(REMAINS_PAUSE_MS, () => false)
      remains = this.invariants.remains()
    }
    for (const text of remains) this.#report(text)
  }

  async #afterDelay(run: Run): Promise<StreamPlan> {
    await run(PROBE_DELAY_MS, () => false)
    const plan = this.scenario.streams[0]
    if (plan === undefined) throw new Error('a scenario without streams')
    const calm = { readPause: 0, abortAt: -1, pause: 1 }
    return { at: 0, client: { ...plan.client, ...calm }, server: { ...plan.server, ...calm } }
  }

  #addProbe(plan: StreamPlan): Stream {
    return this.streams.add('probe', plan)
  }

  /** All faults are over. */
  #heal(): void {
    const { network } = this
    this.#changes.clear()
    network.conditions = { ...this.scenario.conditions, loss: 0, corrupt: 0 }
    network.isDark = false
    network.isNameServerDown = false
    network.isSendBufferFull = false
    this.attacker.isRacing = false
    this.stopApps(false, 1)
  }

  #checkStuck(): void {
    for (const application of this.streams.living) {
      const { name, sent, received, plan } = application
      this.#report(`${name} is stuck: ${sent} of ${plan.send} bytes sent, ${received} of ${plan.expect} received`)
    }
    for (const stream of this.streams.all) {
      if (!stream.isDone) this.#report(`${stream.name} was not completed in ${stream.attempts} attempts`)
    }
  }

  #result(): Result {
    const { streams, loop, network } = this
    const logs = this.programs.flatMap((program) => program.lines)
    return {
      violations: this.#violations,
      kinds: this.#kinds,
      reloaded: this.#reloaded,
      states: this.invariants.states,
      acts: new Set(this.programs.flatMap((program) => (program instanceof LibraryProgram ? [...program.acts] : []))),
      streams: streams.all.length,
      bytes: streams.all.reduce((sum, { bytes }) => sum + bytes, 0),
      attempts: streams.all.reduce((sum, { attempts }) => sum + attempts, 0),
      events: loop.count,
      datagrams: network.counts.sent,
      time: loop.now,
      logs,
    }
  }
}
