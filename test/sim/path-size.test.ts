// time limit: 240 s
/**
 * The search for the largest datagram that a path takes (protocol.md 4.1): what it finds on links of limited size, that
 * loss does not mislead it, that it is quiet without traffic, and that no session stalls when a path takes less than
 * before.
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { CoreConfig } from '../../host/engine/core.ts'
import { address4, address6 } from '../../testkit/sim/address.ts'
import { Mixed } from '../../testkit/sim/mixed.ts'
import { type Connection, Pair, type Side } from '../../testkit/sim/pair.ts'

const test = suite('sim/path-size')

/** IP and UDP headers (IPv4), and tag and nonce of sealing `random`, bytes. */
const HEADERS = 28
const SEAL = 40
/** The top of the search: IP packets of 1500 bytes. */
const TOP = 1500 - HEADERS - SEAL
const SEARCHING: Partial<CoreConfig> = { searchMtu: TOP, sndwnd: 4096, rcvwnd: 4096 }
/** Sizes that passed and failed are this close when a search ends. */
const PRECISION = 4

interface Sizes {
  /** Longest datagram that left each side since it was cleared, bytes of the IP packet. */
  readonly longest: Record<Side, number>
  readonly fragmented: Record<Side, number>
}

/** A pair that searches, over links that drop IP packets of more than `limit` bytes. */
function makePair(seed: number, limit: number, more: { loss?: number; delay?: number } = {}): Pair & { sizes: Sizes } {
  const link = { longest: limit === 0 ? 0 : limit - HEADERS, loss: more.loss ?? 0, delay: more.delay ?? 10, rate: 2500 }
  const pair = new Pair({ seed, sealing: 'random', client: SEARCHING, server: SEARCHING, up: link, down: link })
  const sizes: Sizes = { longest: { client: 0, server: 0 }, fragmented: { client: 0, server: 0 } }
  pair.tap = (from, bytes) => {
    sizes.longest[from] = Math.max(sizes.longest[from], bytes.length + HEADERS)
    return true
  }
  return Object.assign(pair, { sizes })
}

const both = (bytes: number) => ({ client: { bytes, stream: 1 }, server: { bytes, stream: 2 } })
const down = (bytes: number) => ({ client: {}, server: { bytes, stream: 2 } })

/** The size that each side uses now, bytes of the IP packet. */
const pathMtu = (pair: Pair, side: Side): number => pair[side].counter('path_bytes') + HEADERS

function assertClean(pair: Pair, connection: Connection, seconds = 60): void {
  assert.ok(
    pair.runUntil(() => connection.over, seconds),
    connection.describe(),
  )
  assert.ok(connection.clean, connection.describe())
}

for (const limit of [0, 1500, 1492, 1480, 1420]) {
  test(`packets up to ${limit || 'any number of'} bytes pass: both ends find it while data flows`, () => {
    const pair = makePair(1, limit)
    const connection = pair.connect(both(12_000_000))
    assertClean(pair, connection)
    const most = limit || 1500
    for (const side of ['client', 'server'] as const) {
      const found = pathMtu(pair, side)
      assert.ok(found <= most && found >= most - PRECISION, `${side}: ${found}`)
      assert.ok(pair[side].counter('size_tests_sent') <= 24, `${pair[side].counter('size_tests_sent')} tests`)
      assert.is(pair[side].counter('segments_oversized'), 0)
    }
    // a connection made afterwards begins with it, and tests nothing again
    const tests = pair.client.counter('size_tests_sent')
    pair.sizes.longest.client = 0
    assertClean(pair, pair.connect(both(100_000)))
    assert.is(pair.sizes.longest.client, pathMtu(pair, 'client'))
    assert.is(pair.client.counter('size_tests_sent'), tests)
  })
}

test('a path that takes 1400 bytes keeps them: tests are neither losses nor unanswered pings', () => {
  const pair = makePair(2, 1400)
  let silent = 0
  const connection = pair.connect(both(12_000_000))
  while (!connection.over && pair.step()) silent = Math.max(silent, pair.client.counter('peer_silent_pings'))
  assert.ok(connection.clean, connection.describe())
  assert.ok(pair.client.counter('size_tests_sent') >= 3)
  assert.is(silent, 0)
  for (const side of ['client', 'server'] as const) {
    assert.is(pair[side].counter('path_bytes'), 0, side)
    assert.is(pair[side].counter('segments_retransmitted'), 0, side)
    assert.is(pair[side].counter('rtos'), 0, side)
  }
})

