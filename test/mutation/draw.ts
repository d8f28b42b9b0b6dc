/**
 * A seeded draw of mutants. The operators take turns, so that a rare one counts as much as a frequent one; the places of an
 * operator are shuffled by the seed. A place that turns out not to compile is replaced by the next of the same hand, so the
 * draw depends on the sources, the seed and the count alone.
 */
import { OPERATORS } from './operators.ts'
import type { Mutant } from './sites.ts'

/** A generator of numbers in [0, 1): mulberry32. */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const shuffled = [...items]
  for (let at = shuffled.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1))
    const item = shuffled[at] as T
    shuffled[at] = shuffled[other] as T
    shuffled[other] = item
  }
  return shuffled
}

/**
 * Draws `count` hands of mutants. The first of a hand that compiles is run.
 * @returns hands; the same for the same mutants, seed and count
 */
export function draw(mutants: readonly Mutant[], seed: number, count: number): Mutant[][] {
  const random = generator(seed)
  const operators = OPERATORS.filter((operator) => mutants.some((mutant) => mutant.operator === operator))
  const hands: Mutant[][] = Array.from({ length: count }, () => [])
  operators.forEach((operator, turn) => {
    const places = shuffle(
      mutants.filter((mutant) => mutant.operator === operator),
      random,
    )
    const own = hands.filter((_, index) => index % operators.length === turn)
    // dealt like cards: a place is in one hand only
    places.forEach((place, index) => {
      own[index % own.length]?.push(place)
    })
  })
  return hands
}
