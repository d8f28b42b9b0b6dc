import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { PAGE_HEADER } from '../../host/monitoring/access.ts'
import { oldestOfMost } from '../../host/monitoring/crowd.ts'
import { ROWS_MAX, VIEWERS_MAX } from '../../host/monitoring/live.ts'
import type { SessionStats } from '../../host/monitoring/stats.ts'
import type { ContextStats } from '../../host/transport/obfs/context-stats.ts'
import { NO_LIVE } from './live-source.ts'
import { Scene, type Watcher } from './scene.ts'

const test = suite('live feed')

test('the stream starts with a hello event, then repeats the figures of /stats.json', async () => {
  const scene = new Scene({}, { about: () => ({ method: 'none' }) })
  scene.counters = { ...scene.counters, tcp_read_bytes: 12345 }
  scene.warnings = [{ at: 1, level: 3, text: '<script>alert(1)</script>\n\ndata: x' }]
  const watcher = (await scene.watch()).read()
  assert.is(watcher.response.headers.get('content-type'), 'text/event-stream; charset=utf-8')
  assert.is(scene.holds, 1)
  await scene.until('three samples', () => watcher.samples.length >= 3)
  assert.equal(watcher.hello?.about, { method: 'none' })
  assert.equal(watcher.hello?.warnings, scene.warnings)
  const { sessions: _, ...figures } = JSON.parse(await (await scene.ask('/stats.json')).text())
  for (const name of ['counters', 'gauges', 'host', 'program', 'health'] as const) {
    assert.equal(watcher.last?.[name], figures[name], name)
  }
  assert.is(watcher.last?.warnings, undefined)
  scene.warnings = [...scene.warnings, { at: 2, level: 2, text: 'news' }]
  await scene.until('the news', () => watcher.samples.some(({ warnings }) => warnings?.at(-1)?.text === 'news'))
  await watcher.leave()
})

test('without viewers nothing is read and no timer runs; many viewers share one read', async () => {
  const scene = new Scene()
  const watchers: Watcher[] = []
  for (let i = 0; i < VIEWERS_MAX; i++) watchers.push((await scene.watch()).read())
  assert.is(scene.app.viewers, VIEWERS_MAX)
  // each viewer's start brings a sample of its own
  scene.snapshots = 0
  const seen = watchers[0]?.samples.length ?? 0
  await scene.until('two samples', () => (watchers[0]?.samples.length ?? 0) >= seen + 2)
  assert.ok(scene.snapshots <= 4, `${scene.snapshots} snapshots for 2 samples`)
  for (const watcher of watchers) await watcher.leave()
  assert.is(scene.app.viewers, 0)
  assert.is(scene.clock.armed, 0)
  scene.snapshots = 0
  await scene.run(10_000)
  assert.is(scene.snapshots, 0)
  const again = (await scene.watch()).read()
  await scene.until('samples again', () => again.samples.length > 1)
  await again.leave()
})

test('a viewer above the limit evicts the oldest viewer of the address with the most viewers', async () => {
  const scene = new Scene()
  scene.remote = '192.0.2.7'
  const owner = (await scene.watch()).read()
  scene.remote = '192.0.2.66'
  const others: Watcher[] = []
  for (let i = 0; i < VIEWERS_MAX + 3; i++) others.push((await scene.watch()).read())
  await scene.until('room', () => others.filter(({ ended }) => ended).length === 4)
  assert.equal(
    others.map(({ crowded }) => crowded),
    others.map((_, i) => i < 4),
  )
  assert.is(scene.app.viewers, VIEWERS_MAX)
  // the owner from another address, and once more from the same one
  scene.remote = '192.0.2.8'
  const second = (await scene.watch()).read()
  await scene.until('samples for the owner', () => second.samples.length > 1 && owner.samples.length > 1)
  assert.not(owner.ended)
  for (const watcher of [owner, second, ...others]) await watcher.leave().catch(() => {})
})

test('streams of unverified origin are evicted first and never evict our own page', async () => {
  const scene = new Scene()
  const browser = { host: '127.0.0.1:8081', 'accept-encoding': 'gzip' }
  const owner = (await scene.watch({ ...browser, [PAGE_HEADER]: '1' })).read()
  const others: Watcher[] = []
  // for a plain HTTP address, browsers send no header that identifies the requesting page
  for (let i = 0; i < 3 * VIEWERS_MAX; i++) others.push((await scene.watch(browser)).read())
  await scene.until('room', () => others.filter(({ ended }) => !ended).length === VIEWERS_MAX - 1)
  const { length } = owner.samples
  await scene.until('samples', () => owner.samples.length > length + 1)
  assert.not(owner.ended)
  for (const watcher of [owner, ...others]) await watcher.leave().catch(() => {})
})

