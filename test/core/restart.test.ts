/** What one side does when the other has restarted, or when an outage makes it look so (protocol.md 6.7, 6.8). */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/engine/core.ts'
import { Solo, summary } from '../../testkit/sim/solo.ts'
import {
  ack,
  concat,
  control,
  DIAL,
  EOF,
  fromHex,
  KEEPALIVE,
  MessageType,
  message,
  push,
  toHex,
  utf8,
  What,
} from '../../testkit/sim/wire.ts'

import { isPing } from './party.ts'

const test = suite('core/restart')

test('a restarted server answers datagrams of an old session with RESET within seconds', () => {
  const reset = toHex(control(What.RESET, 5))
  // the client has received data from the old server: una > 0
  const informed = new Solo({ role: 'server' })
  informed.feed(push(5, 40, message(MessageType.PUSH, utf8('x')), { una: 3 }))
  assert.equal(
    informed.take().map(({ plain }) => toHex(plain)),
    [reset],
  )
  assert.is(informed.endpoint.sessions, 0)
  // it has received nothing: the beginning of the stream never arrives
  const uninformed = new Solo({ role: 'server' })
  for (let i = 0; i < 30; i++) {
    uninformed.feed(push(5, 40, message(MessageType.PUSH, utf8('x'))))
    uninformed.run(1000)
  }
  const first = uninformed.all.find((output) => toHex(output.plain) === reset)
  assert.is(first?.ms, 5000)
  assert.is(uninformed.streams.size, 0)
  // a client that sends nothing more gets a RESET as well, when a session without DIAL ends
  const alone = new Solo({ role: 'server' })
  alone.feed(push(5, 40, message(MessageType.PUSH, utf8('x'))))
  alone.run(60_000)
  const [sent, more] = alone.take().filter((output) => summary(output) === 'RESET')
  assert.ok(sent && sent.ms >= 29_000 && sent.ms <= 32_000, `${sent?.ms}`)
  assert.is(more, undefined)
})

test('a hole that a living peer never fills ends the session by timeout, with RESET', () => {
  const solo = new Solo({ role: 'server', config: { timeout: 60 } })
  solo.feed(push(5, 0, DIAL), push(5, 2, message(MessageType.PUSH, utf8('x'))))
  for (let i = 0; i < 55; i++) {
    for (const { cmd, sn, ts } of solo.takeSegments(5)) if (cmd === 'PUSH') solo.feed(ack(5, sn, ts, sn + 1))
    solo.run(1000)
  }
  assert.is(solo.endpoint.sessions, 1)
  const before = solo.all.length
  for (let i = 0; i < 20; i++) {
    for (const { cmd, sn, ts } of solo.takeSegments(5)) if (cmd === 'PUSH') solo.feed(ack(5, sn, ts, sn + 1))
    solo.run(1000)
  }
  assert.ok(solo.all.slice(before).some((output) => summary(output) === 'RESET'))
  assert.is(solo.only.ending, 'aborted')
})

test('what a server sent before its restart is not joined with what it sends afterwards', () => {
  const minutes = (count: number): number => count * 60 * 8000
  const first = 3_000_000_000
  const run = (later: number): Solo => {
    const solo = new Solo({ role: 'client', config: { timeout: 600 } })
    solo.endpoint.drain()
    const conv = solo.endpoint.convOf(solo.open())
    // the end of the answer overtakes its data
    solo.feed(push(conv, 1, EOF, { una: 1, ts: first }))
    solo.run(2000)
    const accepted = solo.feed(push(conv, 0, KEEPALIVE, { una: 1, ts: (first + later) >>> 0 }))
    assert.is(accepted, 1, 'it is authentic and well-formed, and says something')
    solo.run(10)
    return solo
  }
  for (const later of [1 - 2 ** 31, -1_000_000_000, -minutes(21), minutes(21), 900_000_000, 2 ** 31 - 1]) {
    const solo = run(later)
    assert.is(solo.only.eof, false, `${later}`)
    assert.is(solo.only.ending, 'aborted', `${later}`)
    assert.ok(solo.all.some((output) => summary(output) === 'RESET'))
  }
  // reordered, in another unit, or one of the two was suspended
  for (const later of [-minutes(15), -800, 0, 2000, 16_000, minutes(15)]) {
    assert.is(run(later).only.eof, true, `${later}`)
  }
})

test('a beginning that an outage delays completes what was acknowledged before it', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 1, message(MessageType.PUSH, utf8('acknowledged'))))
  solo.run(20_000)
  solo.feed(push(5, 0, DIAL))
  assert.equal(solo.only.data, utf8('acknowledged'))
  assert.not.ok(solo.all.some((output) => summary(output) === 'RESET'))
})

test('a reordered first flight is not taken for an old session', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 2, utf8('world')))
  solo.run(3000)
  solo.feed(push(5, 0, DIAL))
  solo.run(3000)
  solo.feed(push(5, 1, concat(message(MessageType.PUSH, utf8('hello ')), fromHex('0001 0009'))))
  assert.equal(solo.only.data, utf8('hello world'))
  assert.not.ok(solo.all.some((output) => summary(output) === 'RESET'))
})

