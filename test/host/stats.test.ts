/** The texts of /stats and /healthy, compared with samples of kcptun-libev with known counters. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { CounterName } from '../../host/engine/core.ts'
import {
  type Health,
  NO_COUNTERS,
  renderHealth,
  renderStats,
  SessionFilter,
  type SessionStats,
  type Snapshot,
  type StatsQuery,
  silenceLimit,
} from '../../host/monitoring/stats.ts'
import { type ContextStats, readContexts } from '../../host/transport/obfs/context-stats.ts'
import { stubCore } from './stub-core.ts'

const test = suite('stats')

const PEER = { family: 4, address: '127.0.0.1', port: 36162, scope: 0 } as const
const BANNER = 'kcptun-wasm 0.0.0\n  https://example.invalid'

const CONNECTED: SessionStats = {
  conv: 0x93d2b45e,
  state: 2,
  peer: PEER,
  age: 2,
  idle: 1,
  rtt: 0.125,
  rttvar: 0.25,
  rto: 100,
  waitsnd: 0,
  sndwnd: 1024,
  rmtWnd: 1024,
  cwnd: 1024,
  retransmissions: 0,
  pace: 0,
  baseLoss: 0,
  tcpRead: 3000,
  tcpWritten: 250000,
}
const LINGER: SessionStats = { ...CONNECTED, conv: 0x93d2b45f, state: 3, idle: 2, tcpRead: 1, tcpWritten: 0 }

const TOTALS: Partial<Record<CounterName, number>> = {
  tcp_read_bytes: 3000,
  tcp_written_bytes: 250000,
  kcp_received_bytes: 306000,
  kcp_sent_bytes: 8704,
  pkt_received_bytes: 315400,
  pkt_sent_bytes: 9308,
  sessions_established: 1,
  sessions_linger: 1,
}
const counters = (changes: Partial<Record<CounterName, number>>): Snapshot['counters'] => ({
  ...NO_COUNTERS,
  ...changes,
})

function snapshot(changes: Partial<Snapshot> = {}): Snapshot {
  return {
    at: 3044,
    uptime: 3044,
    cpu: undefined,
    date: new Date(2026, 10, 22, 11, 30, 21),
    counters: counters(TOTALS),
    ...changes,
  }
}

function render(now: Snapshot, query: StatsQuery, since?: Snapshot, sessions = [CONNECTED, LINGER]): string {
  // in steps, as the engine's table yields them
  const steps = sessions.map((session) => [session])
  return [...renderStats(now, [[], ...steps, []], query, BANNER, since)].join('')
}

/** Removes the time zone, which depends on the machine. */
const withoutZone = (text: string): string => text.replace(/^(server time: \S{19})[+-]\d{4}$/m, '$1')

test('MUST 75: GET /stats equals the sample of a client', () => {
  const text = render(snapshot(), { banner: true, sessions: SessionFilter.all })
  assert.is(
    withoutZone(text),
    `kcptun-wasm 0.0.0
  https://example.invalid

server time: 2026-11-22T11:30:21

[93D2B45E] - peer=127.0.0.1:36162 seen=1s rtt=0 rto=100 waitsnd=0 rx/tx=244KiB/2.93KiB
[93D2B45F] . peer=127.0.0.1:36162 seen=2s rtt=0 rto=100 waitsnd=0 rx/tx=0/1B
  = 2 sessions: 0 halfopen, 1 connected, 1 linger, 0 time_wait; waitsnd=0

[total] tcp: 2.93KiB, 244KiB; kcp: 299KiB, 8.50KiB; pkt: 308KiB, 9.09KiB
  = uptime: 3044ms
`,
  )
})

test('MUST 75: with an obfuscator, a block of its contexts follows as in the sample', () => {
  const context = {
    remote: { family: 4, address: '10.77.0.3', port: 35814, scope: 0 },
    state: 3,
    age: 5,
    idle: 1,
    bytesIn: 3738,
    bytesOut: 5069,
    congested: 0,
    echoes: 0,
  } as const
  const others = [
    { ...context, state: 1, idle: 3, bytesIn: 0, bytesOut: 0 },
    { ...context, state: 2, congested: 7, echoes: 8 },
  ]
  const block = (now: Snapshot, since: Snapshot | undefined, contexts: readonly ContextStats[]): string =>
    [...renderStats(now, [], { banner: false, sessions: 0 }, BANNER, since, [contexts])]
      .join('')
      .replace(/^.*uptime: \S+\n/s, '')
  const get = snapshot({ counters: counters({ obfs_dropped_bytes: 797, obfs_dropped: 10 }) })
  const line = '[10.77.0.3:35814] - seen=1s rx/tx=3.65KiB/4.95KiB ecn/ece=0/0\n'
  assert.is(block(get, undefined, [context]), `\n${line}  = 1(+0) contexts; drop 797B\n`)
  const post = snapshot({ at: 4000, counters: counters({ obfs_dropped_bytes: 580, obfs_dropped: 11 }) })
  const since = snapshot({ at: 2684, counters: counters({ obfs_dropped_bytes: 319, obfs_dropped: 6 }) })
  assert.is(block(post, since, [context]), `\n${line}  = 1(+0) contexts; drop 3.8/s (198B/s), 580B\n`)
  assert.is(block(post, post, []), '\n  = 0(+0) contexts; drop (unknown), 580B\n')
  assert.is(
    block(get, undefined, others),
    `
[10.77.0.3:35814] > seen=3s rx/tx=0/0 ecn/ece=0/0
[10.77.0.3:35814] ? seen=1s rx/tx=3.65KiB/4.95KiB ecn/ece=7/8
  = 0(+2) contexts; drop 797B
`,
  )
})

