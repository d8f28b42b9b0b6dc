/** The rate of a path increases during a connection to kcptun-libev: the connection uses it up to its window. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../../testkit/sim/flows/links.ts'
import { simulate } from '../../../testkit/sim/flows/scenario.ts'

const test = suite('sim/flows/growth')

const GROWS_AT = 20

test('a rate increase after 20 s is used within 2 s, up to the window of kcptun-libev', () => {
  const { flows, drops } = simulate({
    seed: 1,
    shape: link(10, 40, 0, 2),
    changes: [{ at: GROWS_AT, shape: link(40, 40, 0, 2) }],
    settled: GROWS_AT + 2,
    seconds: GROWS_AT + 12,
    pairs: [{ client: 'engine', server: 'libev' }],
  })
  // one window per round trip plus flush interval is 24.5 Mbit/s
  assert.ok((flows[0]?.goodput ?? 0) > 22, String(flows[0]?.goodput))
  assert.is(drops, 0)
})

test.run()
