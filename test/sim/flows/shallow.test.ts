/**
 * A queue too short to raise the RTT: few segments are dropped, a neighbour keeps its part, and random loss is not taken
 * for such a queue.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import type { Shape } from '../../../testkit/sim/flows/bottleneck.ts'
import { link } from '../../../testkit/sim/flows/links.ts'
import { type Change, type Result, simulate } from '../../../testkit/sim/flows/scenario.ts'
import { lateness, SHALLOW } from './shallow.ts'

const test = suite('sim/flows/shallow')

interface Options {
  readonly changes?: readonly Change[]
  readonly settled?: number
  /** hosts wake late, on timers of a millisecond */
  readonly isLate?: boolean
}

function alone(shape: Shape, seconds: number, { changes = [], settled = 2, isLate = false }: Options = {}): Result {
  const hosts = isLate ? { timerTicks: TICKS_PER_MS, lateness } : {}
  return simulate({ seed: 1, shape, seconds, settled, changes, ...hosts, pairs: [{ flows: [{}] }] })
}

// goodput and drops before: 90.9 and 3.8 %, 86.1 and 4.4 %
for (const [isLate, least] of [
  [false, 88],
  [true, 81],
] as const) {
  const hosts = isLate ? 'hosts that wake late' : 'exact hosts'
  test(`${hosts}, alone: below 1 % of the segments are dropped, and the link is used`, () => {
    const { drops, goodput } = alone(SHALLOW, 20, { isLate })
    assert.ok(drops < 0.01, `${drops}`)
    assert.ok(goodput > least, `${goodput} Mbit/s`)
  })

  for (const isFirst of [true, false]) {
    test(`${hosts}, beside TCP CUBIC, started ${isFirst ? 'first' : 'second'}: less than 0.91 of the link`, () => {
      const { flows, goodput, drops } = simulate({
        seed: 1,
        shape: SHALLOW,
        seconds: 60,
        settled: 8,
        ...(isLate && { timerTicks: TICKS_PER_MS, lateness }),
        pairs: [
          { flows: [{ startAt: isFirst ? 0 : 4 }] },
          { client: 'tcp', server: 'tcp', flows: [{ startAt: isFirst ? 4 : 0 }] },
        ],
      })
      const share = (flows[0]?.goodput ?? 0) / goodput
      // before: 0.95 to 0.97, 3.9 to 4.5 %
      assert.ok(share > 0.5 && share < 0.91, `${share}`)
      assert.ok(drops < 0.02, `${drops}`)
    })
  }
}

test('2 % random loss before the queue: few drops as well', () => {
  const { drops, goodput } = alone({ ...SHALLOW, loss: 0.02 }, 20)
  // before: 0.032
  assert.ok(drops < 0.015, `${drops}`)
  assert.ok(goodput > 86, `${goodput} Mbit/s`)
})

test('a link that stood still, and lost a window, is filled again within seconds', () => {
  const changes = [
    { at: 5, shape: { ...SHALLOW, rate: 0.3e6 } },
    { at: 5.12, shape: SHALLOW },
  ]
  const { bins } = alone(SHALLOW, 12, { changes, isLate: true })
  const from = 8
  const mbits = (bins.slice(from * 50, 12 * 50).reduce((sum, bytes) => sum + bytes, 0) * 8) / 4e6
  // with a rest between probes as before the loss: below 50
  assert.ok(mbits > 75, `${mbits} Mbit/s from ${from} s on`)
})

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
  const { drops, goodput } = alone(slow, 8, {
    changes: [{ at: 4, shape: { rate: 500e6, queueBytes: 32_000 } }],
    settled: 4,
  })
  // 0.1 if the losses of a restarted STARTUP are learnt as those of the path
  assert.ok(drops < 0.03, `${drops}`)
  assert.ok(goodput > 400, `${goodput} Mbit/s`)
})

test.run()
