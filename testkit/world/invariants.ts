/** Invariants of the endpoints of a simulated world, after every event and when all streams have ended. */
import { COUNTERS } from '../../host/engine/abi.ts'
import type { Core } from '../../host/engine/core.ts'
import { LibraryProgram } from './library-program.ts'
import type { Violation } from './machine.ts'
import { EndpointProgram, type Program } from './program.ts'

const STATES = ['connect', 'established', 'linger', 'time_wait'] as const
/** Words of their gauges, whose upper halves are 0. */
const GAUGES = STATES.map((state) => [state, 2 * COUNTERS.indexOf(`sessions_${state}`)] as const)
/** Events between two checks of the gauges. */
const LOOK_EVENTS = 16
/** Tables double with the number of sessions and never shrink: bytes per slot, and bytes independent of slots. */
const SLOT_BYTES = 64
const OTHER_BYTES = 1024
const MIN_SLOTS = 16

export class Invariants {
  /** States in which sessions were seen. */
  readonly states = new Set<string>()
  readonly #programs: readonly EndpointProgram[]
  readonly #report: Violation
  /** Memory of each engine before its first session, and its largest number of sessions. */
  readonly #base = new WeakMap<Core, { readonly memory: number; sessions: number }>()
  #events = 0

  constructor(programs: readonly Program[], report: Violation) {
    this.#programs = programs.filter((program) => program instanceof EndpointProgram)
    this.#report = report
  }

  /** After every event. */
  check(): void {
    const isLook = this.#events++ % LOOK_EVENTS === 0
    for (const program of this.#programs) {
      program.checkTraps()
      if (isLook) this.#look(program)
      if (isLook && program instanceof LibraryProgram) program.checkBounds()
    }
  }

  #look(program: EndpointProgram): void {
    const core = liveCore(program)
    if (core === undefined) return
    let sessions = 0
    core.refresh()
    for (const [state, word] of GAUGES) {
      const count = core.u32[(core.statsPtr >>> 2) + word] ?? 0
      sessions += count
      if (count > 0) this.states.add(state)
    }
    const base = this.#base.get(core)
    if (base !== undefined) base.sessions = Math.max(base.sessions, sessions)
    else if (sessions === 0) this.#base.set(core, { memory: memoryUsed(core, nowOf(program)), sessions: 0 })
    const { held } = program.endpoint?.driver.streams ?? {}
    if (held !== undefined && (held.countedToTcp < 0 || held.countedFromTcp < 0)) {
      this.#report(`${program.name}: bytes held are ${held.countedToTcp} and ${held.countedFromTcp}`)
    }
  }

  /** What is left after all streams have ended and every timeout has passed. @returns violations */
  remains(): string[] {
    return this.#programs.flatMap((program) => {
      const core = liveCore(program)
      if (core === undefined) return [`${program.name} does not run: ${program.lines.at(-1)}`]
      const found: string[] = []
      for (const state of STATES) {
        const count = Number(core.counter(`sessions_${state}`))
        if (count > 0) found.push(`${program.name}: ${count} sessions are still in ${state}`)
      }
      const base = this.#base.get(core)
      const more = base === undefined ? 0 : memoryUsed(core, nowOf(program)) - base.memory
      const sessions = base?.sessions ?? 0
      const slots = 2 ** Math.ceil(Math.log2(Math.max(sessions, MIN_SLOTS)))
      if (more < 0 || more > slots * SLOT_BYTES + OTHER_BYTES) {
        found.push(`${program.name}: ${more} bytes are not freed after ${sessions} sessions`)
      }
      if (program instanceof LibraryProgram) found.push(...program.remains())
      return found
    })
  }
}

function liveCore(program: EndpointProgram): Core | undefined {
  const driver = program.endpoint?.driver
  return driver === undefined || driver.dead ? undefined : driver.core
}

function nowOf(program: EndpointProgram): number {
  return program.endpoint?.driver.now() ?? 0
}

/** @param now time of the program's engine, whose clock must not jump */
function memoryUsed(core: Core, now: number): number {
  core.calls.refresh_gauges(now)
  return Number(core.counter('memory_used'))
}
