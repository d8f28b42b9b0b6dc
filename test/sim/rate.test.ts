// time limit: 120 s
/**
 * Rate limits (`rateUp`, `rateDown`, `sessionRateUp`, `sessionRateDown`): what passes between TCP and the streams, for
 * all of them and for each, shares, what a change does, and what it costs.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CoreConfig, UNSET } from '../../host/engine/core.ts'
import type { AppScript } from '../../testkit/sim/app.ts'
import { Mixed } from '../../testkit/sim/mixed.ts'
import { type Connection, Pair } from '../../testkit/sim/pair.ts'

const test = suite('sim/rate')

type Direction = 'up' | 'down'
const DIRECTIONS: readonly Direction[] = ['up', 'down']
/** A path of 100 Mbit/s with a round trip of 50 ms. */
const LINK = { delay: 25, rate: 12_500, queue: 500_000 }
const AUTOMATIC = { sndwnd: UNSET, rcvwnd: UNSET }
const ENDLESS = { bytes: 1e10, fin: 'never' } as const

/** The client is limited. */
function pairWith(config: Partial<CoreConfig>, more: { timerSlack?: number; link?: object } = {}): Pair {
  const { link, timerSlack } = more
  return new Pair({
    seed: 3,
    sealing: 'counter',
    client: { ...AUTOMATIC, ...config },
    server: AUTOMATIC,
    up: { ...LINK, ...link },
    down: { ...LINK, ...link },
    ...(timerSlack === undefined ? {} : { timerSlack }),
  })
}

let streams = 0
function transfer(pair: Pair, direction: Direction, script: Partial<AppScript> = {}): Connection {
  const sender = { ...ENDLESS, stream: ++streams, ...script }
  return pair.connect(direction === 'up' ? { client: sender, server: {} } : { client: {}, server: sender })
}

/** Bytes between the client's TCP connection and its stream. */
const passed = ({ client }: Connection, direction: Direction): number =>
  direction === 'up' ? client.sent : client.received

