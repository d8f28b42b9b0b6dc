/** The snapshot of the simulator's quick tables: its place and how its text is made. */
import { heading, line, summary } from './table.ts'
import { tables } from './tables.ts'

/** Relative to the project. */
export const SNAPSHOT = 'bench/snapshots/sim.txt'
export const DEFAULT_SEED = 1

/** The quick tables as text; a change of the engine's policies shows as a difference. */
export function quickText(seed = DEFAULT_SEED): string {
  const parts = tables({ seed, quick: true }).map((table) => {
    const rows = table.rows.map(({ label, run }) => ({ label, figures: run() }))
    return [...heading(table), ...rows.map((row) => line(table, row)), summary(table, rows), ''].join('\n')
  })
  return `bench sim --quick, seed ${seed}; * = target missed\n\n${parts.join('\n')}`
}
