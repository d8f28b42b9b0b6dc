/**
 * Breadth-first search through all states that a scenario allows. From each of them the network is healed, the
 * applications finish and time passes: every session must end without a violation.
 */
import { checkQuiet } from './checks.ts'
import { hashWords } from './hash.ts'
import type { Scenario } from './scenario.ts'
import type { Action, Budgets, State } from './state.ts'
import { Violation } from './state.ts'
import { IDLE_TICKS, World } from './world.ts'

/** Steps after which everything must have ended. */
const HEALING_MAX = 600

export interface Result {
  readonly scenario: Scenario
  readonly states: number
  readonly transitions: number
  readonly depth: number
  readonly seconds: number
  /** Bit masks of the states and flags of all sessions. */
  readonly reached: { readonly states: number; readonly flags: number }
  /** The scenario was explored completely. */
  readonly isComplete: boolean
  readonly failure: { readonly text: string; readonly actions: readonly Action[] } | undefined
}

export interface Limits {
  /** Heals every state to the end, instead of to a state that is known to end without a violation. */
  readonly isThorough?: boolean
  readonly states?: number
  readonly seconds?: number
}

/** @returns the actions possible in the state loaded in `world` */
export function enabled(world: World): Action[] {
  const { scenario, budgets, net, streams } = world
  const actions: Action[] = []
  const seen = new Set<number>()
  net.forEach(({ hash, isHeld, isCopy }, index) => {
    const key = hash * 4 + (isHeld ? 2 : 0) + (isCopy ? 1 : 0)
    if (seen.has(key)) return
    seen.add(key)
    actions.push({ kind: 'deliver', index })
    if (isHeld) return
    if (budgets.losses > 0) actions.push({ kind: 'lose', index })
    if (budgets.duplicates > 0) actions.push({ kind: 'duplicate', index })
    if (budgets.holds > 0) actions.push({ kind: 'hold', index })
  })
  const inFlight = net.filter(({ isHeld }) => !isHeld).length
  if (inFlight < scenario.inFlight) {
    for (const index of streams.keys()) addApplication(world, index, actions)
  }
  if (inFlight === 0 && mayWait(world)) actions.push({ kind: 'wait' })
  if (budgets.migrations > 0) actions.push({ kind: 'migrate' })
  if (budgets.serverRestarts > 0) actions.push({ kind: 'restart', side: 'server' })
  if (budgets.clientRestarts > 0) actions.push({ kind: 'restart', side: 'client' })
  return actions
}

function addApplication({ scenario, budgets, streams }: World, index: number, actions: Action[]): void {
  const stream = streams[index]
  if (!stream || stream.end) return
  if (stream.isDialling) {
    actions.push({ kind: 'connect', index })
    if (budgets.aborts > 0) actions.push({ kind: 'refuse', index })
    return
  }
  const most = stream.side === 'client' ? scenario.clientBytes : scenario.serverBytes
  if (!stream.isShut && stream.written < most) actions.push({ kind: 'write', index })
  if (!stream.isShut) actions.push({ kind: 'shut', index })
  if (stream.isReadable) actions.push({ kind: 'read', index })
  if (budgets.aborts > 0) actions.push({ kind: 'abort', index })
}

function mayWait(world: World): boolean {
  const { client, server } = world.machines
  if (client.sessions + server.sessions === 0) return false
  return world.isFinished || world.budgets.idles > 0 || world.wait < IDLE_TICKS
}

/** @returns the next action while everything heals; undefined when none is left */
function healing(world: World): Action | undefined {
  const { net, streams, machines } = world
  if (net.length > 0) return { kind: 'deliver', index: 0 }
  for (const [index, stream] of streams.entries()) {
    if (stream.end) continue
    if (stream.isDialling) return { kind: 'connect', index }
    if (stream.isReadable) return { kind: 'read', index }
    if (!stream.isShut) return { kind: 'shut', index }
  }
  return machines.client.sessions + machines.server.sessions > 0 ? { kind: 'wait' } : undefined
}

const budgetWords = (budgets: Readonly<Budgets>): number[] => Object.values(budgets)

export class Search {
  readonly world: World
  readonly #limits: Limits
  readonly #seen = new Set<number>()
  /** Hashes, without fault budgets, of states that end without a violation. */
  readonly #good = new Set<number>()
  readonly #parents: number[] = []
  readonly #actions: (Action | undefined)[] = []
  #transitions = 0
  #base = { client: Infinity, server: Infinity }

  constructor(module: WebAssembly.Module, scenario: Scenario, limits: Limits = {}, plant = 0) {
    this.world = new World(module, scenario, plant)
    this.#limits = limits
  }

