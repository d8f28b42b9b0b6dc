/** Links by their figures, and options common to all tables of the simulator. */
import type { Shape } from './bottleneck.ts'
import type { Tuning } from './engine.ts'
import { baseRtt, PACKET_BYTES, type Result, type Scenario, simulate } from './scenario.ts'

export const MBIT = 1e6
const MIN_QUEUE_PACKETS = 16

export interface Options {
  readonly seed: number
  /** fewer cells, shorter runs */
  readonly quick: boolean
  /** default engine config */
  readonly tuning?: Tuning
  /** see Scenario */
  readonly timerTicks?: number
  /** called with every result, e.g. to measure the speed of the simulator */
  readonly observe?: (result: Result) => void
}

/** Bandwidth-delay product, bytes. */
function bdp(shape: Shape): number {
  return ((shape.rate ?? 0) * baseRtt(shape)) / 8
}

/** A shape with a rate. */
export type Link = Shape & { readonly rate: number }

/** A link by rate (Mbit/s), RTT (ms), loss (share) and queue (BDP, at least 16 packets). */
export function link(mbits: number, rtt: number, loss: number, queue: number): Link {
  const shape = { rate: mbits * MBIT, delay: rtt / 2, loss }
  return { ...shape, queueBytes: Math.max(MIN_QUEUE_PACKETS * PACKET_BYTES, Math.round(queue * bdp(shape))) }
}

function packetMs(shape: Shape): number {
  return (PACKET_BYTES * 8000) / (shape.rate ?? Infinity)
}

export const queueTarget = (shape: Shape, flows: number): number =>
  Math.max(500 * baseRtt(shape), 4 * flows * packetMs(shape))

export function runner({ observe, tuning, timerTicks = 1 }: Options): (scenario: Scenario) => Result {
  return (scenario) => {
    const pairs = (scenario.pairs ?? [{}]).map((pair) => ({ ...pair, tuning: { ...tuning, ...pair.tuning } }))
    const result = simulate({ ...scenario, pairs, timerTicks })
    observe?.(result)
    return result
  }
}