test('the holder with the most entries gives up its oldest', () => {
  const of = (text: string): string | undefined => oldestOfMost(text.split(' '), ([holder]) => holder)
  assert.is(of('a1 b1 b2 a2'), 'b1')
  assert.is(of('a1 b1 c1'), 'a1')
  assert.is(of('a1 b1 b2 b3 a2'), 'b1')
  assert.is(oldestOfMost([], String), undefined)
})

test('streams end when the server closes or its configuration changes', async () => {
  const scene = new Scene()
  const watchers = [(await scene.watch()).read(), (await scene.watch()).read()]
  await scene.until('samples', () => watchers.every(({ last }) => last !== undefined))
  scene.app.endViewers()
  await scene.until('the ends', () => watchers.every(({ ended }) => ended))
  assert.is(scene.app.viewers, 0)
  const after = (await scene.watch()).read()
  await scene.until('a sample', () => after.last !== undefined)
  await after.leave()
})

test('a viewer that does not read misses samples and is cut after 15 s, others are unaffected', async () => {
  const scene = new Scene()
  const idle = await scene.watch()
  const reader = (await scene.watch()).read()
  await scene.until('samples', () => reader.samples.length > 2)
  assert.is(scene.app.viewers, 2)
  await scene.run(13_000)
  assert.is(scene.cuts, 0)
  const from = scene.at
  await scene.until('the cut', () => scene.cuts === 1)
  assert.ok(scene.at - from <= 3000)
  assert.is(scene.app.viewers, 1)
  const { length } = reader.samples
  await scene.until('more samples', () => reader.samples.length > length)
  await idle.leave().catch(() => {})
  await reader.leave()
})

const SESSION: SessionStats = {
  conv: 1,
  state: 2,
  peer: { family: 4, address: '127.0.0.1', port: 9, scope: 0 },
  age: 3,
  idle: 2,
  rtt: 1.5,
  rttvar: 0.5,
  rto: 100,
  waitsnd: 4,
  sndwnd: 5,
  rmtWnd: 6,
  cwnd: 7,
  retransmissions: 8,
  pace: 11,
  baseLoss: 0.25,
  tcpRead: 9,
  tcpWritten: 10,
}

test('of many sessions the most active are listed', async () => {
  const scene = new Scene()
  scene.sessions = Array.from({ length: 1000 }, (_, conv) => ({
    ...SESSION,
    conv,
    state: conv < 500 ? 4 : conv % 2 === 0 ? 2 : 3,
    idle: conv % 10,
    tcpRead: conv,
  }))
  const watcher = (await scene.watch()).read()
  await scene.until('a sample', () => watcher.last !== undefined)
  const rows = watcher.last?.sessions ?? []
  assert.is(rows.length, ROWS_MAX)
  assert.ok(rows.every(({ state, idle_seconds }) => state === 'established' && idle_seconds === 0))
  assert.is(rows[0]?.tcp_read_bytes, 990)
  assert.is(watcher.last?.path?.tcp_read_bytes, 990)
  await watcher.leave()
})

test('the figures of several processes are fetched before each sample, sessions less often', async () => {
  const fetched: string[] = []
  const scene: Scene = new Scene(
    {},
    {
      async prepare(target) {
        fetched.push(target)
        await new Promise<void>((resolve) => scene.clock.setTimer(resolve, 100))
        scene.sessions = target === '/stats.json' ? [SESSION] : []
      },
    },
  )
  const watcher = (await scene.watch()).read()
  await scene.until('the session', () => watcher.last?.sessions.length === 1)
  // fetching took 100 ms: the next fetch of sessions is far away, and the session stays until then
  const { length } = watcher.samples
  await scene.until('more samples', () => watcher.samples.length > length + 1)
  assert.is(watcher.last?.sessions.length, 1)
  assert.equal(fetched.slice(0, 3), ['/stats.json', '/metrics', '/metrics'])
  await watcher.leave()
  const before = fetched.length
  await scene.run(10_000)
  assert.is(fetched.length, before)
})

