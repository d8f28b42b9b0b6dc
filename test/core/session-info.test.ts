/** What the info block of a session says about congestion control (docs/abi.md). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Info } from '../../host/engine/core.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { ack, MessageType, message, push, utf8 } from '../../testkit/sim/wire.ts'

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

test('idle counts from the last byte written, received or acknowledged for the first time', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 0 } })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  const idle = (): number | undefined => solo.endpoint.list()[0]?.idle
  solo.run(10)
  const [dial] = solo.takeSegments(conv)
  assert.ok(dial)
  const answer = (una: number): Uint8Array => ack(conv, dial.sn, dial.ts, una)
  solo.run(15_000)
  assert.is(idle(), 15)
  solo.feed(answer(dial.sn + 1))
  assert.is(idle(), 0, 'what was sent has arrived')
  solo.run(3000)
  solo.feed(answer(dial.sn + 1))
  assert.is(idle(), 3, 'which a second ACK does not change')
  solo.feed(push(conv, 0, message(MessageType.PUSH, utf8('x')), { una: dial.sn + 1 }))
  assert.is(idle(), 0)
  solo.run(4000)
  assert.is(idle(), 4)
  solo.write(handle, utf8('y'))
  solo.endpoint.drain()
  assert.is(idle(), 0)
})

test.run()
