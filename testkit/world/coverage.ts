/** What a number of simulated worlds reached together: a fault, a key or a role that none of them reached is not tested. */
import { FAULT_KINDS } from './faults.ts'
import { RELOADS } from './reloads.ts'
import { TOPOLOGIES } from './scenario.ts'

/** What one world reached, as it crosses from process to process. */
export interface Reached {
  readonly topology: string
  readonly kinds: readonly string[]
  readonly reloaded: readonly string[]
  readonly states: readonly string[]
}

export class Coverage {
  readonly #seen = new Set<string>()

  add({ topology, kinds, reloaded, states }: Reached): void {
    this.#seen.add(`role ${topology}`)
    for (const kind of kinds) this.#seen.add(`fault ${kind}`)
    for (const first of kinds) for (const second of kinds) if (first < second) this.#seen.add(pair(first, second))
    for (const key of reloaded) this.#seen.add(`reload of ${key}`)
    for (const state of states) this.#seen.add(`state ${state}`)
  }

  /** What nothing reached: there must be none in a long run. */
  missing(): string[] {
    const kinds = [...FAULT_KINDS].sort()
    return [
      ...TOPOLOGIES.map((topology) => `role ${topology}`),
      ...kinds.map((kind) => `fault ${kind}`),
      ...kinds.flatMap((first, i) => kinds.slice(i + 1).map((second) => pair(first, second))),
      ...Object.keys(RELOADS).map((key) => `reload of ${key}`),
      ...['connect', 'established', 'linger', 'time_wait'].map((state) => `state ${state}`),
    ].filter((wanted) => !this.#seen.has(wanted))
  }
}

const pair = (first: string, second: string): string => `faults ${first} and ${second}`
