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

/** A figure of a table: three digits or more above 100; `-` for none. */
export function show(value: number, digits = 1): string {
  return Number.isNaN(value) ? '-' : value >= 100 ? value.toFixed(0) : value.toFixed(digits)
}

/** Load of a link emulator, as a share of a core, and delay beyond the due time, ms, above which it may have limited. */
const EMULATOR_BUSY = 0.9
const EMULATOR_LATE_MS = 20

/** What a link emulator's load and longest delay say about a measurement. */
export function emulatorRemarks(load: number, lateMs: number): string[] {
  const text: string[] = []
  if (load > EMULATOR_BUSY) text.push(`EMULATOR LIMIT: ${Math.round(load * 100)} % of a core`)
  if (lateMs > EMULATOR_LATE_MS) text.push(`emulator up to ${Math.round(lateMs)} ms late`)
  return text
}

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
