/**
 * A session follows a peer whose NAT gave it another port, and nobody else (protocol.md 6.6, 13).
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/core.ts'
import { address4, addressKey, type Sealing } from '../sim/endpoint.ts'
import { Pair } from '../sim/pair.ts'
import { Solo, TESTER } from '../sim/solo.ts'
import { ack, concat, DIAL, MessageType, message, push, utf8 } from '../sim/wire.ts'

const MOVED = address4(9, 60001)
/** ms of silence after which a session may move */
const SILENCE_MS = 600

function text(words: string): Uint8Array {
  return message(MessageType.PUSH, utf8(words))
}

/** A server with one session that has carried a few segments each way. */
function open(sealing: Sealing): Solo {
  const solo = new Solo({ role: 'server', sealing })
  solo.feed(push(5, 0, concat(DIAL, text('a'))))
  solo.write(solo.only.handle, utf8('answer'))
  solo.endpoint.drain()
  for (const { cmd, sn, ts } of solo.takeSegments(5)) if (cmd === 'PUSH') solo.feed(ack(5, sn, ts, sn + 1))
  solo.feed(push(5, 1, text('b'), { una: 1 }))
  solo.run(50)
  solo.take()
  return solo
}

function migrated(solo: Solo): number {
  return solo.events.filter(({ type }) => type === EventType.MIGRATED).length
}

const test = suite('core/migration')

for (const sealing of ['random', 'counter'] as const) {
  test(`an authentic datagram from a new address takes its session along (${sealing})`, () => {
    const solo = open(sealing)
    solo.run(SILENCE_MS)
    solo.feedFrom(MOVED, push(5, 2, text('c'), { una: 1 }))
    assert.equal(solo.only.data, utf8('abc'))
    assert.is(migrated(solo), 1)
    solo.write(solo.only.handle, utf8('more'))
    solo.endpoint.drain()
    solo.run(50)
    const outputs = solo.take()
    assert.ok(outputs.length > 0)
    for (const { peer } of outputs) assert.is(addressKey(peer), addressKey(MOVED))
    // and it still answers, under its new key
    solo.feedFrom(MOVED, push(5, 3, text('d'), { una: 1 }))
    assert.equal(solo.only.data, utf8('abcd'))
    assert.is(solo.endpoint.sessions, 1)
  })
}

test('without a method nobody is believed: another address is another session', () => {
  const solo = open('none')
  solo.run(SILENCE_MS)
  solo.feedFrom(MOVED, push(5, 2, text('c')))
  assert.equal(solo.only.data, utf8('ab'))
  assert.is(migrated(solo), 0)
})

test('MUST 43: a first flight from another address opens its own session', () => {
  const solo = open('random')
  solo.run(SILENCE_MS)
  solo.feedFrom(MOVED, push(5, 0, concat(DIAL, text('x'))))
  assert.is(migrated(solo), 0)
  assert.equal(
    [...solo.streams.values()].map(({ data }) => data),
    [utf8('ab'), utf8('x')],
  )
})

test('a session whose address is alive stays there', () => {
  const solo = open('random')
  solo.run(SILENCE_MS)
  solo.feed(push(5, 2, text('c'), { una: 1 }))
  solo.feedFrom(MOVED, push(5, 3, text('!'), { una: 1 }))
  assert.is(migrated(solo), 0)
  assert.equal(solo.only.data, utf8('abc'))
})

test('numbers far outside the windows move nothing', () => {
  for (const [sn, una] of [
    [2, 1000],
    [2, 0x80000000],
    [0x40000000, 1],
    [0x80000000, 1],
  ] as const) {
    const solo = open('random')
    solo.run(SILENCE_MS)
    solo.feedFrom(MOVED, push(5, sn, text('!'), { una }))
    assert.is(migrated(solo), 0, `sn ${sn} una ${una}`)
    assert.equal(solo.only.data, utf8('ab'))
  }
})

test('our own datagrams, sent back to us from elsewhere, move nothing and open nothing', () => {
  for (const sealing of ['random', 'counter'] as const) {
    const solo = open(sealing)
    const { handle } = solo.only
    for (let i = 0; i < 5; i++) {
      solo.write(handle, utf8('ours'))
      solo.endpoint.drain()
      solo.run(5)
    }
    const ours = solo.take().map(({ bytes }) => bytes)
    assert.ok(ours.length > 0)
    solo.run(SILENCE_MS)
    for (const bytes of [...ours, ...solo.take().map((output) => output.bytes)]) solo.feedRaw(MOVED, bytes)
    assert.is(migrated(solo), 0, sealing)
    assert.is(solo.endpoint.sessions, 1)
    for (const { peer } of solo.take()) assert.is(addressKey(peer), addressKey(TESTER))
  }
})

test('replayed datagrams of the peer move nothing', () => {
  const solo = open('random')
  const datagram = solo.seal(push(5, 2, text('c'), { una: 1 }))
  solo.feedRaw(TESTER, datagram)
  solo.run(SILENCE_MS)
  solo.feedRaw(MOVED, datagram)
  assert.is(migrated(solo), 0)
})

for (const direction of ['up', 'down', 'both'] as const) {
  test(`a NAT changes the client's port in the middle of a transfer: it goes on (${direction})`, () => {
    for (let seed = 1; seed <= 5; seed++) {
      const pair = new Pair({ seed, sealing: 'random', up: { loss: 0.02, delay: 20 }, down: { loss: 0.02, delay: 20 } })
      const connection = pair.connect({
        client: { bytes: direction === 'down' ? 200 : 600_000, stream: 1, writeRate: 200 },
        server: { bytes: direction === 'up' ? 200 : 600_000, stream: 2, writeRate: 200 },
      })
      for (let i = 0; i < 3; i++) {
        pair.run(700)
        pair.clientAddress = address4(1, 41000 + i)
      }
      assert.ok(pair.finish(120), `seed ${seed}: ${connection.describe()}`)
      assert.ok(connection.clean, `seed ${seed}: ${connection.describe()}`)
    }
  })
}

test('many sessions move together', () => {
  const pair = new Pair({ seed: 2, sealing: 'counter' })
  for (let i = 0; i < 30; i++) {
    pair.connect({
      client: { bytes: 40_000, stream: 2 * i + 1, writeRate: 20 },
      server: { bytes: 40_000, stream: 2 * i + 2, writeRate: 20 },
    })
  }
  pair.run(800)
  pair.clientAddress = address4(1, 45000)
  assert.ok(pair.finish(120))
  for (const connection of pair.connections) assert.ok(connection.clean, connection.describe())
})

test.run()
