/**
 * A queue too short to raise the RTT: few segments are dropped, a neighbour keeps its part, and random loss is not taken
 * for such a queue.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Shape } from '../../../testkit/sim/flows/bottleneck.ts'
import { link } from '../../../testkit/sim/flows/links.ts'
import { type Change, type Result, simulate } from '../../../testkit/sim/flows/scenario.ts'

const test = suite('sim/flows/shallow')

/** 100 Mbit/s, 50 ms; the queue holds 2.6 ms. */
const SHALLOW: Shape = { rate: 100e6, delay: 25, queueBytes: 32_000 }

function alone(shape: Shape, seconds: number, changes: readonly Change[] = [], settled = 2): Result {
  return simulate({ seed: 1, shape, seconds, settled, changes, pairs: [{ flows: [{}] }] })
}

test('alone: below 1 % of the segments are dropped, and the link is used', () => {
  const { drops, goodput } = alone(SHALLOW, 20)
  // without the judgement of probes: 0.038
  assert.ok(drops < 0.01, `${drops}`)
  assert.ok(goodput > 88, `${goodput} Mbit/s`)
})

test('2 % random loss before the queue: likewise', () => {
  const { drops, goodput } = alone({ ...SHALLOW, loss: 0.02 }, 20)
  // without: 0.032
  assert.ok(drops < 0.015, `${drops}`)
  assert.ok(goodput > 86, `${goodput} Mbit/s`)
})

for (const isFirst of [true, false]) {
  test(`beside TCP CUBIC, started ${isFirst ? 'first' : 'second'}: less than 0.91 of the link`, () => {
    const { flows, goodput } = simulate({
      seed: 1,
      shape: SHALLOW,
      seconds: 40,
      settled: 8,
      pairs: [
        { flows: [{ startAt: isFirst ? 0 : 4 }] },
        { client: 'tcp', server: 'tcp', flows: [{ startAt: isFirst ? 4 : 0 }] },
      ],
    })
    const share = (flows[0]?.goodput ?? 0) / goodput
    // without headroom and pauses between probes: 0.96
    assert.ok(share > 0.5 && share < 0.91, `${share}`)
  })
}

test('10 % random loss and a deep queue: no bandwidth is left unused', () => {
  // if losses above the base were enough: 815
  const { goodput } = alone(link(1000, 5, 0.1, 1), 8)
  assert.ok(goodput > 820, `${goodput} Mbit/s`)
})

test('bursts of loss on the link do not reduce the rate for seconds', () => {
  // if a reduction did not shorten the pause before the next probe: 60
  const { goodput } = alone({ ...SHALLOW, burst: 5, burstEvery: 500 }, 20)
  assert.ok(goodput > 80, `${goodput} Mbit/s`)
})

test('a link that becomes ten times faster is not overrun', () => {
  const slow = { ...SHALLOW, rate: 50e6, queueBytes: 64_000 }
  const { drops, goodput } = alone(slow, 8, [{ at: 4, shape: { rate: 500e6, queueBytes: 32_000 } }], 4)
  // 0.1 if the losses of a restarted STARTUP are learnt as those of the path
  assert.ok(drops < 0.03, `${drops}`)
  assert.ok(goodput > 400, `${goodput} Mbit/s`)
})

test.run()