/** kbit/s of each connection during `ms`. */
function rates(pair: Pair, connections: readonly Connection[], direction: Direction, ms = 10_000): number[] {
  const before = connections.map((connection) => passed(connection, direction))
  pair.run(ms)
  return connections.map((connection, i) => ((passed(connection, direction) - (before[i] ?? 0)) * 8) / ms)
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

function assertNear(actual: number, wanted: number, share: number, text: string): void {
  assert.ok(Math.abs(actual - wanted) <= share * wanted, `${text}: ${actual.toFixed(1)}, expected ${wanted}`)
}

const fieldOf = (direction: Direction): 'rateUp' | 'rateDown' => (direction === 'up' ? 'rateUp' : 'rateDown')
const sessionFieldOf = (direction: Direction): 'sessionRateUp' | 'sessionRateDown' =>
  direction === 'up' ? 'sessionRateUp' : 'sessionRateDown'

for (const direction of DIRECTIONS) {
  test(`${direction}: all streams together get the rate, within 2 % over 10 s, and equal shares of it`, () => {
    for (const kbit of [100, 1000, 20_000]) {
      for (const n of [1, 5]) {
        const pair = pairWith({ [fieldOf(direction)]: kbit })
        const connections: Connection[] = []
        // they start at different times
        for (let i = 0; i < n; i++) pair.after(300 * i, () => connections.push(transfer(pair, direction)))
        pair.run(4000)
        const got = rates(pair, connections, direction)
        assertNear(sum(got), kbit, 0.02, `${n} streams`)
        for (const rate of got) assertNear(rate, kbit / n, 0.1, `one of ${n}`)
      }
    }
  })

  test(`${direction}: each stream has its own rate, and all keep to that of the tunnel`, () => {
    const each = 800
    const pair = pairWith({ [sessionFieldOf(direction)]: each })
    const connections = [1, 2, 3].map(() => transfer(pair, direction))
    pair.run(2000)
    for (const rate of rates(pair, connections, direction)) assertNear(rate, each, 0.02, 'one stream')
    pair.client.reconfigure({ [sessionFieldOf(direction)]: each, [fieldOf(direction)]: 1200 })
    pair.run(2000)
    for (const rate of rates(pair, connections, direction)) assertNear(rate, 400, 0.02, 'one of three')
  })

  test(`${direction}: timers that fire late cost nothing of the rate or of the shares`, () => {
    for (const kbit of [1000, 20_000]) {
      const pair = pairWith({ [fieldOf(direction)]: kbit }, { timerSlack: 20 })
      const connections = [1, 2, 3].map(() => transfer(pair, direction))
      pair.run(3000)
      const got = rates(pair, connections, direction)
      assertNear(sum(got), kbit, 0.02, `${kbit} kbit/s`)
      for (const rate of got) assertNear(rate, kbit / 3, 0.05, 'one of three')
    }
  })

  test(`${direction}: losses and their repair do not change the rate`, () => {
    const pair = pairWith({ [fieldOf(direction)]: 4000 }, { link: { loss: 0.02 } })
    const connections = [transfer(pair, direction)]
    pair.run(3000)
    assertNear(sum(rates(pair, connections, direction)), 4000, 0.02, 'with 2 % loss')
  })

  test(`${direction}: tiny writes get the same share as large ones`, () => {
    const pair = pairWith({ [fieldOf(direction)]: 3000 })
    const connections = [{}, { chunk: 50 }, { chunk: 1000 }].map((script) => transfer(pair, direction, script))
    pair.run(3000)
    for (const rate of rates(pair, connections, direction)) assertNear(rate, 1000, 0.1, 'one of three')
  })

  test(`${direction}: what a stream leaves of its share goes to the others`, () => {
    const pair = pairWith({ [fieldOf(direction)]: 3000 })
    const slow = transfer(pair, direction, { chunk: 500, writeRate: 25 })
    const connections = [slow, transfer(pair, direction), transfer(pair, direction)]
    pair.run(3000)
    const [first = 0, ...others] = rates(pair, connections, direction)
    assertNear(first, 200, 0.05, 'the slow one')
    for (const rate of others) assertNear(rate, 1400, 0.05, 'the others')
  })

  test(`${direction}: a change takes effect within two seconds, in both directions and to no limit`, () => {
    const steps: readonly (readonly [number, number])[] = [
      [1000, 20_000],
      [20_000, 1000],
      [0, 1000],
      [1000, 0],
    ]
    for (const [from, to] of steps) {
      const pair = pairWith({ [fieldOf(direction)]: from })
      const connections = [transfer(pair, direction)]
      pair.run(8000)
      pair.client.reconfigure({ [fieldOf(direction)]: to })
      pair.settle()
      pair.run(2000)
      const rate = sum(rates(pair, connections, direction, 2000))
      if (to === 0) assert.ok(rate > 80_000, `${rate} kbit/s without limit`)
      else assertNear(rate, to, 0.05, `from ${from}`)
    }
  })

  test(`${direction}: a small message beside bulk transfers waits for none of them`, () => {
    const waits = (config: Partial<CoreConfig>, bulk: number): number => {
      const pair = pairWith(config)
      for (let i = 0; i < bulk; i++) transfer(pair, direction)
      pair.run(3000)
      const small = transfer(pair, direction, { bytes: 64 * 200, chunk: 64, writeRate: 0.64 })
      const times: number[] = []
      const sentAt: number[] = []
      const far = (): { sent: number; received: number } | undefined => small.server
      for (let ms = 0; ms < 22_000 && times.length < 200; ms++) {
        pair.run(1)
        const [from, to] = direction === 'up' ? [small.client, far()] : [far(), small.client]
        while (sentAt.length < Math.floor((from?.sent ?? 0) / 64)) sentAt.push(ms)
        while (times.length < Math.floor((to?.received ?? 0) / 64)) times.push(ms - (sentAt[times.length] ?? 0))
      }
      assert.is(times.length, 200, 'all messages arrived')
      return times.sort((a, b) => a - b)[197] ?? 0
    }
    const alone = waits({}, 0)
    for (const bulk of [1, 8]) {
      const beside = waits({ [fieldOf(direction)]: 1000 }, bulk)
      assert.ok(beside <= alone + 6, `beside ${bulk}: p99 ${beside} ms, alone ${alone} ms`)
    }
  })

  test(`${direction}: after a pause a stream gets no more than a few segments at once`, () => {
    const pair = pairWith({ [fieldOf(direction)]: 1000 })
    pair.run(60_000)
    const connections = [transfer(pair, direction)]
    pair.runUntil(() => connections.some((one) => passed(one, direction) > 0), 10)
    const begun = connections.map((one) => passed(one, direction))
    const rate = sum(rates(pair, connections, direction, 1000))
    assert.ok(sum(begun) + (rate * 1000) / 8 < 125_000 + 15_000, `${rate} kbit/s in the first second`)
  })

  test(`${direction}: what is read ahead of TCP or waits to be sent is about a second at most`, () => {
    const pair = pairWith({ [fieldOf(direction)]: 4000 })
    const connection = transfer(pair, direction)
    pair.run(10_000)
    const { client, server } = connection
    const inside = direction === 'up' ? client.sent - (server?.received ?? 0) : (server?.sent ?? 0) - client.received
    // the sender's own buffer is not limited: 128 segments
    assert.ok(inside < 500_000 + (direction === 'up' ? 0 : 250_000), `${inside} bytes`)
  })
}

test('both directions and several limits do not disturb each other', () => {
  const pair = pairWith({ rateUp: 2000, rateDown: 3000, sessionRateUp: 1500, sessionRateDown: 2500 })
  const up = [transfer(pair, 'up'), transfer(pair, 'up')]
  const down = [transfer(pair, 'down'), transfer(pair, 'down')]
  pair.run(3000)
  const before = [up.map((one) => passed(one, 'up')), down.map((one) => passed(one, 'down'))].map(sum)
  pair.run(10_000)
  const after = [up.map((one) => passed(one, 'up')), down.map((one) => passed(one, 'down'))].map(sum)
  assertNear((((after[0] ?? 0) - (before[0] ?? 0)) * 8) / 10_000, 2000, 0.02, 'up')
  assertNear((((after[1] ?? 0) - (before[1] ?? 0)) * 8) / 10_000, 3000, 0.02, 'down')
})

test('every byte arrives, and nothing is left, if transfers end, break or are reset while they wait', () => {
  const pair = pairWith({ rateUp: 3000, rateDown: 3000, sessionRateUp: 1000, sessionRateDown: 1000 })
  const both = (bytes: number) => ({ bytes, stream: ++streams })
  for (let i = 0; i < 12; i++) {
    const connection = pair.connect({ client: both(100_000), server: both(80_000) })
    if (i % 4 === 1) pair.after(500 + 50 * i, () => connection.client.abort())
    if (i % 4 === 2) pair.after(500 + 50 * i, () => connection.server?.reset())
  }
  pair.after(1000, () => pair.client.reconfigure({ rateUp: 3000, rateDown: 0, sessionRateDown: 1000 }))
  assert.ok(pair.finish(60), 'all connections ended')
  for (const [i, connection] of pair.connections.entries())
    if (i % 4 === 0 || i % 4 === 3) assert.ok(connection.clean, connection.describe())
  pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 600)
  assert.is(pair.leak(), '')
})

