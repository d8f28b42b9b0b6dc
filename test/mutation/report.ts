/** The output of `npm run mutation`: a line for each mutant, and the shares caught. */
import { dirname } from 'node:path'
import type { Mutant } from './sites.ts'
import type { Finding } from './suites.ts'

export interface Equivalent {
  readonly file: string
  readonly operator: string
  readonly original: string
  readonly mutated: string
  /** Why no test can detect it. */
  readonly reason: string
}

export interface Result {
  readonly mutant: Mutant
  readonly finding: Finding | 'equivalent'
}

/** @returns the entry for a mutant that is known to have no effect visible to a user or a peer */
export function findEquivalent(list: readonly Equivalent[], mutant: Mutant): Equivalent | undefined {
  return list.find(
    ({ file, operator, original, mutated }) =>
      file === mutant.file &&
      operator === mutant.operator &&
      original === mutant.original &&
      mutated === mutant.mutated,
  )
}

export function mutantLine({ operator, file, line, original, mutated }: Mutant): string {
  return `${operator}  ${file}:${line}  ${original} -> ${mutated}`
}

export function resultLine({ mutant, finding }: Result): string {
  if (finding === 'equivalent') return `equivalent  ${mutantLine(mutant)}`
  const state = finding.by === undefined ? 'MISSED' : `caught by ${finding.by}`
  const doubt = finding.unsteady.length > 0 ? ` (unsteady: ${finding.unsteady.join(', ')})` : ''
  return `${mutantLine(mutant)}  ${state}${doubt}`
}

function shares(results: readonly Result[], groupOf: (mutant: Mutant) => string): string[] {
  const groups = new Map<string, { caught: number; all: number }>()
  for (const { mutant, finding } of results) {
    if (finding === 'equivalent') continue
    const group = groups.get(groupOf(mutant)) ?? { caught: 0, all: 0 }
    group.all++
    if (finding.by !== undefined) group.caught++
    groups.set(groupOf(mutant), group)
  }
  return [...groups].sort().map(([name, { caught, all }]) => `  ${name.padEnd(24)} ${caught} of ${all}`)
}

const counted = (results: readonly Result[]): Finding[] =>
  results.flatMap(({ finding }) => (finding === 'equivalent' ? [] : [finding]))

const caught = (findings: readonly Finding[]): number => findings.filter(({ by }) => by !== undefined).length

/** @returns percent of the mutants that are not equivalent; 0 when none was run */
export function shareCaught(results: readonly Result[]): number {
  const all = counted(results)
  return all.length === 0 ? 0 : (100 * caught(all)) / all.length
}

/** @returns lines with the share caught in all, by operator and by room; equivalent mutants are not counted */
export function summary(results: readonly Result[]): string[] {
  const all = counted(results)
  return [
    'by operator:',
    ...shares(results, ({ operator }) => operator),
    'by room:',
    ...shares(results, ({ file }) => dirname(file)),
    `${caught(all)} of ${all.length} caught, ${shareCaught(results).toFixed(1)} %; ${results.length - all.length} equivalent`,
  ]
}
