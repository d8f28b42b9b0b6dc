/** The combinations of runtimes that end-to-end tests cover. */
import type { Program } from './process.ts'

export interface Pair {
  readonly server: Program
  readonly client: Program
}

/** Every combination. */
export const ALL_PAIRS: readonly Pair[] = [
  { server: 'node', client: 'node' },
  { server: 'node', client: 'bun' },
  { server: 'bun', client: 'node' },
  { server: 'bun', client: 'bun' },
]

/** Each runtime once at each end. */
export const MIXED_PAIRS: readonly Pair[] = [
  { server: 'node', client: 'bun' },
  { server: 'bun', client: 'node' },
]

export const RUNTIMES: readonly Program[] = ['node', 'bun']
