/**
 * How connections end: half-close in each order, slow readers, refused targets, broken TCP, RESET (protocol.md
 * 6.5-6.8).
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { address4 } from '../../testkit/sim/address.ts'
import { type Connection, type ConnectionScript, Pair, type PairOptions } from '../../testkit/sim/pair.ts'
import { Cmd, control, KEEPALIVE, push, segment, What } from '../../testkit/sim/wire.ts'

const KIB = 1024

/** Runs one connection until it ends. */
function run(
  script: ConnectionScript,
  options: Partial<PairOptions> = {},
  seconds = 3600,
): { pair: Pair; connection: Connection } {
  const pair = new Pair({ seed: 7, ...options })
  const connection = pair.connect(script)
  assert.ok(pair.finish(seconds), `not over: ${connection.describe()}`)
  assert.ok(
    pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 3600),
    'sessions stay',
  )
  assert.is(pair.leak(), '')
  return { pair, connection }
}

const test = suite('sim/close')

const orders = [
  ['the client closes first', { fin: 'send' }, { fin: 'last' }],
  ['the server closes first', { fin: 'last' }, { fin: 'send' }],
  ['both close at once', { fin: 'send' }, { fin: 'send' }],
] as const

for (const [name, client, server] of orders) {
  test(`MUST 35, MUST 36: half-close works in both directions: ${name}`, () => {
    const { connection } = run({
      client: { bytes: 50 * KIB, stream: 1, ...client },
      server: { bytes: 300 * KIB, stream: 2, ...server },
    })
    assert.ok(connection.clean, connection.describe())
  })
}

test('MUST 35: a response that takes longer than linger arrives after the request was half-closed', () => {
  // a response of 90 s after an EOF, with linger 5 s
  const { connection } = run(
    {
      client: { bytes: 100, stream: 1, fin: 'send' },
      server: { bytes: 90_000, stream: 2, fin: 'last', writeRate: 1, chunk: 500 },
    },
    { client: { linger: 5 }, server: { linger: 5 } },
  )
  assert.ok(connection.clean, connection.describe())
})

test('MUST 47: a half-closed connection whose peer vanishes is reset after linger', () => {
  const pair = new Pair({ seed: 7 })
  const connection = pair.connect({
    client: { bytes: 100, stream: 1, fin: 'send' },
    server: { bytes: 0, fin: 'never' },
  })
  pair.run(1000)
  pair.up.blackhole = pair.down.blackhole = true
  pair.run(29_000)
  assert.is(connection.client.ending, undefined)
  pair.run(11_000)
  assert.is(connection.client.ending, 'aborted')
  assert.is(connection.client.reason, 2)
  // the server could still respond: its KEEPALIVEs remain unacknowledged, so there is no progress
  assert.ok(pair.finish(700), connection.describe())
  assert.is(connection.server?.ending, 'aborted')
})

test('MUST 47: an idle half-closed connection ends by timeout while both ends run', () => {
  const { connection } = run(
    { client: { bytes: 100, stream: 1, fin: 'send' }, server: { bytes: 0, fin: 'never' } },
    { client: { timeout: 60 }, server: { timeout: 60 } },
  )
  assert.is(connection.client.ending, 'aborted')
  assert.is(connection.server?.ending, 'aborted')
  assert.not.ok(connection.client.eof)
  for (const app of [connection.client, connection.server]) {
    assert.ok((app?.endedAt ?? 0) >= 30_000 && (app?.endedAt ?? 0) <= 75_000, `${app?.endedAt}`)
  }
})

for (const direction of ['up', 'down'] as const) {
  test(`a reader slower than linger loses nothing (${direction}): data before EOF is not truncated`, () => {
    // the sender has finished: 200 KB are queued for a reader of 2 bytes per ms, with linger 5 s
    const sender = { bytes: 200_000, stream: 3, fin: 'send' } as const
    const reader = { bytes: 0, stream: 4, fin: 'last', readRate: 2 } as const
    const { connection } = run(
      direction === 'up' ? { client: sender, server: reader } : { client: reader, server: sender },
      { client: { linger: 5, sndwnd: 64, rcvwnd: 128 }, server: { linger: 5, sndwnd: 64, rcvwnd: 128 } },
    )
    assert.ok(connection.clean, connection.describe())
  })
}

