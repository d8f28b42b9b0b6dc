/** The monitoring application as seen by a browser; the requests are those of the recorded samples. */

import { Hono } from 'hono'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { COUNTERS } from '../../host/engine/core.ts'
import { createHttpApp } from '../../host/monitoring/app.ts'
import type { HttpSource } from '../../host/monitoring/source.ts'
import { type Health, NO_COUNTERS, type SessionStats, type Snapshot } from '../../host/monitoring/stats.ts'
import { parseStatsQuery, parseTarget } from '../../host/monitoring/target.ts'
import { NO_LIVE } from './live-source.ts'

const test = suite('http')

const HOST = {
  tcp_accepted: 1001,
  tcp_refused: 1002,
  tcp_accept_errors: 1003,
  tcp_dials: 1004,
  proxy_denied: 0,
  proxy_auth_failures: 0,
  proxy_bad_requests: 0,
  proxy_header_errors: 0,
  tcp_dial_failures: 1005,
  udp_full: 1006,
  udp_too_long: 1007,
  udp_unreachable: 1008,
  udp_other_errors: 1009,
  key_searches_dropped: 0,
  engine_traps: 1010,
  flows: 1011,
  flows_opened: 1012,
  flows_refused: 1013,
  flow_datagrams_in: 1014,
  flow_datagrams_out: 1015,
  flow_drops_queue: 1016,
  flow_drops_send: 1017,
  flow_drops_cut: 1018,
}
const LOST: Health = { client: true, pending: false, lastReceived: undefined, silence: 79 }

function app(changes: Partial<HttpSource> = {}, clock = { at: 0 }) {
  const snapshot = (): Snapshot => ({
    at: clock.at,
    uptime: clock.at,
    cpu: clock.at / 10,
    date: new Date(),
    counters: { ...NO_COUNTERS, pkt_received_bytes: clock.at },
  })
  return createHttpApp(
    {
      program: { name: 'NAME', version: '1.2.3', note: 'NOTE', runtime: 'node', runtimeVersion: '20', mode: 'client' },
      snapshot,
      sessions: () => [],
      start: snapshot(),
      health: () => LOST,
      hostCounters: () => HOST,
      listen: undefined,
      token: () => undefined,
      live: NO_LIVE,
      ...changes,
    },
    Hono,
  )
}

async function ask(target: string, method = 'GET', source: Partial<HttpSource> = {}) {
  const url = `http://127.0.0.1:8080${target.startsWith('/') ? target : '/'}`
  const response = await app(source).fetch(new Request(url, { method }), { target })
  return { status: response.status, body: await response.text(), headers: response.headers }
}

test('MUST 75: GET /stats returns plain text that is not cached', async () => {
  const { status, body, headers } = await ask('/stats')
  assert.is(status, 200)
  assert.ok(body.startsWith('server time: '))
  assert.is(headers.get('content-type'), 'text/plain; charset=utf-8')
  assert.is(headers.get('x-content-type-options'), 'nosniff')
  assert.is(headers.get('cache-control'), 'no-store')
  assert.is(headers.get('connection'), 'close')
})

test('MUST 75: POST /stats computes rates since the previous POST', async () => {
  const clock = { at: 1000 }
  const stats = app({}, clock)
  const text = async (method: string): Promise<string> =>
    (await stats.fetch(new Request('http://h/stats', { method }), { target: '/stats' })).text()
  clock.at = 2000
  assert.match(await text('POST'), '(last 1000ms); pkt: 1000B/s, 0/s;')
  clock.at = 5000
  assert.not.match(await text('GET'), 'last')
  assert.match(await text('POST'), 'load: 10.000% (last 3000ms)')
  const response = await stats.fetch(new Request('http://h/stats', { method: 'POST' }), { target: '/stats' })
  assert.is(response.headers.get('cache-control'), null)
})

test('MUST 75: /healthy returns 200 for every method and names the state', async () => {
  for (const [target, method] of [
    ['/healthy', 'GET'],
    ['/healthy', 'POST'],
    ['/healthy?x=1', 'DELETE'],
  ] as const) {
    const { status, body } = await ask(target, method)
    assert.is(status, 200)
    assert.is(body, 'peer unreachable\n')
  }
  assert.is((await ask('/healthy', 'HEAD')).status, 200)
})

test('MUST 75: other methods on /stats are rejected with the page of the samples', async () => {
  const { status, body, headers } = await ask('/stats', 'PUT')
  assert.is(status, 405)
  assert.is(
    body,
    '<HTML><HEAD><TITLE>405 Method Not Allowed</TITLE></HEAD>\n<BODY><H1>405 Method Not Allowed</H1>\n' +
      'The requested method is not allowed for this URL.\n</BODY></HTML>\n',
  )
  assert.is(headers.get('content-type'), 'text/html')
  assert.is((await ask('/stats', 'HEAD')).status, 405)
})

