/** Event OPENED, and `stream_reset`: what the host of an application in the same process needs beyond TCP. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AbortReason, EventType } from '../../host/engine/core.ts'
import { type Connection, Pair, type PairOptions } from '../../testkit/sim/pair.ts'
import { Solo, summary } from '../../testkit/sim/solo.ts'
import { ack } from '../../testkit/sim/wire.ts'

const test = suite('core/opened-reset')

const openedBy = (solo: Solo): number[] =>
  solo.events.filter(({ type }) => type === EventType.OPENED).map(({ handle }) => handle)

test('OPENED: once, for the first answer to a session, before or after bytes are queued', () => {
  const solo = new Solo({ role: 'client' })
  const first = solo.open()
  const second = solo.open()
  solo.run(50)
  assert.equal(openedBy(solo), [])
  solo.feed(ack(solo.endpoint.convOf(second), 0, 0, 1))
  assert.equal(openedBy(solo), [second])
  solo.feed(ack(solo.endpoint.convOf(second), 0, 0, 1))
  solo.feed(ack(solo.endpoint.convOf(first), 0, 0, 1))
  assert.equal(openedBy(solo), [second, first])
})

test('OPENED: not for a stream that the host has given up, and not at a server', () => {
  for (const giveUp of ['stream_abort', 'stream_reset'] as const) {
    const solo = new Solo({ role: 'client' })
    const handle = solo.open()
    const conv = solo.endpoint.convOf(handle)
    solo.run(50)
    assert.is(solo.endpoint.core.calls[giveUp](handle, solo.endpoint.now), 0)
    solo.endpoint.dirty = true
    solo.feed(ack(conv, 0, 0, 1))
    solo.run(1000)
    assert.equal(openedBy(solo), [])
  }
})

test('OPENED: at the client only, also when datagrams are lost or repeated', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const link = { delay: 20, loss: 0.3, duplicate: 0.2 }
    const pair = new Pair({ seed, up: link, down: link })
    const connection = pair.connect({ client: { bytes: 5000, stream: 1 }, server: { bytes: 5000, stream: 2 } })
    assert.ok(pair.finish(120), connection.describe())
    assert.is(connection.client.opened, 1)
    assert.is(connection.server?.opened, 0)
  }
})

/** A connection in the middle of a transfer in both directions. */
function busy(options: Partial<PairOptions> = {}): [Pair, Connection] {
  const pair = new Pair({ seed: 3, up: { delay: 20 }, down: { delay: 20 }, ...options })
  const script = { bytes: 2_000_000, writeRate: 500 }
  const connection = pair.connect({ client: { ...script, stream: 1 }, server: { ...script, stream: 2 } })
  pair.run(1000)
  assert.is(connection.client.ending, undefined)
  assert.ok((connection.server?.received ?? 0) > 0)
  return [pair, connection]
}

for (const side of ['client', 'server'] as const)
  test(`stream_reset of the ${side}: the peer gets ABORT with reason RESET, and no end`, () => {
    const [pair, connection] = busy()
    const [one, other] =
      side === 'client' ? [connection.client, connection.server] : [connection.server, connection.client]
    one?.reset()
    pair.run(100)
    assert.is(other?.ending, 'aborted')
    assert.is(other?.reason, AbortReason.RESET)
    assert.is(other?.eof, false)
    assert.ok((other?.received ?? 0) < 2_000_000)
  })

test('stream_reset: the RESET may get lost, and it is answered to what the peer sends', () => {
  const [pair, connection] = busy()
  let lost = 0
  pair.tap = (from) => {
    if (from === 'server' || lost > 0) return true
    lost++
    return false
  }
  connection.client.reset()
  pair.run(3000)
  assert.is(lost, 1)
  assert.is(connection.server?.ending, 'aborted')
  assert.is(connection.server?.reason, AbortReason.RESET)
})

test('stream_reset drops what was not sent, and leaves nothing behind', () => {
  const pair = new Pair({ seed: 4, up: { delay: 20 }, down: { delay: 20 } })
  const connection = pair.connect({
    client: { bytes: 5_000_000, stream: 1, fin: 'never' },
    server: { bytes: 0, stream: 2, fin: 'never', reads: false },
  })
  pair.run(3000)
  assert.ok(pair.client.counter('waitsnd') > 0)
  connection.client.reset()
  assert.is(pair.client.counter('waitsnd'), 0)
  // a session with nothing under way is probed first
  pair.run(5000)
  assert.is(connection.server?.ending, 'aborted')
  // past TIME_WAIT
  pair.run(400_000)
  assert.is(pair.leak(), '')
})

test('stream_reset of a session that never sent: nothing is sent for it but the RESET', () => {
  const solo = new Solo({ role: 'client' })
  const handle = solo.endpoint.open()
  assert.ok(handle > 0)
  assert.is(solo.endpoint.reset(handle), 0)
  solo.run(10_000)
  const sent = solo.take().map((output) => summary(output))
  assert.ok(sent.filter((text) => text !== 'RESET' && !text.startsWith('PING')).length === 0, sent.join())
  // the handle is gone
  assert.ok(solo.endpoint.reset(handle) < 0)
})

test.run()