test('contexts of an obfuscator are listed, up to a limit', async () => {
  const remote = { family: 4, address: '10.0.0.1', port: 5, scope: 0 } as const
  const numbers = { state: 3, age: 1, idle: 2, bytesIn: 7, bytesOut: 8, congested: 0, echoes: 0 }
  const context: ContextStats = { remote, ...numbers }
  const scene = new Scene({ contexts: () => [[context], Array.from({ length: 500 }, () => context)] })
  const watcher = (await scene.watch()).read()
  await scene.until('a sample', () => watcher.last !== undefined)
  assert.is(watcher.last?.contexts?.length, ROWS_MAX)
  const { contexts } = JSON.parse(await (await scene.ask('/stats.json')).text())
  assert.is(contexts.length, 501)
  assert.equal(watcher.last?.contexts?.[0], contexts[0])
  await watcher.leave()
})

const SILENCES = [
  ['client', { client: true, server: false }, 0, 'silent'],
  ['server that waits for answers', { client: false, server: true }, 5, 'silent'],
  ['server', { client: false, server: true }, 0, 'quiet'],
] as const

async function fallSilent([mode, live, waitsnd, state]: (typeof SILENCES)[number]): Promise<void> {
  const scene = new Scene({}, live)
  let received = 1
  const receive = (): void => {
    if (received > 0) scene.counters = { ...scene.counters, pkt_received: received++ }
    scene.clock.setTimer(receive, 10)
  }
  receive()
  scene.counters = { ...scene.counters, sessions_established: 1, waitsnd, last_received_age: 100 }
  const watcher = (await scene.watch()).read()
  await scene.until(`${mode}: up`, () => watcher.last?.link.state === 'up' && watcher.samples.length > 1)
  const { pings } = scene
  received = 0
  const from = scene.at
  await scene.until(`${mode}: ${state}`, () => watcher.last?.link.state === state)
  assert.ok(scene.at - from <= 3000, `${mode}: ${scene.at - from} ms`)
  assert.ok(scene.at - from >= 1500, `${mode}: ${scene.at - from} ms`)
  assert.ok(live.client ? scene.pings >= pings + 3 : scene.pings === 0, `${mode}: ${scene.pings} pings`)
  // packets that fail authentication do not count as received from the peer
  scene.counters = { ...scene.counters, pkt_received: 1e6, drop_auth: 1e6 - scene.counters.pkt_received }
  const { length } = watcher.samples
  await scene.until(`${mode}: more samples`, () => watcher.samples.length > length + 1)
  assert.is(watcher.last?.link.state, state)
  received = 2e6
  await scene.until(`${mode}: up again`, () => watcher.last?.link.state === 'up')
  await watcher.leave()
}

test('silence is reported within 3 s, and so is its end', async () => {
  await Promise.all(SILENCES.map(fallSilent))
})

test('a client that never received anything from its peer is checking, then silent', async () => {
  const scene = new Scene()
  const watcher = (await scene.watch()).read()
  await scene.until('checking', () => watcher.last?.link.state === 'checking')
  await scene.until('silent', () => watcher.last?.link.state === 'silent')
  await watcher.leave()
})

test('an outage that the endpoint knows of is shown at once, with its length', async () => {
  const scene = new Scene()
  await scene.run(20_000)
  scene.counters = { ...scene.counters, peer_silent_pings: 2, last_received_age: 17_000 }
  const watcher = (await scene.watch()).read()
  await scene.until('a sample', () => watcher.samples.length > 0)
  assert.is(watcher.samples[0]?.link.state, 'silent')
  assert.is(watcher.samples[0]?.link.silent_ms, 17_000)
  await watcher.leave()
})

test('a page that may belong to another site causes no ping; our page does, and silence counts from then on', async () => {
  const scene = new Scene()
  const browser = { host: '127.0.0.1:8081', 'accept-encoding': 'gzip' }
  const other = (await scene.watch(browser)).read()
  await scene.until('quiet', () => other.last?.link.state === 'quiet')
  assert.is(scene.pings, 0)
  const own = (await scene.watch({ ...browser, [PAGE_HEADER]: '1' })).read()
  await scene.until('a sample', () => own.last !== undefined)
  assert.is(own.last?.link.state, 'checking')
  await scene.until('silent', () => own.last?.link.state === 'silent')
  assert.ok(scene.pings >= 3)
  for (const watcher of [other, own]) await watcher.leave()
})

test('a rendezvous client without a peer is pending and sends no ping', async () => {
  const rendezvous = { family: 4, address: '10.0.0.1', port: 5, scope: 0 } as const
  const scene = new Scene({}, { path: () => ({ ...NO_LIVE.path(), rendezvous }) })
  const watcher = (await scene.watch()).read()
  await scene.until('samples', () => watcher.samples.length > 3)
  assert.is(watcher.last?.link.state, 'pending')
  assert.is(watcher.last?.link.rendezvous, '10.0.0.1:5')
  assert.is(scene.pings, 0)
  await watcher.leave()
})

test.run()
