/**
 * Helpers for benchmarks of pairs: interleaved runs, medians, ratios, numeric options, the JSON file.
 */
import { writeFileSync } from 'node:fs'
import { median } from './peers.ts'

/** The results of one column by run. */
export interface Series<T> {
  readonly column: string
  readonly runs: T[]
}

/** Runs a measurement of every column N times, alternating columns, so that changes of the machine affect all alike. */
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

/** Median of one figure over the runs. */
export const middle = <T>(series: Series<T>, of: (run: T) => number): number => median(series.runs.map(of))

/** `1.25x`, or `-` without a reference. */
export const ratio = (value: number, to: number): string => (to > 0 ? `${(value / to).toFixed(2)}x` : '-')

/**
 * Parses the number of option `--name`.
 * @throws Error if it is not above 0
 */
export function positive(name: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text)
  if (!(value > 0)) throw new Error(`--${name} ${text}: expected a number above 0`)
  return value
}

export function writeJson(path: string | undefined, content: object): void {
  if (path !== undefined) writeFileSync(path, `${JSON.stringify(content, undefined, 1)}\n`)
}
