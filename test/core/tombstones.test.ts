/**
 * Tombstones of ended sessions (docs/validation.md): they occupy no slot of the session table and prevent a late first
 * flight from opening the session again.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SessionState } from '../../host/engine/core.ts'
import { address4 } from '../../testkit/sim/address.ts'
import { Solo, summary, TESTER } from '../../testkit/sim/solo.ts'
import { ack, concat, control, DIAL, EOF, MessageType, message, push, utf8, What } from '../../testkit/sim/wire.ts'

const REQUEST = concat(DIAL, message(MessageType.PUSH, utf8('get')))

/** Opens a connection and ends it on both sides. @param isAcked the server's EOF is acknowledged */
function visit(solo: Solo, conv: number, isAcked = true): void {
  solo.feed(push(conv, 0, concat(REQUEST, EOF)))
  const stream = [...solo.streams.values()].at(-1)
  assert.ok(stream)
  solo.endpoint.shutdown(stream.handle)
  solo.endpoint.drain()
  if (isAcked) solo.feed(ack(conv, 0, 0, 1))
  solo.streams.delete(stream.handle)
}

const test = suite('core/tombstones')

test('500 short connections a second for five minutes are all served', () => {
  const solo = new Solo({ role: 'server' })
  const base = solo.endpoint.counter('memory_used')
  for (let i = 0; i < 300 * 500; i++) {
    solo.feed(push(1 + i, 0, REQUEST))
    solo.feed(control(What.RESET, 1 + i))
    solo.streams.clear()
    solo.run(2)
    if (i % 1000 === 0) solo.all.length = 0
  }
  assert.is(solo.endpoint.counter('sessions_refused'), 0)
  assert.is(solo.endpoint.counter('sessions_opened'), 300 * 500)
  assert.ok(solo.endpoint.counter('sessions_time_wait') >= 500 * 110)
  solo.run(125_000)
  assert.is(solo.endpoint.sessions, 0)
  assert.ok(solo.endpoint.counter('memory_used') - base < 65_536)
})

test('max_sessions 200 at 50 connections a second: finished sessions in LINGER are replaced', () => {
  const solo = new Solo({ role: 'server', config: { maxSessions: 200 } })
  for (let i = 0; i < 60 * 50; i++) {
    visit(solo, 1 + i)
    solo.run(20)
  }
  assert.is(solo.endpoint.counter('sessions_refused'), 0)
  assert.ok(solo.endpoint.counter('sessions_linger') <= 200)
})

test('a session in LINGER keeps its slot while something is unacknowledged or unread', () => {
  const solo = new Solo({ role: 'server', config: { maxSessions: 5 } })
  for (let i = 0; i < 5; i++) visit(solo, 1 + i, false)
  solo.feed(push(100, 0, REQUEST))
  assert.is(solo.endpoint.counter('sessions_refused'), 1)
  assert.is(solo.endpoint.counter('sessions_linger'), 5)
  // now one may be replaced
  solo.feed(ack(3, 0, 0, 1))
  solo.feed(push(101, 0, REQUEST))
  assert.is(solo.endpoint.counter('sessions_refused'), 1)
  assert.is(solo.endpoint.counter('sessions_linger'), 4)
})

test('a late first flight opens no session and is answered with RESET, at most once a second', () => {
  const solo = new Solo({ role: 'server', config: { timeWait: 20 } })
  solo.feed(push(5, 0, REQUEST))
  solo.feed(control(What.RESET, 5))
  solo.take()
  for (let i = 0; i < 50; i++) {
    solo.feed(push(5, 0, REQUEST))
    solo.run(100)
  }
  assert.is(solo.endpoint.counter('sessions_opened'), 1)
  const resets = solo.take().filter((output) => summary(output) === 'RESET')
  assert.is(resets.length, 5)
  // from another address it is another conversation
  solo.feedFrom(address4(9, 999), push(5, 0, REQUEST))
  assert.is(solo.endpoint.counter('sessions_opened'), 2)
  solo.run(21_000)
  solo.feed(push(5, 0, REQUEST))
  assert.is(solo.endpoint.counter('sessions_opened'), 3)
})

test('when there are too many tombstones the oldest are dropped, but none younger than 10 s', () => {
  const solo = new Solo({ role: 'server', config: { timeWait: 3600 } })
  const open = (conv: number): void => {
    solo.feed(push(conv, 0, REQUEST))
    solo.feed(control(What.RESET, conv))
    solo.streams.clear()
  }
  for (let i = 0; i < 65_536; i++) {
    open(1 + i)
    if (i % 1000 === 0) solo.all.length = 0
  }
  open(100_000)
  assert.is(solo.endpoint.counter('sessions_refused'), 1)
  solo.run(9000)
  open(100_001)
  assert.is(solo.endpoint.counter('sessions_refused'), 2)
  solo.run(1500)
  for (let i = 0; i < 1000; i++) open(200_000 + i)
  assert.is(solo.endpoint.counter('sessions_refused'), 2)
  assert.is(solo.endpoint.counter('sessions_time_wait'), 65_536)
})

test('a client does not reuse a conv while it has a tombstone', () => {
  const solo = new Solo({ role: 'client', config: { timeWait: 60 } })
  const seen = new Set<number>()
  for (let i = 0; i < 50; i++) {
    const conv = solo.endpoint.convOf(solo.open())
    assert.not.ok(seen.has(conv))
    seen.add(conv)
    solo.feed(control(What.RESET, conv))
  }
  const listed = solo.endpoint.list()
  assert.is(listed.length, 50)
  assert.equal(new Set(listed.map(({ conv }) => conv)), seen)
  for (const { state, rto, address } of listed) {
    assert.is(state, SessionState.TIME_WAIT)
    assert.is(rto, 0xffffffff)
    assert.equal(address, TESTER)
  }
})

test('nothing is left of the addresses whose sessions ended long ago', () => {
  const solo = new Solo({ role: 'server' })
  const serve = (first: number): number => {
    for (let i = 0; i < 300; i++) {
      const peer = address4(50, first + i)
      solo.feedFrom(peer, push(1, 0, REQUEST))
      solo.feedFrom(peer, control(What.RESET, 1))
    }
    solo.streams.clear()
    solo.run(130_000)
    assert.is(solo.endpoint.sessions, 0)
    return solo.endpoint.counter('memory_used')
  }
  // the tables grow once
  const before = serve(1000)
  assert.is(serve(2000), before)
})

test.run()
