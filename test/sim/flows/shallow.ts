/** A link with a queue that the RTT does not show, and hosts that wake late. */
import type { Shape } from '../../../testkit/sim/flows/bottleneck.ts'
import type { Random } from '../../../testkit/sim/random.ts'

/** 100 Mbit/s, 50 ms; the queue holds 2.6 ms. */
export const SHALLOW: Shape = { rate: 100e6, delay: 25, queueBytes: 32_000 }

/**
 * Ticks by which the host of an engine wakes late, as measured on machines that others use: mostly below 0.25 ms, one in
 * 70 times up to 5 ms, rarely more.
 */
export function lateness(random: Random): number {
  const rank = random.unit()
  if (rank < 0.7) return random.between(0, 2)
  if (rank < 0.985) return random.between(2, 14)
  return rank < 0.9985 ? random.between(14, 44) : random.between(60, 160)
}
