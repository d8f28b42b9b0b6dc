/** Which RESETs end a session, and how a restarted peer is detected (docs/validation.md). */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { address4 } from '../../testkit/sim/address.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Solo, summary, TESTER } from '../../testkit/sim/solo.ts'
import { ack, control, utf8, What } from '../../testkit/sim/wire.ts'

const test = suite('core/reset')

test('a RESET provoked with a recorded datagram ends no session: the peer is probed first', () => {
  const pair = new Pair({ seed: 5, sealing: 'random', up: { delay: 20 }, down: { delay: 20 } })
  const connection = pair.connect({
    client: { bytes: 500_000, stream: 1, writeRate: 20, chunk: 500 },
    server: { bytes: 500_000, stream: 2, writeRate: 20, chunk: 500 },
  })
  const oracle = new Solo({ role: 'client', sealing: 'random', seed: 99 })
  let recorded: Uint8Array | undefined
  pair.tap = (from, bytes) => {
    if (from === 'client' && pair.ms > 1000 && recorded === undefined) recorded = bytes.slice()
    return true
  }
  for (let i = 0; i < 8; i++) {
    pair.run(1500)
    assert.ok(recorded, `${i}: ${connection.describe()}`)
    oracle.take()
    oracle.feedRaw(address4(2, 29900), recorded)
    const reset = oracle.take().find((output) => summary(output) === 'RESET')
    assert.ok(reset, 'the oracle answers')
    // to both ends, from the address of the other
    pair.inject('client', reset.bytes)
    pair.inject('server', reset.bytes)
    recorded = undefined
  }
  assert.ok(pair.finish(120), connection.describe())
  assert.ok(connection.clean, connection.describe())
})

test('an idle session survives a forged RESET; a session that the peer no longer has ends within seconds', () => {
  for (const loss of [0, 0.1]) {
    const pair = new Pair({ seed: 6, sealing: 'random', up: { delay: 30, loss }, down: { delay: 30, loss } })
    const connection = pair.connect({
      client: { bytes: 100, stream: 1, fin: 'never' },
      server: { bytes: 100, stream: 2, fin: 'never' },
    })
    pair.run(20_000)
    pair.post('client', control(What.RESET, connection.conv))
    pair.post('server', control(What.RESET, connection.conv))
    pair.run(10_000)
    assert.is(connection.client.ending, undefined)
    assert.is(connection.server?.ending, undefined)
  }
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  solo.feed(ack(conv, 0, 0, 1))
  solo.run(10_000)
  solo.feed(control(What.RESET, conv))
  assert.ok(solo.take().some(({ segments }) => segments.some(({ cmd }) => cmd === 'WASK')))
  solo.run(1100)
  assert.is(solo.stream(handle).ending, undefined)
  solo.run(3000)
  assert.is(solo.stream(handle).ending, 'aborted')
  assert.is(solo.stream(handle).reason, 4)
})

test('a RESET is not longer than the datagram it answers', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  for (let i = 0; i < 300; i++) {
    const datagram = solo.seal(ack(1000 + i, 0, 0, 0))
    solo.take()
    solo.feedRaw(TESTER, datagram)
    const [reset] = solo.take()
    assert.ok(reset && reset.bytes.length <= datagram.length)
  }
})

// ---- a restarted peer

test('an ACK of a restarted peer, whose una is below that of earlier ACKs, resets the session', () => {
  for (const sealing of ['none', 'random'] as const) {
    const solo = new Solo({ role: 'client', sealing })
    const handle = solo.open()
    const conv = solo.endpoint.convOf(handle)
    for (let i = 0; i < 5; i++) {
      solo.write(handle, utf8(`part ${i}`))
      solo.endpoint.drain()
      solo.run(20)
      for (const { cmd, sn, ts } of solo.takeSegments(conv)) if (cmd === 'PUSH') solo.feed(ack(conv, sn, ts, sn + 1))
    }
    solo.run(50)
    solo.write(handle, utf8('lost'))
    solo.endpoint.drain()
    solo.run(20)
    for (const { cmd, sn, ts } of solo.takeSegments(conv)) if (cmd === 'PUSH') solo.feed(ack(conv, sn, ts, 0))
    assert.is(solo.stream(handle).ending, 'aborted', sealing)
    assert.ok(solo.take().some((output) => summary(output) === 'RESET'))
  }
})

test('reordered, duplicate and late ACKs are not taken for a restart', () => {
  const solo = new Solo({ role: 'client', sealing: 'random' })
  const handle = solo.open()
  const conv = solo.endpoint.convOf(handle)
  const sent: { sn: number; ts: number }[] = []
  for (let i = 0; i < 10; i++) {
    solo.write(handle, utf8(`part ${i}`))
    solo.endpoint.drain()
    solo.run(10)
    sent.push(...solo.takeSegments(conv).filter(({ cmd }) => cmd === 'PUSH'))
  }
  solo.feed(...sent.slice(5).map(({ sn, ts }) => ack(conv, sn, ts, 10)))
  solo.feed(...sent.map(({ sn, ts }) => ack(conv, sn, ts, 0)))
  solo.feed(...sent.map(({ sn, ts }) => ack(conv, sn, ts, sn)))
  assert.is(solo.stream(handle).ending, undefined)
})

test.run()
