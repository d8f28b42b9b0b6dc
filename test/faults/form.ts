/**
 * The two forms of these tests: the short one of every test run, and the long one of `npm run check:long`
 * (`node test/run.mjs faults/ --long`).
 */
import { randomNumbers } from '../../testkit/link.ts'
import { httpGet, type Program, type Running } from '../../testkit/process.ts'
import { nameOf, type TunnelOptions } from '../../testkit/tunnel.ts'

export const isLong = process.env['TEST_LONG'] === '1'

/** The short or the long value. */
export const form = <T>(short: T, long: T): T => (isLong ? long : short)

/** A figure that the runner shows. */
export const note = (text: string): void => console.log(`\nnote: ${text}`)

/** Seeded by FAULTS_SEED, else by the time of day. The seed is printed, for a repetition. */
export function seededRandom(what: string): () => number {
  const seed = Number(process.env['FAULTS_SEED'] ?? Date.now() % 1_000_000)
  note(`${what}: FAULTS_SEED=${seed}`)
  return randomNumbers(seed)
}

export type Role = 'server' | 'client'
export const ROLES: readonly Role[] = ['server', 'client']

type Cell = Pick<TunnelOptions, 'server' | 'client' | 'family' | 'config'> & {
  readonly server: Program
  readonly client: Program
}

/** Each runtime in each role, on the fast and on the portable UDP path, over both families; the short form has half. */
export const CELLS: readonly Cell[] = [
  { server: 'node', client: 'bun', family: 4, config: { udp: { path: 'auto' } } },
  { server: 'bun', client: 'node', family: 6, config: { udp: { path: 'portable' } } },
  { server: 'bun', client: 'node', family: 4, config: { udp: { path: 'auto' } } },
  { server: 'node', client: 'bun', family: 6, config: { udp: { path: 'portable' } } },
].slice(0, form(2, 4)) as Cell[]

/** Name of a cell for test titles. */
export function cellName(cell: Cell): string {
  const udp = cell.config?.['udp']
  const path = typeof udp === 'object' && 'path' in udp ? udp['path'] : 'auto'
  return `${nameOf(cell)}, path ${path}`
}

export interface Figures {
  readonly counters: Readonly<Record<string, number>>
  readonly gauges: Readonly<Record<string, number>>
  readonly host: Readonly<Record<string, number>>
}

/** Where the figures of a program of ours are. */
export const figuresUrl = (end: Running): string => `http://${end.config['http_listen']}/stats.json?sessions=none`

export const figuresOf = async (end: Running): Promise<Figures> => JSON.parse(await httpGet(figuresUrl(end)))

/** Runs parts side by side, at most `most` at a time, and waits for all of them, also if one fails. */
export async function together(parts: readonly (() => Promise<void>)[], most = parts.length): Promise<void> {
  const queue = [...parts]
  const failures: string[] = []
  const work = async (): Promise<void> => {
    for (let part = queue.shift(); part; part = queue.shift()) {
      await part().catch((error: unknown) => failures.push(error instanceof Error ? error.message : String(error)))
    }
  }
  await Promise.all(Array.from({ length: most }, work))
  if (failures.length > 0) throw new Error(failures.join('\n\n'))
}