test('MUST 75: POST /stats adds rates since the previous POST', () => {
  const now = snapshot({ at: 3043, uptime: 3043, cpu: 11.49 })
  const before = snapshot({
    at: 1522,
    cpu: 10,
    counters: counters({
      tcp_read_bytes: 3000,
      tcp_written_bytes: 200000,
      kcp_received_bytes: 306000 - 101860,
      kcp_sent_bytes: 8704 - 1871,
      pkt_received_bytes: 315400 - 104977,
      pkt_sent_bytes: 9308 - 1968,
    }),
  })
  const text = render(now, { banner: false, sessions: SessionFilter.connected }, before)
  assert.is(
    withoutZone(text),
    `server time: 2026-11-22T11:30:21

[93D2B45E] - peer=127.0.0.1:36162 seen=1s rtt=0 rto=100 waitsnd=0 rx/tx=244KiB/2.93KiB
  = 2 sessions: 0 halfopen, 1 connected, 1 linger, 0 time_wait; waitsnd=0

[rx,tx] tcp: 0/s, 32.1KiB/s; kcp: 65.4KiB/s, 1230B/s; efficiency: 49.1%, 0.0%
[total] tcp: 2.93KiB, 244KiB; kcp: 299KiB, 8.50KiB; pkt: 308KiB, 9.09KiB
  = load: 0.098% (last 1521ms); pkt: 67.4KiB/s, 1294B/s; uptime: 3043ms
`,
  )
})

test('POST /stats: the load is unknown when the runtime does not report CPU time', () => {
  const text = render(snapshot({ at: 4044 }), { banner: false, sessions: 0 }, snapshot())
  assert.match(text, 'load: (unknown) (last 1000ms)')
})

test('POST /stats: there are no rates when no time has passed', () => {
  const text = render(snapshot(), { banner: false, sessions: 0 }, snapshot())
  assert.not.match(text, '[rx,tx]')
  assert.match(text, '  = load: (unknown) (last 0); pkt: (unknown), (unknown); uptime: 3044ms\n')
})

test('MUST 75: the session filter hides lines but does not change the summary', () => {
  const sessions = [1, 2, 3, 4].map((state) => ({ ...CONNECTED, conv: state, state }))
  const now = snapshot({
    counters: counters({
      sessions_connect: 1,
      sessions_established: 2,
      sessions_linger: 3,
      sessions_time_wait: 4,
      waitsnd: 5,
    }),
  })
  const text = (filter: number): string => render(now, { banner: false, sessions: filter }, undefined, sessions)
  const states = (filter: number): string =>
    [...text(filter).matchAll(/^\[0{7}\d\] (.)/gm)].map((match) => match[1]).join('')
  assert.is(states(SessionFilter.none), '')
  assert.is(states(SessionFilter.connected), '>-')
  assert.is(states(SessionFilter.active), '>-.')
  assert.is(states(SessionFilter.all), '>-.x')
  for (const filter of [SessionFilter.none, SessionFilter.all]) {
    assert.match(text(filter), '  = 10 sessions: 1 halfopen, 2 connected, 3 linger, 4 time_wait; waitsnd=5\n')
  }
})

test('an idle server shows zeros', () => {
  const idle = snapshot({ counters: counters({ pkt_received_bytes: 53, pkt_sent_bytes: 51 }), uptime: 773.2 })
  const text = render(idle, { banner: false, sessions: 2 }, undefined, [])
  assert.is(
    text.split('\n').slice(2).join('\n'),
    `  = 0 sessions: 0 halfopen, 0 connected, 0 linger, 0 time_wait; waitsnd=0

[total] tcp: 0, 0; kcp: 0, 0; pkt: 53B, 51B
  = uptime: 773.2ms
`,
  )
})

test('MUST 75: /healthy returns the state of the peer', () => {
  const base: Health = { client: true, pending: false, lastReceived: undefined, silence: 79 }
  assert.equal(renderHealth({ ...base, client: false }), { healthy: true, text: 'healthy' })
  assert.equal(renderHealth({ ...base, pending: true }), { healthy: false, text: 'rendezvous pending' })
  assert.equal(renderHealth(base), { healthy: false, text: 'peer unreachable' })
  assert.equal(renderHealth({ ...base, lastReceived: 1499 }), { healthy: true, text: 'healthy (peer seen 1s ago)' })
  assert.equal(renderHealth({ ...base, lastReceived: 79000 }), { healthy: true, text: 'healthy (peer seen 79s ago)' })
  assert.equal(renderHealth({ ...base, lastReceived: 80600 }), {
    healthy: false,
    text: 'peer not responding (81s)',
  })
})

test('a peer is silent after three keepalives plus 4 s, at least 10 s and at most half an hour', () => {
  assert.equal([0, 1, 2, 25, 598, 599, 600].map(silenceLimit), [10, 10, 10, 79, 1798, 1800, 1800])
})

test('contexts are read in steps, each slot once', () => {
  for (const slots of [0, 1, 255, 256, 257, 1000]) {
    const asked: number[] = []
    const { core } = stubCore({
      obfs_context_slots: () => slots,
      obfs_context_info: (slot) => {
        asked.push(slot)
        return 0
      },
    })
    let steps = 0
    for (const found of readContexts(core)) {
      assert.equal(found, [])
      if (++steps > slots) break
    }
    assert.ok(steps <= slots, `${slots} slots: ${steps} steps`)
    assert.equal(
      asked,
      Array.from({ length: slots }, (_, slot) => slot),
    )
  }
})

test.run()