test('probe_sessions pings at once, and a session that the peer has ended meanwhile is reset within 5 s', () => {
  for (const state of ['idle', 'data in flight', 'half-closed'] as const) {
    const solo = new Solo({ role: 'client', config: { timeout: 600 }, sealing: 'random' })
    const handle = solo.open()
    const conv = solo.endpoint.convOf(handle)
    solo.run(10)
    const [first] = solo.takeSegments(conv)
    assert.ok(first)
    solo.feed(
      ack(conv, first.sn, first.ts, first.sn + 1),
      push(conv, 0, message(MessageType.PUSH, utf8('x')), { una: 1 }),
    )
    solo.run(1000)
    if (state === 'data in flight') solo.write(handle, utf8('y'))
    if (state === 'half-closed') solo.endpoint.shutdown(handle)
    solo.run(10)
    for (const { cmd, sn, ts } of solo.takeSegments(conv)) {
      if (cmd === 'PUSH' && state !== 'data in flight') solo.feed(ack(conv, sn, ts, sn + 1))
    }
    solo.run(10)
    solo.take()
    const { endpoint } = solo
    assert.is(endpoint.core.calls.probe_sessions(endpoint.now), 0)
    endpoint.dirty = true
    solo.run(1)
    const sent = solo.take()
    assert.ok(sent.some(isPing), `${state}: a ping`)
    assert.ok(
      sent.some((output) => output.conv === conv),
      `${state}: something of the session`,
    )
    for (let second = 0; second < 5; second++) {
      solo.feed(control(What.RESET, conv))
      solo.run(1000)
    }
    assert.is(solo.stream(handle).ending, 'aborted', state)
  }
})

test('a server that was suspended probes its sessions', () => {
  const solo = new Solo({ role: 'server' })
  solo.feed(push(5, 0, DIAL))
  solo.run(1000)
  solo.take()
  const { endpoint } = solo
  assert.is(endpoint.core.calls.probe_sessions(endpoint.now), 0)
  endpoint.dirty = true
  solo.run(1)
  assert.equal(
    solo.take().map(({ conv }) => conv),
    [5],
  )
})

test('a client that has received data does not confirm the challenge of a restarted server', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const conv = solo.endpoint.convOf(solo.open())
  solo.endpoint.drain()
  solo.take()
  const answers = (): { una: number; ts: number }[] => {
    solo.run(100)
    return solo.takeSegments(conv).flatMap(({ cmd, una, ts }) => (cmd === 'ACK' ? [{ una, ts }] : []))
  }
  const isEchoed = (una: number, ts: number): boolean => {
    const found = answers()
    assert.ok(
      found.some((ack) => ack.una === una),
      `una ${una}`,
    )
    return found.some((ack) => ack.ts === ts)
  }
  solo.feed(push(conv, 0, KEEPALIVE, { ts: 1, una: 1 }))
  assert.ok(isEchoed(1, 1), 'a new client confirms')
  solo.feed(push(conv, 1, message(MessageType.PUSH, utf8('data')), { ts: 2, una: 1 }))
  assert.ok(isEchoed(2, 2))
  // challenges of the restarted server, whose numbers start at 0 and advance when una acknowledges them
  for (const [sn, una] of [
    [0, 2],
    [1, 2],
    [2, 3],
    [3, 4],
  ] as const) {
    solo.feed(push(conv, sn, KEEPALIVE, { ts: 100 + sn, una: 1 }))
    assert.not.ok(isEchoed(una, 100 + sn), `sn ${sn}`)
  }
})

test('a session ends when the server restarted after acknowledging segments out of order', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  solo.endpoint.drain()
  for (const { sn, ts } of solo.takeSegments(conv)) solo.feed(ack(conv, sn, ts, 1))
  solo.write(handle, new Uint8Array(4000))
  solo.endpoint.drain()
  solo.run(5)
  const sent = solo.takeSegments(conv).filter(({ cmd, sn }) => cmd === 'PUSH' && sn > 1)
  assert.ok(sent.length >= 2)
  // the first server received all but sn 1; the restarted one receives only the retransmitted sn 1
  for (const { sn, ts } of sent) solo.feed(ack(conv, sn, ts, 1))
  solo.run(500)
  for (const { cmd, sn, ts } of solo.takeSegments(conv)) if (cmd === 'PUSH') solo.feed(ack(conv, sn, ts, 2))
  for (let i = 0; i < 20 && solo.endpoint.sessions > 0; i++) {
    solo.run(2500)
    solo.feed(push(conv, i, KEEPALIVE, { ts: i, una: 2 }))
  }
  assert.equal(
    solo.events.filter(({ type }) => type === EventType.ABORT).map(({ arg }) => arg),
    [7],
  )
  assert.ok(solo.take().some((output) => summary(output) === 'RESET'))
})

test('what a server sends that opened a conversation again fills no hole of the first one', () => {
  const streams = [1000, 3000].map((ts) => {
    const solo = new Solo({ role: 'client', sealing: 'random' })
    const handle = solo.open()
    const conv = solo.endpoint.convOf(handle)
    solo.endpoint.drain()
    // its KEEPALIVE, sn 0, is lost or late
    solo.feed(push(conv, 1, message(MessageType.PUSH, utf8('second')), { ts: 2000, una: 1 }))
    solo.feed(push(conv, 0, KEEPALIVE, { ts, una: 0 }))
    solo.run(100)
    return { solo, aborts: solo.events.filter(({ type }) => type === EventType.ABORT).map(({ arg }) => arg), handle }
  })
  const [late, again] = streams
  assert.equal(late?.aborts, [], 'it was sent before')
  assert.equal(late?.solo.stream(late.handle).data, utf8('second'))
  assert.equal(again?.aborts, [7], 'it was sent later, and acknowledges nothing')
})

test.run()