for (const limit of [1280, 1200, 800]) {
  test(`a path that takes ${limit} bytes: the first session gets through, and what passes is found`, () => {
    const pair = makePair(3, limit)
    const connection = pair.connect(both(20_000_000))
    assertClean(pair, connection, 120)
    for (const side of ['client', 'server'] as const) {
      const found = pathMtu(pair, side)
      assert.ok(found <= limit && found >= limit - PRECISION, `${side}: ${found}`)
      assert.ok(pair[side].counter('segments_oversized') > 0, side)
    }
  })
}

test('a server that fills its window at once into a black hole of size notices it', () => {
  const pair = makePair(4, 1300)
  // the answer is larger than the congestion window of the start
  assertClean(pair, pair.connect({ client: { bytes: 10, stream: 1 }, server: { bytes: 300_000, stream: 2 } }), 30)
})

for (const [before, after] of [
  [1500, 1492],
  [1500, 1400],
  [1500, 1280],
  [1400, 1280],
] as const) {
  test(`a path that takes ${before} bytes takes ${after} in the middle of a transfer: it goes on`, () => {
    const pair = makePair(5, before)
    const connection = pair.connect(both(after === 1280 ? 60_000_000 : 20_000_000))
    pair.run(3000)
    const { received } = connection.client
    assert.ok(received > 3_000_000 && received < 15_000_000, connection.describe())
    for (const link of [pair.up, pair.down]) link.options = { ...link.options, longest: after - HEADERS }
    // detection takes seconds
    assert.ok(
      pair.runUntil(() => connection.client.received > received + 2_000_000, 20),
      connection.describe(),
    )
    assertClean(pair, connection, 120)
    for (const side of ['client', 'server'] as const) {
      const found = pathMtu(pair, side)
      assert.ok(found <= after && found >= after - PRECISION, `${side}: ${found}`)
    }
  })
}

test('a path that takes more again is noticed after ten minutes of traffic', () => {
  const pair = makePair(6, 1400)
  // keeps the path in use
  pair.connect({ client: { fin: 'never' }, server: { fin: 'never' } })
  assertClean(pair, pair.connect(down(40_000_000)))
  assert.is(pair.server.counter('path_bytes'), 0)
  for (const link of [pair.up, pair.down]) link.options = { ...link.options, longest: 0 }
  pair.run(500_000)
  const tests = pair.server.counter('size_tests_sent')
  assertClean(pair, pair.connect(down(1_000_000)))
  assert.is(pair.server.counter('size_tests_sent'), tests)
  pair.run(120_000)
  assertClean(pair, pair.connect(down(1_000_000)))
  assert.is(pathMtu(pair, 'server'), 1500)
})

test('loss of 10 % each way ends above 1400 bytes and never below', () => {
  for (let seed = 1; seed <= 6; seed++) {
    const pair = makePair(seed, 0, { loss: 0.1, delay: 20 })
    let least = 1500
    const connection = pair.connect(both(4_000_000))
    while (!connection.over && pair.step()) {
      for (const side of ['client', 'server'] as const)
        if (pair[side].counter('path_bytes') !== 0) least = Math.min(least, pathMtu(pair, side))
    }
    assert.ok(connection.clean, connection.describe())
    assert.ok(least >= 1400, `seed ${seed}: ${least}`)
    for (const side of ['client', 'server'] as const)
      assert.ok(pathMtu(pair, side) >= 1480, `seed ${seed}: ${side}: ${pathMtu(pair, side)}`)
  }
})

test('loss of 30 % each way reduces nothing', () => {
  for (let seed = 1; seed <= 4; seed++) {
    const pair = makePair(seed, 0, { loss: 0.3 })
    for (let i = 0; i < 3; i++) assertClean(pair, pair.connect(both(200_000)), 200)
    for (const side of ['client', 'server'] as const) {
      const { counters } = { counters: pair[side] }
      assert.ok(counters.counter('path_bytes') === 0 || pathMtu(pair, side) >= 1400, `seed ${seed} ${side}`)
    }
  }
})

test('an outage of 40 s in the middle of a transfer reduces nothing and ends no session', () => {
  for (let seed = 1; seed <= 3; seed++) {
    const pair = makePair(seed, 0)
    const connection = pair.connect(both(15_000_000))
    pair.run(3000)
    pair.up.blackhole = pair.down.blackhole = true
    pair.run(40_000)
    pair.up.blackhole = pair.down.blackhole = false
    assertClean(pair, connection)
    for (const side of ['client', 'server'] as const) assert.is(pathMtu(pair, side), 1500, `seed ${seed} ${side}`)
  }
})

test('small messages, a short transfer and silence test nothing', () => {
  const pair = makePair(7, 0)
  const chat = pair.connect({
    client: { bytes: 20_000, stream: 1, writeRate: 0.2, fin: 'never' },
    server: { bytes: 20_000, stream: 2, writeRate: 0.2, fin: 'never' },
  })
  assertClean(pair, pair.connect(down(30_000)))
  pair.run(120_000)
  assert.is(chat.client.received, 20_000)
  for (const side of ['client', 'server'] as const) assert.is(pair[side].counter('size_tests_sent'), 0, side)
})

