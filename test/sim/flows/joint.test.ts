/** Several connections of one tunnel on a short queue: they do not overrun it, and share it. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { link } from '../../../testkit/sim/flows/links.ts'
import { type Result, simulate } from '../../../testkit/sim/flows/scenario.ts'
import { lateness, SHALLOW } from './shallow.ts'

const test = suite('sim/flows/joint')

/** Jain's index of the flows' goodput: 1 = all the same. */
function fairness({ flows }: Result): number {
  const sum = flows.reduce((all, { goodput }) => all + goodput, 0)
  return (sum * sum) / (flows.length * flows.reduce((all, { goodput }) => all + goodput * goodput, 0))
}

// drops from the first segment on, goodput and fairness before: 10 and 14 %, 93, 0.8 and 0.15
for (const n of [2, 8]) {
  for (const [isLate, least, most] of [
    [false, 82, 0.03],
    [true, 76, 0.05],
  ] as const) {
    test(`${n} connections that begin together, ${isLate ? 'hosts that wake late' : 'exact hosts'}: few drops, equal shares`, () => {
      let last = { dropped: 0, packets: 0 }
      const result = simulate({
        seed: 1,
        shape: SHALLOW,
        seconds: 12,
        settled: 3,
        ...(isLate && { timerTicks: TICKS_PER_MS, lateness }),
        pairs: [{ flows: Array.from({ length: n }, () => ({})) }],
        trace: {
          every: 12,
          see: ({ line }) => {
            last = { ...line }
          },
        },
      })
      assert.ok(last.dropped < most * last.packets, `${last.dropped} of ${last.packets} from the start`)
      assert.ok(result.goodput > least, `${result.goodput} Mbit/s`)
      assert.ok(fairness(result) > 0.95, `${fairness(result)}`)
    })
  }
}

test('eight connections fill the link again within three seconds of an outage', () => {
  const { bins } = simulate({
    seed: 3,
    shape: SHALLOW,
    seconds: 16,
    settled: 2,
    changes: [
      { at: 8, blackhole: true },
      { at: 11, blackhole: false },
    ],
    pairs: [{ flows: Array.from({ length: 8 }, () => ({})) }],
  })
  const mbits = (bins.slice(13 * 50, 16 * 50).reduce((sum, bytes) => sum + bytes, 0) * 8) / 3e6
  // 20 if what the outage lost counts for a probe after it
  assert.ok(mbits > 75, `${mbits} Mbit/s`)
})

test('at 30 % random loss a STARTUP that loses no more than before goes on', () => {
  const shape = link(50, 50, 0.3, 1.3)
  const flows = Array.from({ length: 8 }, () => ({}))
  const { goodput } = simulate({ seed: 2, shape, seconds: 12, settled: 1, pairs: [{ flows }] })
  // 7 if a loss of 5 % were enough
  assert.ok(goodput > 11, `${goodput} Mbit/s`)
})

test('twenty echoes beside two bulk connections take nothing from them', () => {
  const flows = [{}, {}, ...Array.from({ length: 20 }, () => ({ kind: 'echo' }) as const)]
  const { flows: results, drops } = simulate({ seed: 1, shape: SHALLOW, seconds: 15, settled: 5, pairs: [{ flows }] })
  const bulk = results.filter(({ kind }) => kind === 'bulk').map(({ goodput }) => goodput)
  // 0.6 and 7 % if the mean that they approach included the echoes
  assert.ok(Math.min(...bulk) > 0.8 * Math.max(...bulk), `${bulk}`)
  assert.ok(drops < 0.03, `${drops}`)
})

test('when the others have ended, the last of eight connections uses the link as one alone does', () => {
  const flows = Array.from({ length: 8 }, (_, i) => (i === 0 ? {} : { stopAt: 6 }))
  const { goodput } = simulate({ seed: 1, shape: SHALLOW, seconds: 20, settled: 12, pairs: [{ flows }] })
  assert.ok(goodput > 86, `${goodput} Mbit/s`)
})

test('an echo beside four bulk connections waits for no gain of theirs', () => {
  const flows = [{ kind: 'echo' } as const, ...Array.from({ length: 4 }, () => ({}))]
  const { flows: results } = simulate({ seed: 1, shape: SHALLOW, seconds: 20, settled: 2, pairs: [{ flows }] })
  // 70 if its own bandwidth is reduced with that of the others
  assert.ok((results[0]?.p50 ?? 99) < 54, `${results[0]?.p50} ms`)
})

test('2 % random loss: eight connections use the link', () => {
  const flows = Array.from({ length: 8 }, () => ({}))
  const { goodput } = simulate({ seed: 1, shape: link(50, 50, 0.02, 1.3), seconds: 10, settled: 3, pairs: [{ flows }] })
  assert.ok(goodput > 45, `${goodput} Mbit/s`)
})

test.run()