test('a reader slower than linger loses nothing when everything fits into its window', () => {
  const { connection } = run(
    {
      client: { bytes: 100_000, stream: 3, fin: 'send' },
      server: { bytes: 10, stream: 4, fin: 'last', readRate: 1.5 },
    },
    { client: { linger: 5 }, server: { linger: 5 } },
  )
  assert.ok(connection.clean, connection.describe())
})

test('MUST 34: a refused dial ends the connection by EOF, not RESET', () => {
  const pair = new Pair({ seed: 3 })
  let resets = 0
  pair.tap = (_from, bytes) => {
    if (bytes.length === 10 && bytes[5] === What.RESET) resets++
    return true
  }
  const connection = pair.connect({
    client: { bytes: 40 * KIB, stream: 1, fin: 'last' },
    server: {},
    refuse: true,
    dial: 20,
  })
  assert.ok(pair.finish(60), connection.describe())
  assert.is(connection.server?.ending, 'refused')
  assert.ok(connection.client.eof || connection.client.ending === 'detached', connection.describe())
  assert.is(resets, 0)
})

test('data sent after a refused dial is acknowledged and discarded: no stall', () => {
  const { pair, connection } = run({
    client: { bytes: 150 * KIB, stream: 1, fin: 'send' },
    server: {},
    refuse: true,
  })
  assert.is(connection.client.sent, 150 * KIB)
  assert.ok(connection.client.endedAt < 20_000, connection.describe())
  assert.is(connection.client.ending, 'detached')
  assert.is(pair.server.counter('discarded_bytes'), 150 * KIB)
})

test('an application that keeps sending after a refused dial is reset eventually: no stall', () => {
  const { connection } = run({
    client: { bytes: 50_000 * KIB, stream: 1, fin: 'send' },
    server: {},
    refuse: true,
  })
  assert.ok(connection.client.endedAt < 20_000, connection.describe())
})

test('data sent to an application that broke its connection is discarded: the other end finishes', () => {
  const pair = new Pair({ seed: 9 })
  const connection = pair.connect({
    client: { bytes: 1000, stream: 1, fin: 'never' },
    server: { bytes: 300 * KIB, stream: 2, fin: 'send', writeRate: 300 },
  })
  pair.after(300, () => connection.client.abort())
  assert.ok(pair.finish(25), connection.describe())
  assert.is(connection.server?.sent, 300 * KIB)
  assert.ok(connection.server?.eof || connection.server?.ending === 'detached', connection.describe())
})

test('MUST 34: a broken TCP connection at the target ends the stream by EOF', () => {
  const pair = new Pair({ seed: 9 })
  const connection = pair.connect({ client: { bytes: 1000, stream: 1, fin: 'last' }, server: { fin: 'never' } })
  pair.run(1000)
  connection.server?.abort()
  assert.ok(pair.finish(5), connection.describe())
  assert.ok(connection.client.eof)
  assert.is(connection.client.ending, 'detached')
})

test('MUST 45: RESET from the peer breaks the TCP connection: no false clean end', () => {
  const pair = new Pair({ seed: 11 })
  const connection = pair.connect({
    client: { bytes: 100, stream: 1, fin: 'never' },
    server: { bytes: 100, stream: 2, fin: 'never' },
  })
  pair.run(1000)
  pair.inject('client', control(What.RESET, connection.conv))
  assert.is(connection.client.ending, 'aborted')
  assert.is(connection.client.reason, 4)
  assert.not.ok(connection.client.eof)
})

test('MUST 45: RESET for another conv or from another peer changes nothing', () => {
  const pair = new Pair({ seed: 11 })
  const connection = pair.connect({
    client: { bytes: 100, stream: 1, fin: 'never' },
    server: { bytes: 100, stream: 2, fin: 'never' },
  })
  pair.run(1000)
  pair.inject('server', control(What.RESET, connection.conv + 1))
  pair.inject('server', control(What.RESET, connection.conv), address4(66, 666))
  pair.run(1000)
  assert.is(connection.client.ending, undefined)
  assert.is(connection.server?.ending, undefined)
})