  run(): Result {
    const started = performance.now()
    const seconds = (): number => (performance.now() - started) / 1000
    const { world } = this
    const { scenario } = world
    let depth = 0
    let isComplete = true
    let failure: Result['failure']
    let frontier: { id: number; state: State }[] = []
    let id = 0
    let done: Action[] = []
    try {
      const state = world.start()
      this.#add(-1, undefined)
      done = []
      this.#warmUp(state, done)
      frontier.push({ id: 0, state })
      search: while (frontier.length > 0) {
        const next: { id: number; state: State }[] = []
        for (const entry of frontier) {
          id = entry.id
          done = []
          this.#heal(entry.state, done)
          done = []
          world.load(entry.state)
          for (const action of enabled(world)) {
            done = [action]
            world.load(entry.state)
            world.apply(action)
            this.#transitions++
            if (this.#isNew()) next.push({ id: this.#add(entry.id, action), state: world.save() })
          }
          const { states, seconds: most } = this.#limits
          if (this.#parents.length >= (states ?? Infinity) || seconds() > (most ?? Infinity)) {
            isComplete = false
            break search
          }
        }
        if (next.length > 0) depth++
        frontier = next
      }
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      isComplete = false
      failure = { text: error.message, actions: [...this.#path(id), ...done] }
    }
    const { length: states } = this.#parents
    const transitions = this.#transitions
    const { reached } = world
    return { scenario, states, transitions, depth, seconds: seconds(), reached, isComplete, failure }
  }

  #add(parent: number, action: Action | undefined): number {
    this.#parents.push(parent)
    this.#actions.push(action)
    return this.#parents.length - 1
  }

  #isNew(): boolean {
    const { world } = this
    const key = hashWords(budgetWords(world.budgets), world.hash)
    if (this.#seen.has(key)) return false
    this.#seen.add(key)
    return true
  }

  #path(id: number): Action[] {
    const list: Action[] = []
    for (let at = id; at >= 0; at = this.#parents[at] ?? -1) {
      const action = this.#actions[at]
      if (action) list.unshift(action)
    }
    return list
  }

  /** Runs two sessions in succession: memory use after the first is the base that the second must not exceed. */
  #warmUp(state: State, done: Action[]): void {
    const { world } = this
    world.load(state)
    this.#pass(done)
    this.#base = { client: world.machines.client.memoryUsed, server: world.machines.server.memoryUsed }
    done.push({ kind: 'open' })
    world.open()
    this.#pass(done)
    this.#good.clear()
  }

  /** Heals `state` to the end; the steps are appended to `done`. @throws Violation */
  #heal(state: State, done: Action[]): void {
    this.world.load(state)
    this.#pass(done)
  }

  #pass(done: Action[]): void {
    const { world } = this
    const passed: number[] = []
    for (;;) {
      const { hash } = world
      if (this.#good.has(hash) && !this.#limits.isThorough) break
      passed.push(hash)
      const action = healing(world)
      if (!action) {
        this.#checkEnd()
        break
      }
      if (done.length >= HEALING_MAX) throw new Violation(`no end after ${HEALING_MAX} steps without faults`)
      done.push(action)
      world.apply(action)
    }
    for (const hash of passed) this.#good.add(hash)
  }

  #checkEnd(): void {
    const { world } = this
    checkQuiet(world)
    for (const side of ['client', 'server'] as const) {
      const more = world.machines[side].memoryUsed - this.#base[side]
      if (more > 0) throw new Violation(`the ${side} holds ${more} bytes more than after a session without faults`)
    }
  }
}

/** @returns a log of the given actions */
export function trace(module: WebAssembly.Module, scenario: Scenario, actions: readonly Action[], plant = 0): string[] {
  const world = new World(module, scenario, plant)
  const log: string[] = []
  world.log = log
  try {
    world.load(world.start())
    for (const action of actions) {
      log.push(`${((world.now - 80_000) / 8).toFixed(1)} ms: ${textOf(action, world)}`)
      world.apply(action)
    }
    checkQuiet(world)
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    log.push(`  VIOLATION: ${error.message}`)
  }
  return log
}

function textOf(action: Action, world: World): string {
  if ('side' in action) return `${action.kind} ${action.side}`
  if (!('index' in action)) return action.kind
  const stream = world.streams[action.index]
  const datagram = world.net[action.index]
  const isNetwork = ['deliver', 'lose', 'duplicate', 'hold'].includes(action.kind)
  if (isNetwork) return `${action.kind} ${datagram ? world.textOf(datagram) : '?'}`
  return `${action.kind}, ${stream?.side} stream ${stream?.number}`
}
