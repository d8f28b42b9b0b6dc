/**
 * What the benchmarks of pairs share: runs that take turns, medians, ratios, numbers from the command line, the JSON file.
 */
import { writeFileSync } from 'node:fs'
import { median } from './peers.ts'

/** The results of one column, run by run. */
export interface Series<T> {
  readonly column: string
  readonly runs: T[]
}

/** Runs a measurement of every column N times, column by column, so that all see the same changes of the machine. */
export async function interleaved<T>(
  columns: readonly string[],
  runs: number,
  measure: (column: string) => Promise<T>,
): Promise<Series<T>[]> {
  const series = columns.map((column) => ({ column, runs: [] as T[] }))
  for (let run = 0; run < runs; run++) {
    for (const { column, runs: results } of series) {
      console.error(`run ${run + 1}/${runs} ${column}`)
      results.push(await measure(column))
    }
  }
  return series
}

/** Median of one figure of the runs. */
export const middle = <T>(series: Series<T>, of: (run: T) => number): number => median(series.runs.map(of))

/** `1.25x`, or `-` without anything to compare to. */
export const ratio = (value: number, to: number): string => (to > 0 ? `${(value / to).toFixed(2)}x` : '-')

/** The number of option `--name`. @throws Error for one that is not above 0 */
export function positive(name: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text)
  if (!(value > 0)) throw new Error(`--${name} ${text}: a number above 0 is wanted`)
  return value
}

export function writeJson(path: string | undefined, content: object): void {
  if (path !== undefined) writeFileSync(path, `${JSON.stringify(content, undefined, 1)}\n`)
}
