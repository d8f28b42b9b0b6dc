/** Coverage of a number of simulated worlds: faults, keys and roles reached by any of them. */
import { FAULT_KINDS } from './faults.ts'
import { ACTS } from './library-connection.ts'
import { RELOADS } from './reloads.ts'
import { TOPOLOGIES } from './scenario.ts'

/** Coverage of one world, serializable between processes. */
export interface Reached {
  readonly topology: string
  readonly kinds: readonly string[]
  readonly reloaded: readonly string[]
  readonly states: readonly string[]
  /** What applications did with the library, and its errors. */
  readonly acts: readonly string[]
}

export class Coverage {
  readonly #seen = new Set<string>()

  add({ topology, kinds, reloaded, states, acts }: Reached): void {
    this.#seen.add(`role ${topology}`)
    for (const kind of kinds) this.#seen.add(`fault ${kind}`)
    for (const first of kinds) for (const second of kinds) if (first < second) this.#seen.add(pair(first, second))
    for (const key of reloaded) this.#seen.add(`reload of ${key}`)
    for (const state of states) this.#seen.add(`state ${state}`)
    for (const act of acts) this.#seen.add(`library: ${act}`)
  }

  /** Items not reached; must be empty in a long run. */
  missing(): string[] {
    const kinds = [...FAULT_KINDS].sort()
    return [
      ...TOPOLOGIES.map((topology) => `role ${topology}`),
      ...kinds.map((kind) => `fault ${kind}`),
      ...kinds.flatMap((first, i) => kinds.slice(i + 1).map((second) => pair(first, second))),
      ...Object.keys(RELOADS).map((key) => `reload of ${key}`),
      ...['connect', 'established', 'linger', 'time_wait'].map((state) => `state ${state}`),
      ...ACTS.map((act) => `library: ${act}`),
    ].filter((wanted) => !this.#seen.has(wanted))
  }
}

const pair = (first: string, second: string): string => `faults ${first} and ${second}`