test('RESET after a complete stream: buffered data is still delivered, and the end is clean', () => {
  const pair = new Pair({ seed: 12 })
  const connection = pair.connect({
    client: { bytes: 60_000, stream: 1, fin: 'send' },
    server: { bytes: 0, stream: 2, fin: 'last', readRate: 4 },
  })
  // everything including EOF has arrived and is queued for the reader
  assert.ok(pair.runUntil(() => pair.client.counter('waitsnd') === 0 && connection.client.finSent, 20))
  assert.ok((connection.server?.received ?? 0) < 60_000, 'the reader is not slow enough for this test')
  pair.inject('server', control(What.RESET, connection.conv))
  assert.ok(
    pair.runUntil(() => connection.server?.ending !== undefined, 60),
    connection.describe(),
  )
  assert.is(connection.server?.received, 60_000)
  assert.ok(connection.server?.eof || connection.server?.ending === 'detached')
})

test('EOF directly after DIAL is held until the target is connected: the connection is complete', () => {
  const { connection } = run({
    client: { bytes: 10, stream: 1, fin: 'send' },
    server: { bytes: 5000, stream: 2, fin: 'last' },
    dial: 3000,
  })
  assert.ok(connection.clean, connection.describe())
})

test('MUST 46: an ended session replies with RESET, once per second, during time_wait', () => {
  const pair = new Pair({ seed: 13, client: { timeWait: 20 }, server: { timeWait: 20 } })
  const connection = pair.connect({ client: { bytes: 100, stream: 1 }, server: { bytes: 100, stream: 2 } })
  assert.ok(pair.finish(10))
  assert.ok(
    pair.runUntil(() => pair.server.counter('sessions_time_wait') === 1, 60),
    'no TIME_WAIT',
  )
  pair.run(2000)
  let resets = 0
  pair.tap = (from, bytes) => {
    if (from === 'server' && bytes.length === 10 && bytes[5] === What.RESET) resets++
    return from === 'server'
  }
  const probe = push(connection.conv, 50, KEEPALIVE)
  for (let i = 0; i < 50; i++) {
    pair.inject('server', probe)
    pair.run(100)
  }
  assert.is(resets, 5)
  // each reply restarts time_wait; after it the session is removed
  pair.run(18_000)
  assert.is(pair.server.counter('sessions_time_wait'), 1)
  pair.run(4000)
  assert.is(pair.server.counter('sessions_time_wait'), 0)
})

test('TIME_WAIT lasts from its entry, also for a session older than time_wait', () => {
  // the client does not ask for an answer, and so gets no RESET, in the meantime
  const pair = new Pair({ seed: 14, client: { timeWait: 10, keepalive: 0 }, server: { timeWait: 10 } })
  const connection = pair.connect({
    client: { bytes: 100, stream: 1, fin: 'never' },
    server: { bytes: 100, stream: 2, fin: 'never' },
  })
  pair.run(60_000)
  pair.inject('server', control(What.RESET, connection.conv))
  pair.run(8000)
  let resets = 0
  pair.tap = (from, bytes) => {
    if (from === 'server' && bytes.length === 10 && bytes[5] === What.RESET) resets++
    return true
  }
  pair.inject('server', segment({ conv: connection.conv, cmd: Cmd.ACK }))
  assert.is(resets, 1)
})

test('the last ACKs of a simultaneous close are repeated until both ends have received them', () => {
  for (let seed = 100; seed < 130; seed++) {
    const pair = new Pair({ seed, up: { loss: 0.4, delay: 20 }, down: { loss: 0.4, delay: 20 } })
    const connection = pair.connect({
      client: { bytes: 2000, stream: 1 },
      server: { bytes: 2000, stream: 2 },
    })
    assert.ok(pair.finish(600), `seed ${seed}: ${connection.describe()}`)
    assert.ok(connection.clean, `seed ${seed}: ${connection.describe()}`)
  }
})

test.run()
