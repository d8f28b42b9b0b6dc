/** A path to kcptun-libev: timeouts of lost ACKs are no sign of overload, a queue that overflows is one. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../../testkit/sim/flows/links.ts'
import { simulate } from '../../../testkit/sim/flows/scenario.ts'

const test = suite('sim/flows/outages')

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]

test('outages of 100 ms every 300 ms leave 4.5 Mbit/s in the mean', () => {
  // 3.4 Mbit/s if each round with a timeout counted as one with excess loss
  const shape = { ...link(100, 20, 0, 1), burst: 100, burstEvery: 300 }
  const rates = SEEDS.map((seed) => simulate({ seed, shape, seconds: 12, settled: 0, pairs: [{ server: 'libev' }] }))
  const mean = rates.reduce((sum, { goodput }) => sum + goodput, 0) / rates.length
  assert.ok(mean > 4.5, `${mean}`)
})

test('a queue of a quarter BDP does not overflow all the time', () => {
  // half of what is sent is dropped while the sender does not reduce its rate
  const shape = link(20, 50, 0, 0.25)
  for (const seed of SEEDS.slice(0, 3)) {
    const { goodput, drops } = simulate({ seed, shape, seconds: 6, settled: 3, pairs: [{ server: 'libev' }] })
    assert.ok(goodput > 13, `${goodput} Mbit/s`)
    assert.ok(drops < 0.1, `${drops}`)
  }
})

test.run()