test('MUST 75: unknown paths return 404, including a trailing slash', async () => {
  for (const target of ['/foo', '/stats/', '/stats/x', '/healthy/', '/events/']) {
    const { status, body } = await ask(target)
    assert.is(status, 404, target)
    assert.match(body, 'The requested URL was not found on this server.\n')
  }
})

test('MUST 75: invalid percent encodings return 400 before any other check', async () => {
  assert.is((await ask('/%zz')).status, 400)
  assert.is((await ask('/%00')).status, 400)
  assert.is((await ask('/stats?a=%zz')).status, 400)
  assert.is((await ask('/stats?a=%zz', 'PUT')).status, 400)
  assert.is((await ask('/foo?a=%zz')).status, 404)
})

test('parameters: the last one wins, unknown values are ignored', async () => {
  assert.equal(parseStatsQuery(''), { banner: false, sessions: 2 })
  assert.equal(parseStatsQuery('nobanner=0&sessions=all'), { banner: true, sessions: 4 })
  assert.equal(parseStatsQuery('nobanner=no&sessions=bogus'), { banner: true, sessions: 2 })
  assert.equal(parseStatsQuery('nobanner=0&nobanner'), { banner: false, sessions: 2 })
  assert.equal(parseStatsQuery('nobanner=&x=y&sessions=none&sessions'), { banner: true, sessions: 0 })
  assert.equal(parseStatsQuery('%73essions=%61ctive'), { banner: false, sessions: 3 })
  assert.is(parseStatsQuery('a=%e'), undefined)
  assert.ok((await ask('/stats?nobanner=0')).body.startsWith('NAME 1.2.3\n  NOTE\n\nserver time: '))
})

test('MUST 75: a request target is evaluated as received', () => {
  for (const bad of ['', '*', 'stats', 'http://h', '//stats', '/<', '/%zz', '/a%00', '/ü', 'http://h?x', '/a b']) {
    assert.is(parseTarget(bad), undefined, bad)
  }
  const plain = { name: 'stats', more: false, query: '' }
  for (const good of ['/stats', '/stats#f', 'http://h/stats', '//h/stats', '/%73tats', 'http://h//stats', '/stats?']) {
    assert.equal(parseTarget(good), plain, good)
  }
  assert.equal(parseTarget('/'), { ...plain, name: '' })
  assert.equal(parseTarget('/stats/'), { ...plain, more: true })
  assert.equal(parseTarget('/stats?a=b?c#d'), { ...plain, query: 'a=b?c' })
})

test('/ready returns 503 with the reason until the tunnel works', async () => {
  const ready = (changes: Partial<Health>) => ask('/ready', 'GET', { health: () => ({ ...LOST, ...changes }) })
  for (const [changes, status, body] of [
    [{}, 503, 'peer unreachable\n'],
    [{ pending: true }, 503, 'rendezvous pending\n'],
    [{ lastReceived: 80000 }, 503, 'peer not responding (80s)\n'],
    [{ lastReceived: 400 }, 200, 'healthy (peer seen 0s ago)\n'],
    [{ client: false }, 200, 'healthy\n'],
  ] as const) {
    const answer = await ready(changes)
    assert.is(answer.status, status, body)
    assert.is(answer.body, body)
    assert.is(answer.headers.get('content-type'), 'text/plain; charset=utf-8')
  }
})

