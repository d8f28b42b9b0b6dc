/**
 * A path that drops large datagrams silently (MTU below kcp.mtu): the tunnel detects and reports it, and new
 * connections work.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/engine/core.ts'
import { address4 } from '../../testkit/sim/address.ts'
import { Mixed } from '../../testkit/sim/mixed.ts'
import { Pair } from '../../testkit/sim/pair.ts'

const test = suite('sim/mtu')

/** Counts events of a type from the client's engine. */
function countEvents(pair: Pair, type: number): () => number {
  let seen = 0
  const { core } = pair.client
  const poll = core.calls.poll_events
  Object.defineProperty(core, 'calls', {
    value: {
      ...core.calls,
      poll_events: () => {
        const n = poll()
        core.refresh()
        for (let i = 0; i < n; i++) if (core.u32[core.eventWord + 4 * i] === type) seen++
        return n
      },
    },
  })
  return () => seen
}

for (const limit of [1300, 1150, 700]) {
  test(`datagrams above ${limit} bytes are dropped: later connections transfer everything`, () => {
    const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
    const events = countEvents(pair, EventType.MTU)
    pair.tap = (_, bytes) => bytes.length <= limit
    const script = { client: { bytes: 100_000, stream: 1 }, server: { bytes: 200, stream: 2 } }
    let clean = false
    for (let i = 0; i < 6 && !clean; i++) {
      const connection = pair.connect(script)
      pair.runUntil(() => connection.over, 60)
      clean = connection.clean
      assert.ok(clean || connection.client.ending !== undefined, `not over: ${connection.describe()}`)
    }
    assert.ok(clean, pair.connections.map((c) => c.describe()).join('\n'))
    assert.ok(events() >= 1)
  })
}

test('padding does not make datagrams larger than the path MTU', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
  // 1132 bytes of plaintext, tag and nonce: exactly the first smaller size
  let lost = 0
  pair.tap = (_, bytes) => {
    if (bytes.length > 1172) lost++
    return bytes.length <= 1172
  }
  const script = { client: { bytes: 100_000, stream: 1 }, server: { bytes: 200, stream: 2 } }
  let lostBefore = 0
  for (let i = 0; i < 6 && !pair.connections.at(-1)?.clean; i++) {
    lostBefore = lost
    const connection = pair.connect(script)
    pair.runUntil(() => connection.over, 60)
  }
  assert.ok(pair.connections.at(-1)?.clean, pair.connections.map((c) => c.describe()).join('\n'))
  assert.is(lost - lostBefore, 0)
})

test('loss alone does not make datagrams smaller', () => {
  for (let seed = 1; seed <= 5; seed++) {
    const pair = new Pair({
      seed,
      sealing: 'random',
      client: { keepalive: 25 },
      up: { loss: 0.3 },
      down: { loss: 0.3 },
    })
    const events = countEvents(pair, EventType.MTU)
    const connection = pair.connect({ client: { bytes: 300_000, stream: 1 }, server: { bytes: 200, stream: 2 } })
    assert.ok(pair.finish(200), connection.describe())
    assert.ok(connection.clean, connection.describe())
    assert.is(events(), 0, `seed ${seed}`)
  }
})

test('30 % loss each way ends no short connection with a kcptun-libev peer', () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const end = { bytes: 1000, fin: 'never' } as const
    const mixed = new Mixed({
      seed,
      ours: 'server',
      link: { delay: 15, loss: 0.3 },
      script: { ours: end, libev: end },
    })
    const isOver = (): boolean => mixed.app?.received === 1000 && mixed.session?.received === 1000
    assert.ok(mixed.runUntil(isOver, 60), `seed ${seed}: ${mixed.describe()}`)
  }
})

test('a session that migrates to a path without that limit sends large datagrams again', () => {
  const pair = new Pair({ seed: 3, sealing: 'random', client: { keepalive: 25 } })
  const limited = pair.clientAddress
  let largest = 0
  pair.tap = (from, bytes) => {
    if (from === 'client') return true
    if (pair.clientAddress === limited) return bytes.length <= 1150
    largest = Math.max(largest, bytes.length)
    return true
  }
  const down = (bytes: number) => ({ client: {}, server: { bytes, stream: 2, writeRate: 200 } })
  // the first connections detect the limit
  for (let i = 0; i < 6 && !pair.connections.at(-1)?.clean; i++) {
    const connection = pair.connect(down(20_000))
    pair.runUntil(() => connection.over, 60)
  }
  assert.ok(pair.connections.at(-1)?.clean, pair.connections.map((c) => c.describe()).join('\n'))
  const connection = pair.connect(down(2_000_000))
  pair.run(3000)
  const before = connection.client.received
  assert.ok(before > 0, connection.describe())
  pair.clientAddress = address4(1, 45000)
  assert.ok(
    pair.runUntil(() => connection.over, 120),
    connection.describe(),
  )
  assert.ok(connection.clean, connection.describe())
  assert.ok(largest > 1300, `${largest} bytes`)
})

test.run()