test('a limit costs no wake-up while nothing waits for it', () => {
  const wakes = (config: Partial<CoreConfig>): number => {
    const pair = pairWith({ ...config, keepalive: 0 })
    transfer(pair, 'up', { bytes: 100_000 })
    pair.run(20_000)
    let wakes = 0
    for (const end = pair.ms + 100_000; pair.ms < end; wakes++) if (!pair.step((pair.ms + 1000) * 8)) wakes--
    return wakes
  }
  assert.is(wakes({ rateUp: 1000, rateDown: 1000, sessionRateUp: 500 }), wakes({}))
})

test('the time for which a limit holds back is counted', () => {
  const pair = pairWith({ rateUp: 1000, rateDown: 1000 })
  const seconds = (name: 'rate_up_held_ms' | 'rate_down_held_ms'): number => pair.client.counter(name) / 1000
  transfer(pair, 'up')
  pair.run(10_000)
  assert.ok(seconds('rate_up_held_ms') > 9 && seconds('rate_up_held_ms') <= 10, `${seconds('rate_up_held_ms')} s`)
  assert.is(seconds('rate_down_held_ms'), 0)
  const slow = pairWith({ rateUp: 10_000 })
  transfer(slow, 'up', { writeRate: 100, chunk: 1000 })
  slow.run(10_000)
  assert.is(slow.client.counter('rate_up_held_ms'), 0)
})

test('an engine that has a part of the rate keeps to it', () => {
  const pair = pairWith({ rateUp: 8000, rateDown: 8000 })
  const up = [transfer(pair, 'up')]
  const down = [transfer(pair, 'down')]
  assert.is(pair.client.core.calls.share_rate(16_384, 8192, pair.client.now), 0)
  pair.run(3000)
  assertNear(sum(rates(pair, up, 'up')), 2000, 0.02, 'a quarter')
  assertNear(sum(rates(pair, down, 'down')), 1000, 0.02, 'an eighth')
  assert.is(pair.client.core.calls.share_rate(65_537, 0, pair.client.now), -7)
})

test('a kcptun-libev peer that sends is read at the rate, without a pause', () => {
  const mixed = new Mixed({
    seed: 5,
    ours: 'client',
    config: { ...AUTOMATIC, rateDown: 4000 },
    link: { delay: 50 },
    script: { ours: { fin: 'never' }, libev: { bytes: 1e9, fin: 'never' } },
  })
  mixed.runUntil(() => false, 4)
  const begin = mixed.app?.received ?? 0
  let before = begin
  for (let i = 0; i < 100; i++) {
    mixed.runUntil(() => false, 0.1)
    const now = mixed.app?.received ?? 0
    assertNear(((now - before) * 8) / 100, 4000, 0.1, `step ${i}`)
    before = now
  }
  assertNear(((before - begin) * 8) / 10_000, 4000, 0.02, 'in 10 s')
})

test.run()
