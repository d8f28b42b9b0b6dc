/** A path that gets faster while a connection to kcptun-libev lives: the connection uses what its window allows. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../../testkit/sim/flows/links.ts'
import { simulate } from '../../../testkit/sim/flows/scenario.ts'

const test = suite('sim/flows/growth')

const GROWS_AT = 20

test('a rate that rises after 20 s is used within 2 s, up to what the window of kcptun-libev allows', () => {
  const { flows, drops } = simulate({
    seed: 1,
    shape: link(10, 40, 0, 2),
    changes: [{ at: GROWS_AT, shape: link(40, 40, 0, 2) }],
    settled: GROWS_AT + 2,
    seconds: GROWS_AT + 12,
    pairs: [{ client: 'engine', server: 'original' }],
  })
  // its window, once in a round trip and a flush interval, is 24.5 Mbit/s
  assert.ok((flows[0]?.goodput ?? 0) > 22, String(flows[0]?.goodput))
  assert.is(drops, 0)
})

test.run()
