/** What the info block of a session says about congestion control (docs/abi.md). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Info } from '../../host/engine/core.ts'
import { Pair } from '../../testkit/sim/pair.ts'

/** docs/abi.md, `congestion`. */
const [STARTUP, DRAIN, PROBE_DOWN, PROBE_CRUISE, PROBE_UP] = [0, 1, 2, 3, 4]

const test = suite('core/session-info')

test('the states of congestion control have the documented numbers, and follow each other as in BBR', () => {
  const pair = new Pair({ seed: 1, up: { delay: 20, rate: 1000, queue: 100_000 }, down: { delay: 20 } })
  pair.connect({ client: { bytes: 20_000_000, stream: 1 }, server: {} })
  const states: number[] = []
  for (let i = 0; i < 2000; i++) {
    pair.run(2)
    const [session] = pair.client.list()
    assert.ok(session)
    const state = (pair.client.core.info().getUint32(Info.congestion, true) >>> 16) & 0xff
    if (state !== states.at(-1)) states.push(state)
  }
  assert.equal(states.slice(0, 3), [STARTUP, DRAIN, PROBE_CRUISE], `${states}`)
  assert.ok(states.length > 9, `${states}`)
  const next = states.slice(2).map((state, i) => [state, states[i + 3]])
  for (const [state, after] of next.slice(0, -1)) {
    const wanted = state === PROBE_CRUISE ? PROBE_UP : state === PROBE_UP ? PROBE_DOWN : PROBE_CRUISE
    assert.is(after, wanted, `${states}`)
  }
})

test.run()
