/** A path that loses merged messages while single datagrams pass: the engine notices and sends single ones. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EventType } from '../../host/engine/core.ts'
import { Pair } from '../../testkit/sim/pair.ts'

const test = suite('sim/runs')

const LARGE = { client: { bytes: 1_200_000, stream: 1 }, server: { bytes: 1_200_000, stream: 2 } }
/** Enough to notice it: what is lost is sent alone in the end, so that runs get rare. */
const LONG = { client: { bytes: 8_000_000, stream: 1 }, server: { bytes: 8_000_000, stream: 2 } }
/** A request and an answer of two datagrams. */
const SMALL = { client: { bytes: 200, stream: 1 }, server: { bytes: 2000, stream: 2 } }

type Sides = readonly ('client' | 'server')[]

/** Counts RUNS_LOST of both engines, and merged datagrams. */
function watch(pair: Pair, losing: Sides, loss = 0, burst = 1): { events: Record<string, number>; merged: number } {
  const seen = { events: { client: 0, server: 0 } as Record<string, number>, merged: 0 }
  for (const side of ['client', 'server'] as const) {
    const { core } = pair[side]
    const poll = core.calls.poll_events
    Object.defineProperty(core, 'calls', {
      value: {
        ...core.calls,
        poll_events: () => {
          const n = poll()
          core.refresh()
          for (let i = 0; i < n; i++) {
            if (core.u32[core.eventWord + 4 * i] === EventType.RUNS_LOST)
              seen.events[side] = (seen.events[side] ?? 0) + 1
          }
          return n
        },
      },
    })
  }
  let isBad = false
  pair.tap = (from, _, isMerged) => {
    if (isMerged) seen.merged++
    isBad =
      burst === 1 || !isBad
        ? pair.random.chance(burst === 1 ? loss : loss / burst / (1 - loss))
        : !pair.random.chance(1 / burst)
    return !(isMerged && losing.includes(from)) && !isBad
  }
  return seen
}

for (const kcp of [{}, { nodelay: 1, sndWnd: 256, rcvWnd: 256 }]) {
  const what = 'nodelay' in kcp ? 'fixed windows' : 'automatic windows'
  for (const losing of [['client'], ['server'], ['client', 'server']] as const) {
    test(`the ${losing.join(' and the ')} notices it by itself and reports it once, ${what}`, () => {
      const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25, ...kcp }, server: kcp })
      const seen = watch(pair, losing)
      const connection = pair.connect(LONG)
      pair.runUntil(() => connection.over, 60)
      assert.ok(connection.clean, connection.describe())
      for (const side of ['client', 'server'] as const) {
        assert.is(seen.events[side], (losing as Sides).includes(side) ? 1 : 0, side)
      }
      // later connections know
      seen.merged = 0
      const second = pair.connect(LARGE)
      pair.runUntil(() => second.over, 20)
      assert.ok(second.clean, second.describe())
      if (losing.length === 2) assert.is(seen.merged, 0)
      else assert.ok(seen.merged > 0, 'the other end still merges')
    })
  }
}

test('short connections add up', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
  const seen = watch(pair, ['server'])
  for (let i = 0; i < 60 && seen.events['server'] === 0; i++) {
    const connection = pair.connect(SMALL)
    pair.runUntil(() => connection.over, 30)
    assert.ok(connection.clean, connection.describe())
  }
  assert.is(seen.events['server'], 1)
})

for (const [loss, burst] of [
  [0.01, 1],
  [0.1, 1],
  [0.3, 1],
  [0.3, 8],
] as const) {
  test(`${loss * 100} % loss in each direction${burst > 1 ? `, in bursts of ${burst},` : ''} is not taken for it`, () => {
    for (let seed = 1; seed <= 12; seed++) {
      const pair = new Pair({ seed, sealing: 'random', client: { keepalive: 25 } })
      const seen = watch(pair, [], loss, burst)
      for (let i = 0; i < 10; i++) {
        const [large, small] = [i === 0 ? pair.connect(LARGE) : undefined, pair.connect(SMALL)]
        pair.runUntil(() => small.over && (large === undefined || large.over), 120)
      }
      assert.equal(seen.events, { client: 0, server: 0 })
      assert.ok(seen.merged > 0)
    }
  })
}

test('from the fifth probe timeout on segments are sent one at a time, since a receiver may merge what comes at once', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
  const connection = pair.connect(LARGE)
  pair.runUntil(() => connection.over || pair.ms > 60, 10)
  const bursts = new Map<number, number>()
  pair.tap = (_, bytes) => {
    if (bytes.length > 1000) bursts.set(pair.ms, (bursts.get(pair.ms) ?? 0) + 1)
    return bytes.length <= 1000
  }
  const end = pair.ms + 5000
  pair.runUntil(() => pair.ms >= end, 10)
  pair.tap = undefined
  // both ends time out four times with two segments each
  const late = [...bursts.values()].slice(-4)
  assert.equal(late, [1, 1, 1, 1])
  pair.runUntil(() => connection.over, 60)
  assert.ok(connection.clean, connection.describe())
})

test('an outage is not taken for it', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
  const seen = watch(pair, [])
  const connection = pair.connect(LARGE)
  for (let i = 0; i < 20 && !connection.over; i++) {
    pair.up.blackhole = pair.down.blackhole = i % 2 === 1
    const end = pair.ms + 300
    pair.runUntil(() => connection.over || pair.ms >= end, 1)
  }
  pair.up.blackhole = pair.down.blackhole = false
  pair.runUntil(() => connection.over, 60)
  assert.ok(connection.clean, connection.describe())
  assert.equal(seen.events, { client: 0, server: 0 })
})

test('after an hour merged messages are tried again', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', client: { keepalive: 25 } })
  const seen = watch(pair, ['client', 'server'])
  const first = pair.connect(LONG)
  pair.runUntil(() => first.over, 60)
  pair.runUntil(() => false, 3601)
  const healed = watch(pair, [])
  const second = pair.connect(LARGE)
  pair.runUntil(() => second.over, 60)
  assert.ok(second.clean, second.describe())
  assert.ok(healed.merged > 0)
  assert.equal(seen.events, { client: 1, server: 1 })
})

test.run()
