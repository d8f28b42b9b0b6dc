// time limit: 600 s
/**
 * Windows that exceed memory in total: paused readers, peers that acknowledge nothing. The largest holders get no more
 * memory, the others continue, and stalled sessions resume.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { CoreConfig } from '../../host/engine/core.ts'
import { UNSET } from '../../host/engine/core.ts'
import { Mixed } from '../../testkit/sim/mixed.ts'
import { type Connection, Pair, type Side } from '../../testkit/sim/pair.ts'

const MIB = 1024 * 1024
/** Default of `memory`. */
const DEFAULT_MEMORY = 512 * MIB
/** Default windows. */
const AUTOMATIC = { sndwnd: UNSET, rcvwnd: UNSET } satisfies Partial<CoreConfig>
const LINK = { delay: 10, rate: 60_000, queue: 2_000_000 }

interface Stalled {
  readonly pair: Pair
  readonly connections: Connection[]
  /** bytes in use at the reader before the first session */
  readonly base: number
}

/** A pair with `count` transfers of `bytes` whose readers are paused. */
function stall(reader: Side, memoryCeiling: number, count: number, bytes: number): Stalled {
  const pair = new Pair({
    seed: 1,
    client: { ...AUTOMATIC, ...(reader === 'client' ? { memoryCeiling } : {}) },
    server: { ...AUTOMATIC, ...(reader === 'server' ? { memoryCeiling } : {}) },
    up: LINK,
    down: LINK,
  })
  watchEdges(pair)
  const base = pair[reader].counter('memory_used')
  const connections: Connection[] = []
  for (let i = 0; i < count; i++) {
    const source = { bytes, stream: i + 10 }
    const sink = { stream: 5, reads: false, fin: 'last' } as const
    connections.push(
      pair.connect(reader === 'client' ? { client: sink, server: source } : { client: source, server: sink }),
    )
    pair.run(5)
  }
  return { pair, connections, base }
}

/** Checks that neither end shrinks its advertised window: una + wnd never decreases, and is at least 128. */
function watchEdges(pair: Pair): void {
  const edges = new Map<string, number>()
  pair.tap = (from, bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const conv = view.getUint32(0)
    if (conv === 0) return true
    const edge = view.getUint32(16) + view.getUint16(6)
    const key = `${from} ${conv}`
    const before = edges.get(key) ?? 128
    if (edge < before) assert.unreachable(`${key}: from ${before} to ${edge}`)
    edges.set(key, edge)
    return true
  }
}

/** Opens a new session and transfers a MiB each way. */
function transfer(pair: Pair, stream: number): void {
  const end = (n: number) => ({ bytes: MIB, stream: n })
  const from = pair.ms
  const connection = pair.connect({ client: end(stream), server: end(stream + 1) })
  pair.runUntil(() => connection.over, 60)
  assert.ok(connection.clean, `after ${pair.ms - from} ms: ${connection.describe()}`)
}

const test = suite('sim/overcommit')

for (const reader of ['client', 'server'] as const) {
  for (const [count, memory, bytes] of [
    [30, 64 * MIB, 4 * MIB],
    [100, 64 * MIB, MIB],
    [500, 64 * MIB, MIB / 4],
    [250, DEFAULT_MEMORY, 3 * MIB],
  ] as const) {
    const at = `${count} paused readers at the ${reader} with ${memory / MIB} MiB`
    test(`${at}: new sessions open and transfer, the others resume`, () => {
      const { pair, connections, base } = stall(reader, memory, count, bytes)
      pair.run(20_000)
      transfer(pair, 1)
      // long enough to mistake drops for a path MTU problem
      pair.run(60_000)
      transfer(pair, 3)
      const used = pair[reader].counter('memory_used') - base
      assert.ok(used <= memory, `${used} bytes`)
      for (const connection of connections) {
        if (connection.client.ending || connection.server?.ending) assert.unreachable(connection.describe())
      }
      assert.is(pair.client.counter('sessions_refused') + pair.server.counter('sessions_refused'), 0)
      const from = pair.ms
      for (const connection of connections) connection[reader]?.resume()
      const isOver = pair.finish(600)
      assert.ok(isOver, connections.find(({ over }) => !over)?.describe())
      for (const connection of connections) assert.ok(connection.clean, connection.describe())
      // twice the transmission time plus a second
      const least = (count * bytes) / LINK.rate
      assert.ok(pair.ms - from < 1000 + 2 * least, `${pair.ms - from} ms, transmission time ${least} ms`)
    })
  }
}

