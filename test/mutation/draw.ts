/**
 * A seeded sample of mutants. The operators take turns, so that rare and frequent ones have equal weight; the mutants
 * of an operator are ordered by a hash of the seed and their texts. So a sample depends only on the sources, the seed
 * and the count, and a change of the sources changes little of it. A mutant that does not compile is replaced by the
 * next of its group.
 */
import { createHash } from 'node:crypto'
import { OPERATORS } from './operators.ts'
import type { Mutant } from './sites.ts'

/** @returns the mutants in the order of the seed; equal texts in a file are distinguished by a count */
function sortBySeed(mutants: readonly Mutant[], seed: number): Mutant[] {
  const seen = new Map<string, number>()
  const keyed = mutants.map((mutant) => {
    const name = [seed, mutant.operator, mutant.file, mutant.original, mutant.mutated].join('\n')
    const count = seen.get(name) ?? 0
    seen.set(name, count + 1)
    return { mutant, key: createHash('sha256').update(`${name}\n${count}`).digest('hex') }
  })
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ mutant }) => mutant)
}

/**
 * Draws `count` groups of mutants. The first of a group that compiles is run.
 * @returns the groups; the same for the same mutants, seed and count
 */
export function draw(mutants: readonly Mutant[], seed: number, count: number): Mutant[][] {
  const operators = OPERATORS.filter((operator) => mutants.some((mutant) => mutant.operator === operator))
  const groups: Mutant[][] = Array.from({ length: count }, () => [])
  operators.forEach((operator, turn) => {
    const sorted = sortBySeed(
      mutants.filter((mutant) => mutant.operator === operator),
      seed,
    )
    const own = groups.filter((_, index) => index % operators.length === turn)
    // each mutant is in one group only
    sorted.forEach((mutant, index) => {
      own[index % own.length]?.push(mutant)
    })
  })
  return groups
}
