/**
 * A seeded draw of mutants. The operators take turns, so that a rare one counts as much as a frequent one; the order of the
 * places of an operator is that of a hash of the seed and their texts. So a draw depends on the sources, the seed and the
 * count alone, and a change of the sources changes little of it. A place that turns out not to compile is replaced by the
 * next of the same hand.
 */
import { createHash } from 'node:crypto'
import { OPERATORS } from './operators.ts'
import type { Mutant } from './sites.ts'

/** Mutants in the order of the seed. The same text may stand in a file more than once: those are counted. */
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
 * Draws `count` hands of mutants. The first of a hand that compiles is run.
 * @returns hands; the same for the same mutants, seed and count
 */
export function draw(mutants: readonly Mutant[], seed: number, count: number): Mutant[][] {
  const operators = OPERATORS.filter((operator) => mutants.some((mutant) => mutant.operator === operator))
  const hands: Mutant[][] = Array.from({ length: count }, () => [])
  operators.forEach((operator, turn) => {
    const places = sortBySeed(
      mutants.filter((mutant) => mutant.operator === operator),
      seed,
    )
    const own = hands.filter((_, index) => index % operators.length === turn)
    // dealt like cards: a place is in one hand only
    places.forEach((place, index) => {
      own[index % own.length]?.push(place)
    })
  })
  return hands
}