const SESSION: SessionStats = {
  conv: 0xab,
  state: 2,
  peer: { family: 4, address: '127.0.0.1', port: 9, scope: 0 },
  tcp: '[::1]:80',
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

/** Every counter has a distinct value. */
const NUMBERED: Snapshot = {
  at: 5000,
  uptime: 5000,
  cpu: 250,
  rss: 7e7,
  date: new Date(0),
  counters: Object.fromEntries(COUNTERS.map((name, i) => [name, 500 + i])) as Snapshot['counters'],
}

test('/stats.json contains every counter and every session', async () => {
  const source = { snapshot: () => NUMBERED, sessions: () => [[], [SESSION], [{ ...SESSION, state: 4, rtt: -1 }]] }
  const { status, body, headers } = await ask('/stats.json', 'GET', source)
  assert.is(status, 200)
  assert.is(headers.get('content-type'), 'application/json')
  const { counters, gauges, sessions, ...rest } = JSON.parse(body)
  assert.equal({ ...counters, ...gauges }, NUMBERED.counters)
  assert.equal(rest, {
    version: 1,
    program: { name: 'NAME', version: '1.2.3', runtime: 'node', runtime_version: '20', mode: 'client' },
    time: '1970-01-01T00:00:00.000Z',
    uptime_ms: 5000,
    cpu_ms: 250,
    rss_bytes: 7e7,
    ready: false,
    health: 'peer unreachable',
    host: HOST,
  })
  assert.equal(sessions, [
    {
      conv: '000000AB',
      state: 'established',
      peer: '127.0.0.1:9',
      tcp_peer: '[::1]:80',
      age_seconds: 3,
      idle_seconds: 2,
      rtt_ms: 1.5,
      rttvar_ms: 0.5,
      rto_ms: 100,
      waitsnd_segments: 4,
      sndwnd_segments: 5,
      rmtwnd_segments: 6,
      cwnd_segments: 7,
      retransmitted_segments: 8,
      pace_segments_per_second: 11,
      base_loss: 0.25,
      tcp_read_bytes: 9,
      tcp_written_bytes: 10,
    },
    { ...sessions[0], state: 'time_wait', rtt_ms: null },
  ])
  assert.is(JSON.parse((await ask('/stats.json?sessions=none', 'GET', source)).body).sessions.length, 0)
  assert.is(JSON.parse((await ask('/stats.json?sessions=1', 'GET', source)).body).sessions.length, 1)
  assert.is((await ask('/stats.json', 'POST', source)).status, 405)
  assert.is((await ask('/stats.json?a=%zz', 'GET', source)).status, 400)
})

test('/metrics is OpenMetrics text with every counter', async () => {
  const { status, body, headers } = await ask('/metrics', 'GET', { snapshot: () => NUMBERED })
  assert.is(status, 200)
  assert.match(headers.get('content-type') ?? '', /^application\/openmetrics-text; version=1\.0\.0/)
  assert.ok(body.endsWith('\n# EOF\n'))
  assert.is((await ask('/metrics', 'POST')).status, 405)
  let family: { name: string; type: string } | undefined
  const families = new Set<string>()
  const values = new Map<string, number>()
  for (const line of body.slice(0, -'# EOF\n'.length).trimEnd().split('\n')) {
    const type = /^# TYPE (kcptun_[a-z_]+) (counter|gauge|info)$/.exec(line)
    if (type?.[1] !== undefined && type[2] !== undefined) {
      family = { name: type[1], type: type[2] }
      assert.not(families.has(family.name), `${line} comes once`)
      families.add(family.name)
      continue
    }
    assert.ok(family)
    const unit = /^# UNIT (\S+) (\w+)$/.exec(line)
    if (unit !== null) {
      assert.is(unit[1], family.name)
      assert.ok(family.name.endsWith(`_${unit[2]}`), line)
      continue
    }
    if (line.startsWith(`# HELP ${family.name} `)) continue
    const sample = /^([a-z_]+)(?:\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (\d+(?:\.\d+)?)$/.exec(line)
    assert.ok(sample, line)
    assert.is(sample[1], family.name + { counter: '_total', gauge: '', info: '_info' }[family.type], line)
    values.set(line.slice(0, line.lastIndexOf(' ')), Number(sample[2]))
  }
  const shown = new Set(values.values())
  for (const name of COUNTERS) {
    const value = NUMBERED.counters[name]
    const isMs = name === 'last_received_age' || name.endsWith('_ms')
    assert.ok(shown.has(isMs ? value / 1000 : value), name)
  }
  for (const [name, value] of Object.entries(HOST)) assert.ok(shown.has(value), name)
  assert.is(values.get('kcptun_dropped_datagrams_total{reason="auth"}'), NUMBERED.counters.drop_auth)
  assert.is(values.get('kcptun_cpu_seconds_total'), 0.25)
  const never = { ...NUMBERED, counters: { ...NUMBERED.counters, last_received_age: Number.POSITIVE_INFINITY } }
  const { body: text } = await ask('/metrics', 'GET', { snapshot: () => never })
  assert.not.match(text, /^kcptun_last_received_age_seconds /m)
  assert.is(
    JSON.parse((await ask('/stats.json', 'GET', { snapshot: () => never })).body).gauges.last_received_age,
    null,
  )
})

test('a list of 65535 sessions is produced in steps that yield to the event loop', async () => {
  const step = Array.from({ length: 255 }, () => SESSION)
  let steps = 0
  function* sessions() {
    for (; steps < 257; steps++) yield step
  }
  let turns = 0
  const other = setInterval(() => turns++, 0)
  const turn = (): void => {
    turns++
    ticking = setImmediate(turn)
  }
  let ticking = setImmediate(turn)
  const response = await app({ sessions }).fetch(new Request('http://h/stats'), { target: '/stats' })
  assert.ok(steps < 20, 'nothing is made before it is wanted')
  const reader = response.body?.getReader()
  assert.ok(reader)
  let bytes = 0
  for (;;) {
    const before = steps
    const { value, done } = await reader.read()
    if (done) break
    bytes += value.length
    assert.ok(steps - before <= 2, 'a step for each read')
  }
  clearInterval(other)
  clearImmediate(ticking)
  assert.ok(bytes > 65535 * 70)
  assert.ok(turns > 200, `${turns} turns`)
})

test.run()
