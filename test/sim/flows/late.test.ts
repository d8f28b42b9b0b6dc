/**
 * Connections that start after their pair has measured the path reach their share at once without overflowing the
 * queue.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../../testkit/sim/flows/links.ts'
import { bound, type FlowSpec, jain, type Result, simulate } from '../../../testkit/sim/flows/scenario.ts'

const shape = link(50, 50, 0, 1)
const KNOWN_AT = 5

const test = suite('sim/flows/late')

/** Runs the second after `flows` connections join. */
function join(first: FlowSpec, flows: number, kind: 'bulk' | 'echo' = 'bulk'): Result {
  const late = Array.from({ length: flows }, (): FlowSpec => ({ kind, startAt: KNOWN_AT }))
  return simulate({
    seed: 1,
    shape,
    settled: KNOWN_AT,
    seconds: KNOWN_AT + 1,
    pairs: [{ flows: [first, ...late] }],
  })
}

test('a second connection reaches its half within its first second', () => {
  const { flows, drops } = join({}, 1)
  assert.ok((flows[1]?.goodput ?? 0) > 0.4 * bound(shape), String(flows[1]?.goodput))
  assert.ok((flows[0]?.goodput ?? 0) > 0.4 * bound(shape), String(flows[0]?.goodput))
  assert.is(drops, 0)
})

test('a connection after a bulk connection fills the path at once', () => {
  const { flows, drops } = join({ stopAt: KNOWN_AT - 2 }, 1)
  assert.ok((flows[1]?.goodput ?? 0) > 0.85 * bound(shape), String(flows[1]?.goodput))
  assert.is(drops, 0)
})

test('sixteen simultaneous connections do not overflow the queue and share fairly', () => {
  for (const first of [{}, { stopAt: KNOWN_AT - 2 }]) {
    const { flows, drops } = join(first, 16)
    assert.ok(drops < 0.02, `drops ${drops}`)
    assert.ok(jain(flows.slice(1).map(({ goodput }) => goodput)) > 0.9)
  }
})

test('connections with little data do not slow down a bulk connection', () => {
  const { flows } = join({}, 16, 'echo')
  assert.ok((flows[0]?.goodput ?? 0) > 0.85 * bound(shape), String(flows[0]?.goodput))
})

test.run()
