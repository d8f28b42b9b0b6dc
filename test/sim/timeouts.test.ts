// time limit: 120 s
/** Timeouts of idle and busy sessions, unresponsive peers, keepalives (protocol.md 6.7, 7.3, 7.6). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MS } from '../../testkit/sim/endpoint.ts'
import { Pair, type Side } from '../../testkit/sim/pair.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { ack, DIAL, push, What } from '../../testkit/sim/wire.ts'

const HOUR_MS = 3_600_000
const QUIET = {
  client: { bytes: 10, stream: 1, fin: 'never' },
  server: { bytes: 10, stream: 2, fin: 'never' },
} as const

const test = suite('sim/timeouts')

test('MUST 47: an idle session stays usable for 12 hours while both ends run', () => {
  const pair = new Pair({ seed: 1, up: { loss: 0.02 }, down: { loss: 0.02 } })
  const connection = pair.connect({
    client: { bytes: 10, stream: 1, fin: 'last' },
    server: { bytes: 10, stream: 2, fin: 'send', finPause: 12 * HOUR_MS },
  })
  pair.run(12 * HOUR_MS - 1000)
  assert.is(connection.client.ending, undefined, connection.describe())
  assert.is(connection.server?.ending, undefined, connection.describe())
  assert.ok(pair.finish(60))
  assert.ok(connection.clean, connection.describe())
})

test('an idle session sends a KEEPALIVE after half of `timeout`, at the accepting side after three quarters', () => {
  for (const [role, wanted] of [
    ['client', 30],
    ['server', 45],
  ] as const) {
    const solo = new Solo({ role, config: { timeout: 60 } })
    const conv = role === 'client' ? solo.endpoint.convOf(solo.open()) : 5
    if (role === 'server') solo.feed(push(conv, 0, DIAL))
    else for (const { sn, ts } of solo.takeSegments(conv)) solo.feed(ack(conv, sn, ts, sn + 1))
    const from = solo.ms
    solo.run(1000)
    solo.take()
    solo.run(58_000)
    const first = solo.take().find(({ segments }) => segments.some(({ cmd }) => cmd === 'PUSH'))
    assert.is(Math.round(((first?.ms ?? 0) - from) / 1000), wanted, role)
  }
})

test('idle sessions send only keepalives', () => {
  const pair = new Pair({ seed: 2 })
  pair.connect(QUIET)
  pair.run(5000)
  let datagrams = 0
  pair.tap = () => {
    datagrams++
    return true
  }
  pair.run(HOUR_MS)
  // PING and PONG, WASK and WINS, every 25 s are 576; a KEEPALIVE exchange of 4 datagrams per half timeout is 48
  assert.ok(datagrams < 624, `${datagrams} datagrams in an hour`)
  assert.ok(datagrams > 50, `${datagrams} datagrams in an hour`)
})

for (const direction of ['up', 'down'] as const) {
  test(`MUST 47: a one-way transfer is not cut at timeout (${direction})`, () => {
    const source = { bytes: 600_000, stream: 1, fin: 'send', writeRate: 2, chunk: 1000 } as const
    const sink = { bytes: 0, stream: 2, fin: 'last' } as const
    const pair = new Pair({ seed: 4, client: { timeout: 60 }, server: { timeout: 60 } })
    const connection = pair.connect(
      direction === 'up' ? { client: source, server: sink } : { client: sink, server: source },
    )
    assert.ok(pair.finish(1000))
    assert.ok(connection.clean, connection.describe())
    assert.ok(pair.ms > 290_000)
  })

  test(`a reader paused for longer than timeout does not end the session while both ends run (${direction})`, () => {
    // the window is closed for several minutes: only probes and keepalives are sent
    const source = { bytes: 400_000, stream: 1, fin: 'send' } as const
    const sink = { bytes: 0, stream: 2, fin: 'last', readRate: 0.7 } as const
    const pair = new Pair({ seed: 5, client: { timeout: 60, linger: 10 }, server: { timeout: 60, linger: 10 } })
    const connection = pair.connect(
      direction === 'up' ? { client: source, server: sink } : { client: sink, server: source },
    )
    assert.ok(pair.finish(4000), connection.describe())
    assert.ok(connection.clean, connection.describe())
  })
}

test('MUST 47: a new session without any reply is dropped after 30 s and TCP is reset', () => {
  const pair = new Pair({ seed: 6 })
  pair.up.blackhole = true
  const connection = pair.connect({ client: { bytes: 1000, stream: 1, fin: 'send' }, server: {} })
  assert.ok(pair.runUntil(() => connection.client.ending !== undefined, 100))
  assert.is(connection.client.ending, 'aborted')
  assert.is(connection.client.reason, 3)
  assert.ok(connection.client.endedAt >= 30_000 && connection.client.endedAt <= 40_000, `${connection.client.endedAt}`)
})

test('MUST 26: unacknowledged segments are retransmitted with back-off until the session ends', () => {
  const pair = new Pair({ seed: 6 })
  const times: number[] = []
  pair.up.blackhole = true
  pair.tap = (from: Side, bytes) => {
    if (from === 'client' && bytes[4] === 81) times.push(pair.ms)
    return true
  }
  // small segments are sent twice: use a larger one
  pair.connect({ client: { bytes: 1000, stream: 1, fin: 'never' }, server: {} })
  pair.run(40_000)
  assert.ok(times.length >= 4, `${times}`)
  const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0))
  assert.ok((gaps[0] ?? 0) <= 4000 && (gaps[0] ?? 0) >= 30, `first retransmission after ${gaps[0]} ms`)
  assert.ok((gaps.at(-1) ?? 0) > 2 * (gaps[0] ?? 0), `no back-off: ${gaps}`)
  assert.ok((times.at(-1) ?? 0) <= 40_000)
})

test('MUST 47: an established session whose peer vanishes ends at timeout, by a reset if data is in flight', () => {
  for (const bytes of [0, 5_000_000]) {
    const pair = new Pair({ seed: 8, client: { timeout: 60 }, server: { timeout: 60 } })
    const connection = pair.connect({
      client: { bytes, stream: 1, fin: 'never' },
      server: { bytes: 10, stream: 2, fin: 'never' },
    })
    pair.run(500)
    pair.up.blackhole = pair.down.blackhole = true
    const cut = pair.ms
    assert.ok(pair.finish(200), connection.describe())
    assert.is(connection.client.ending, 'aborted')
    assert.is(connection.server?.ending, 'aborted')
    for (const app of [connection.client, connection.server]) {
      assert.is(app?.reason, 1)
      const after = (app?.endedAt ?? 0) - cut
      assert.ok(after >= 55_000 && after <= 71_000, `ended ${after} ms after the cut`)
    }
  }
})

test('an outage shorter than timeout is survived', () => {
  for (const seconds of [5, 45]) {
    const pair = new Pair({ seed: 15, client: { timeout: 60 }, server: { timeout: 60 } })
    const connection = pair.connect({
      client: { bytes: 500_000, stream: 1, fin: 'send' },
      server: { bytes: 500_000, stream: 2, fin: 'send' },
    })
    pair.run(30)
    pair.up.blackhole = pair.down.blackhole = true
    pair.run(seconds * 1000)
    pair.up.blackhole = pair.down.blackhole = false
    assert.ok(pair.finish(300), connection.describe())
    assert.ok(connection.clean, connection.describe())
  }
})

test('the link fails while EOF is unacknowledged: the sender does not report a clean end before timeout', () => {
  const pair = new Pair({
    seed: 16,
    client: { timeout: 60, linger: 5 },
    server: { timeout: 60, linger: 5 },
    up: { delay: 100 },
    down: { delay: 100 },
  })
  const connection = pair.connect({
    client: { bytes: 300_000, stream: 1, fin: 'send' },
    server: { bytes: 0, stream: 2, fin: 'last' },
  })
  // the first window is in flight, the rest and EOF are not
  pair.run(90)
  pair.up.blackhole = pair.down.blackhole = true
  assert.ok(pair.finish(300))
  assert.is(connection.client.ending, 'aborted')
  assert.is(connection.server?.ending, 'aborted')
  assert.not.ok(connection.server?.eof)
})

test('MUST 52: a client pings at start, and after 1 to 1.25 times keepalive without sending', () => {
  const gaps: number[] = []
  for (let seed = 1; seed <= 20; seed++) {
    const solo = new Solo({ role: 'client', seed })
    const pings: number[] = []
    for (let i = 0; i < 300; i++) {
      for (const output of solo.take()) {
        assert.is(output.conv, 0)
        assert.is(output.plain[5], What.PING)
        pings.push(output.ms)
        const pong = output.plain.slice()
        pong[5] = What.PONG
        solo.feed(pong)
      }
      solo.run(1000)
    }
    assert.is(pings[0], 0)
    gaps.push(...pings.slice(1).map((at, i) => at - (pings[i] ?? 0)))
  }
  assert.ok(gaps.length > 100)
  assert.ok(Math.min(...gaps) >= 24_990, `${Math.min(...gaps)}`)
  assert.ok(Math.max(...gaps) <= 31_260, `${Math.max(...gaps)}`)
  assert.ok(Math.max(...gaps) - Math.min(...gaps) > 3000, 'no jitter')
})

test('MUST 52: the first ping is sent at once at any clock value, the second with jitter', () => {
  const gaps = [1, 0x4000_0000, 0x9000_0000, 0xffff_ff00].map((clock, seed) => {
    const solo = new Solo({ role: 'client', seed, clock })
    solo.run(1)
    const [ping] = solo.take()
    assert.is(ping?.plain[5], What.PING, `clock ${clock}`)
    const pong = ping?.plain.slice() ?? new Uint8Array(6)
    pong[5] = What.PONG
    solo.feed(pong)
    solo.run(60_000)
    return solo.take()[0]?.ms ?? 0
  })
  assert.is(new Set(gaps).size, gaps.length, gaps.join())
})

test('MUST 52: with keepalive 0 a client does not ping again', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 0 } })
  solo.run(HOUR_MS)
  const pings = solo.take().filter((output) => output.plain[5] === What.PING)
  assert.ok(pings.length <= 1, `${pings.length} pings`)
})

test('MUST 52: a changed keepalive takes effect with the next ping', () => {
  const solo = new Solo({ role: 'client', config: { keepalive: 25 } })
  /** Times of the pings within some seconds, all of them answered. */
  const pings = (seconds: number): number[] => {
    const times: number[] = []
    for (let i = 0; i < seconds; i++) {
      for (const { ms, plain } of solo.take()) {
        if (plain[5] !== What.PING) continue
        times.push(ms)
        const pong = plain.slice()
        pong[5] = What.PONG
        solo.feed(pong)
      }
      solo.run(1000)
    }
    return times
  }
  assert.ok(pings(300).length >= 8)
  solo.endpoint.reconfigure({ keepalive: 5 })
  pings(60)
  const often = pings(300).length
  assert.ok(often >= 40 && often <= 61, `${often} pings`)
  solo.endpoint.reconfigure({ keepalive: 0 })
  pings(60)
  assert.equal(pings(3600), [])
})

test('MUST 52: a busy client does not ping: any datagram counts as sent', () => {
  const pair = new Pair({ seed: 4 })
  let pings = 0
  pair.tap = (from, bytes) => {
    if (from === 'client' && bytes.length === 10 && bytes[5] === What.PING) pings++
    return true
  }
  pair.connect({
    client: { bytes: 200_000, stream: 1, fin: 'send', writeRate: 1, chunk: 1000 },
    server: { bytes: 0, stream: 2, fin: 'last' },
  })
  pair.run(190_000)
  assert.is(pings, 1)
})

test('servers do not ping', () => {
  const solo = new Solo({ role: 'server' })
  solo.run(HOUR_MS)
  assert.is(solo.take().length, 0)
})

test('an engine without sessions and keepalive wakes up only to check for an unresponsive peer', () => {
  const solo = new Solo({ role: 'server', config: { keepalive: 0 } })
  let wakes = 0
  while (solo.ms < HOUR_MS) {
    wakes++
    solo.run((solo.endpoint.deadline - solo.endpoint.time) / MS)
  }
  // T is 10 s without keepalive (protocol.md 7.4)
  assert.ok(wakes <= 361, `${wakes} wake-ups in an hour`)
})

test.run()
