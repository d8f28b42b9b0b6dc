/** The snapshot of the simulator's quick tables: path and text. */
import { heading, line, summary } from './table.ts'
import { tables } from './tables.ts'

/** Relative to the project root. */
export const SNAPSHOT = 'bench/snapshots/sim.txt'
export const DEFAULT_SEED = 1

/** The quick tables as text; a change of the engine's transport policy changes it. */
export function quickText(seed = DEFAULT_SEED): string {
  const parts = tables({ seed, quick: true }).map((table) => {
    const rows = table.rows.map(({ label, run }) => ({ label, figures: run() }))
    return [...heading(table), ...rows.map((row) => line(table, row)), summary(table, rows), ''].join('\n')
  })
  return `bench sim --quick, seed ${seed}; * = target missed\n\n${parts.join('\n')}`
}