test('peers that acknowledge nothing: other uploads open and continue', () => {
  const memory = 32 * MIB
  const pair = new Pair({
    seed: 1,
    client: { ...AUTOMATIC, memoryCeiling: memory },
    server: AUTOMATIC,
    up: LINK,
    down: LINK,
  })
  const base = pair.client.counter('memory_used')
  const dead = Array.from({ length: 100 }, (_, i) =>
    pair.connect({ client: { bytes: 8 * MIB, stream: i + 10 }, server: { stream: 5 } }),
  )
  // each is open before the server stops responding to it
  pair.runUntil(() => dead.every(({ server }) => server?.connected), 10)
  const silent = new Set(dead.map(({ conv }) => conv))
  pair.tap = (_, bytes) => !silent.has(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0))
  pair.run(10_000)
  for (const stream of [1, 3, 5]) {
    transfer(pair, stream)
    pair.run(30_000)
  }
  assert.ok(pair.client.counter('memory_used') - base <= memory)
  assert.is(pair.client.counter('sessions_refused'), 0)
  // the path is restored: everything is delivered
  pair.tap = undefined
  assert.ok(pair.finish(300), dead.find(({ over }) => !over)?.describe())
  for (const connection of dead) assert.ok(connection.clean, connection.describe())
})

for (const ours of ['client', 'server'] as const) {
  test(`kcptun-libev as sender, engine as ${ours}: one session fits into memory, many lose nothing`, () => {
    const bytes = 2 * MIB
    const mixed = new Mixed({
      seed: 1,
      ours,
      config: { ...AUTOMATIC, memoryCeiling: 16 * MIB },
      libev: { kcp: { sndwnd: 1024, interval: 10 } },
      link: { delay: 20, loss: 0.005 },
      script: {
        ours: { bytes: 20_000, reads: false, fin: 'never' },
        libev: { bytes, fin: 'never' },
      },
    })
    mixed.runUntil(() => false, 10)
    assert.is(mixed.endpoint.counter('drop_memory'), 0)
    for (let i = 0; i < 30; i++) {
      mixed.connect()
      mixed.runUntil(() => false, 0.3)
    }
    mixed.runUntil(() => false, 20)
    assert.ok(mixed.endpoint.counter('drop_memory') > 0, 'memory was not exhausted')
    const isComplete = (conv: number): boolean =>
      mixed.apps.get(conv)?.received === bytes && mixed.libev.sessions.get(conv)?.received === 20_000
    // one more session, whose reader is active
    const fresh = mixed.connect()
    mixed.runUntil(() => mixed.apps.has(fresh), 10)
    mixed.apps.get(fresh)?.resume()
    assert.ok(
      mixed.runUntil(() => isComplete(fresh), 60),
      `${mixed.apps.get(fresh)?.received} bytes after ${mixed.ms} ms`,
    )
    for (const [conv, app] of mixed.apps) if (app.ending) assert.unreachable(`${conv}: reason ${app.reason}`)
    for (const app of mixed.apps.values()) app.resume()
    // a sender whose datagrams were dropped for long retransmits late: its RTO has no limit
    const isDone = mixed.runUntil(() => [...mixed.apps.keys()].every(isComplete), 600)
    assert.ok(isDone, [...mixed.apps.values()].map(({ received }) => received).join(' '))
    for (const { wrong } of mixed.libev.sessions.values()) assert.not.ok(wrong)
  })
}

test.run()