/** Steps of the minute after a transfer in which the search began. */
function idleSteps(isSearching: boolean): number {
  const link = { longest: 1400 - HEADERS }
  const config = isSearching ? SEARCHING : { ...SEARCHING, searchMtu: 0 }
  const pair = new Pair({ seed: 8, sealing: 'random', client: config, server: config, up: link, down: link })
  pair.connect({ client: {}, server: { bytes: 1_000_000, stream: 2, fin: 'never' } })
  pair.run(10_000)
  const tests = pair.server.counter('size_tests_sent')
  assert.ok(isSearching ? tests > 0 && tests < 6 : tests === 0, `${tests}`)
  let steps = 0
  while (pair.step(8 * 70_000)) steps++
  assert.is(pair.server.counter('size_tests_sent'), tests)
  return steps
}

test('an interrupted search wakes nobody up', () => {
  assert.is(idleSteps(true), idleSteps(false))
})

test('over IPv6, what is to be fragmented is longer than an interface of 1500 bytes takes', () => {
  const pair = makePair(10, 1400)
  pair.clientAddress = address6(1, 40000)
  let longest = 0
  pair.tap = (from, bytes) => {
    if (from === 'server' && bytes.length > 1452) longest = Math.max(longest, bytes.length)
    return true
  }
  for (const link of [pair.up, pair.down]) link.options = { ...link.options, longest: 1300 }
  assertClean(pair, pair.connect(down(2_000_000)))
  assert.ok(pair.server.counter('segments_oversized') > 0)
  // as long as window announcements of 24 bytes allow, and as a receiver accepts
  assert.ok(longest > 1500 - 24 && longest <= 1500, `${longest}`)
  assert.is(pair.client.counter('drop_malformed'), 0)
})

test('a session that moves to another path uses what is known there', () => {
  const pair = makePair(9, 0)
  const connection = pair.connect(down(60_000_000))
  pair.run(3000)
  assert.is(pathMtu(pair, 'server'), 1500)
  pair.clientAddress = address4(1, 45000)
  for (const link of [pair.up, pair.down]) link.options = { ...link.options, longest: 1450 - HEADERS }
  pair.run(10_000)
  const found = pathMtu(pair, 'server')
  assert.ok(found <= 1450 && found >= 1450 - PRECISION, `${found}`)
  assertClean(pair, connection, 120)
  assert.is(pair.server.counter('segments_oversized') > 0, true)
})

test('without a search nothing is tested, and datagrams keep their size', () => {
  const pair = new Pair({ seed: 1, sealing: 'random', up: { longest: 1372 }, down: { longest: 1372 } })
  assertClean(pair, pair.connect(both(3_000_000)))
  for (const side of ['client', 'server'] as const) {
    assert.is(pair[side].counter('size_tests_sent'), 0)
    assert.is(pair[side].counter('path_bytes'), 0)
  }
})

test('goodput on a link of 20 Mbit/s is not less than with packets of 1400 bytes', () => {
  for (const loss of [0, 0.02]) {
    const goodput = [0, TOP].map((searchMtu) => {
      const link = { delay: 25, rate: 2500, loss, queue: 125_000 }
      const config = { ...SEARCHING, searchMtu }
      const pair = new Pair({ seed: 1, sealing: 'random', client: config, server: config, up: link, down: link })
      const connection = pair.connect(down(40_000_000))
      pair.run(8000)
      return connection.client.received
    })
    assert.ok((goodput[1] ?? 0) > 0.99 * (goodput[0] ?? 0), `loss ${loss}: ${goodput}`)
  }
})

for (const ours of ['client', 'server'] as const) {
  for (const limit of [1500, 1460, 1300]) {
    test(`${ours} with a kcptun-libev peer, packets up to ${limit} bytes`, () => {
      const mixed = new Mixed({
        seed: 1,
        ours,
        config: { searchMtu: 1500 - HEADERS },
        link: { delay: 10, longest: limit - HEADERS },
        libev: { kcp: { mtu: 1300 - HEADERS } },
        script: { ours: { bytes: 20_000_000, fin: 'never' }, libev: { bytes: 1000, fin: 'never' } },
      })
      assert.ok(
        mixed.runUntil(() => mixed.session?.received === 20_000_000, 120),
        mixed.describe(),
      )
      const found = mixed.endpoint.counter('path_bytes') + HEADERS
      assert.ok(found <= limit && found >= limit - PRECISION, `${found}`)
    })
  }
}

test.run()
