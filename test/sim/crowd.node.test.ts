// time limit: 180 s
/** A thousand connections of one client that all send at full speed. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../testkit/sim/flows/links.ts'
import { simulate } from '../../testkit/sim/flows/scenario.ts'

const ACTIVE = 1000
const MBITS = 500
const RTT_MS = 50
/** Started over this time, s. */
const START_S = 2
const SETTLED_S = 8
const SECONDS = 13

const test = suite('sim/crowd')

test(`${ACTIVE} active connections fill the link and share it fairly`, () => {
  const flows = Array.from({ length: ACTIVE }, (_, i) => ({ startAt: (START_S * i) / ACTIVE }))
  const shape = link(MBITS, RTT_MS, 0, 1)
  const {
    goodput,
    jain,
    flows: each,
  } = simulate({
    seed: 1,
    shape,
    pairs: [{ flows }],
    seconds: SECONDS,
    settled: SETTLED_S,
  })
  const least = Math.min(...each.map((flow) => flow.goodput))
  assert.ok(goodput >= 0.9 * MBITS, `${goodput} of ${MBITS} Mbit/s`)
  assert.ok(jain >= 0.9, `Jain's index ${jain}`)
  assert.ok(least > 0, 'every connection makes progress')
})

test.run()
