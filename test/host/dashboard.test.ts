/** The dashboard without a browser: its page, who may ask for it, and the stream of events behind it. */

import { createHash } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Hello, Sample } from '../../host/dashboard/sample.ts'
import { hasToken, isForeign, isOwnHost, PAGE_HEADER } from '../../host/monitoring/access.ts'
import { createHttpApp, type HttpApp } from '../../host/monitoring/app.ts'
import { oldestOfMost } from '../../host/monitoring/crowd.ts'
import { ROWS_MAX, VIEWERS_MAX } from '../../host/monitoring/live.ts'
import type { HttpSource } from '../../host/monitoring/source.ts'
import { NO_COUNTERS, type SessionStats, type Snapshot } from '../../host/monitoring/stats.ts'
import type { ContextStats } from '../../host/transport/obfs/context-stats.ts'
import { waitFor } from '../../testkit/wait.ts'
import { NO_LIVE } from './live-source.ts'

const PAGE_MAX_BYTES = 150 * 1024
const TOKEN = 'correct-horse-battery'

const test = suite('dashboard')

/** An endpoint whose clock and counters a test moves. */
class Scene {
  at = 1000
  snapshots = 0
  pings = 0
  cuts = 0
  holds = 0
  counters: Snapshot['counters'] = { ...NO_COUNTERS, last_received_age: Number.POSITIVE_INFINITY }
  sessions: SessionStats[] = []
  warnings: { at: number; level: number; text: string }[] = []
  token: string | undefined
  remote = '127.0.0.1'
  readonly app: HttpApp

  constructor(changes: Partial<HttpSource> = {}, live: Partial<HttpSource['live']> = {}) {
    const snapshot = (): Snapshot => {
      this.snapshots++
      return { at: this.at, uptime: this.at, cpu: 1, date: new Date(), counters: this.counters }
    }
    this.app = createHttpApp({
      program: { name: 'NAME', version: '1.2.3', note: 'NOTE', runtime: 'node', runtimeVersion: '20', mode: 'client' },
      snapshot,
      sessions: () => [this.sessions],
      start: snapshot(),
      health: () => ({ client: true, pending: false, lastReceived: 0, silence: 79 }),
      hostCounters: () => ({
        tcp_accepted: 0,
        tcp_refused: 0,
        tcp_accept_errors: 0,
        tcp_dials: 0,
        tcp_dial_failures: 0,
        udp_full: 0,
        udp_too_long: 0,
        udp_unreachable: 0,
        udp_other_errors: 0,
        engine_traps: 0,
      }),
      listen: 'monitor.lan:8081',
      token: () => this.token,
      live: {
        ...NO_LIVE,
        clock: { ...NO_LIVE.clock, monotonic: () => this.at },
        ping: () => this.pings++,
        warnings: () => ({ recent: this.warnings, remembered: this.warnings.length }),
        ...live,
      },
      ...changes,
    })
    this.snapshots = 0
  }

  async ask(target: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> {
    const request = new Request(`http://127.0.0.1:8081${target}`, { method, headers })
    const connection = { remote: this.remote, hold: () => this.holds++, cut: () => this.cuts++ }
    return this.app.fetch(request, { target, connection })
  }

  async watch(headers: Record<string, string> = {}): Promise<Watcher> {
    const response = await this.ask('/events', headers)
    assert.is(response.status, 200)
    return new Watcher(response)
  }
}

/** Reads a stream of events. */
class Watcher {
  readonly response: Response
  ended = false
  hello: Hello | undefined
  samples: Sample[] = []
  crowded = false
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>

  constructor(response: Response) {
    this.response = response
    assert.ok(response.body)
    this.#reader = response.body.getReader()
  }

  /** Reads until the end, in the background. */
  read(): this {
    const decoder = new TextDecoder()
    let text = ''
    const loop = async (): Promise<void> => {
      for (;;) {
        const { value, done } = await this.#reader.read()
        if (done) break
        text += decoder.decode(value, { stream: true })
        const events = text.split('\n\n')
        text = events.pop() ?? ''
        for (const event of events) this.#take(event)
      }
    }
    loop()
      .catch(() => {})
      .finally(() => {
        this.ended = true
      })
    return this
  }

  #take(event: string): void {
    const [, name, data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? []
    if (name === 'hello') this.hello = JSON.parse(data)
    else if (name === 'sample') this.samples.push(JSON.parse(data))
    else if (name === 'crowded') this.crowded = true
    else throw new Error(event)
  }

  get last(): Sample | undefined {
    return this.samples.at(-1)
  }

  leave(): Promise<void> {
    return this.#reader.cancel()
  }
}

const sha256 = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

test('the page is one piece: nothing of it comes from elsewhere, and its policy allows nothing else', async () => {
  const answer = await new Scene().ask('/')
  assert.is(answer.status, 200)
  assert.is(answer.headers.get('content-type'), 'text/html; charset=utf-8')
  assert.is(answer.headers.get('cache-control'), 'no-store')
  assert.is(answer.headers.get('x-content-type-options'), 'nosniff')
  const html = await answer.text()
  assert.ok(new TextEncoder().encode(html).length < PAGE_MAX_BYTES, `${html.length} characters`)
  const [, script = ''] = /<script>([\s\S]*?)<\/script>/.exec(html) ?? []
  const [, style = ''] = /<style>([\s\S]*?)<\/style>/.exec(html) ?? []
  assert.ok(script.length > 10_000 && style.length > 2000)
  assert.is(html.split('<script').length, 2)
  const policy = new Map(
    (answer.headers.get('content-security-policy') ?? '').split('; ').map((part) => {
      const [name = '', ...values] = part.split(' ')
      return [name, values.join(' ')]
    }),
  )
  assert.equal(Object.fromEntries(policy), {
    'default-src': "'none'",
    'script-src': sha256(script),
    'style-src': sha256(style),
    'connect-src': "'self'",
    'img-src': 'data:',
    'base-uri': "'none'",
    'form-action': "'none'",
    'frame-ancestors': "'none'",
  })
  const markup = html
    .replace(script, '')
    .replace(style, '')
    .replace(/<!--[\s\S]*?-->/g, '')
  assert.not.match(markup, /\son\w+=|\sstyle=|src=|(?:https?:)?\/\/(?!www\.w3\.org\/2000\/svg)/)
  assert.not.match(style, /url\(|@import|https?:/)
  assert.not.match(script, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/)
  assert.match(html, 'Copyright (c) 2022 Leon Sorokin')
})

test('the page is for GET and HEAD', async () => {
  const scene = new Scene()
  assert.is((await scene.ask('/', {}, 'HEAD')).status, 200)
  for (const method of ['POST', 'PUT', 'DELETE']) {
    assert.is((await scene.ask('/', {}, method)).status, 405)
    assert.is((await scene.ask('/events', {}, method)).status, 405)
  }
})

test('IP addresses, localhost and the name in http_listen are ours, other names are not', () => {
  for (const good of [
    '127.0.0.1',
    '127.0.0.1:8081',
    '10.1.2.3:80',
    '[::1]:8081',
    '[fe80::1%25eth0]:8081',
    'localhost',
    'LocalHost:8081',
    'monitor.lan',
    'Monitor.LAN:8081',
    'monitor.lan.',
  ]) {
    assert.ok(isOwnHost(good, 'monitor.lan:8081'), good)
  }
  for (const bad of [
    '',
    'evil.example',
    'evil.example:8081',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'xmonitor.lan',
    '[::1].evil.example',
    '1.2.3.4.5',
    'monitor.lan@evil.example',
  ]) {
    assert.not(isOwnHost(bad, 'monitor.lan:8081'), bad)
  }
  assert.ok(isOwnHost(null, undefined))
  assert.not(isOwnHost('', ':8081'))
  assert.not(isOwnHost('*', undefined))
})

test("a stranger's page that gave its name our address reads nothing", async () => {
  const scene = new Scene()
  const browser = { host: 'evil.example:8081', 'accept-encoding': 'gzip, deflate' }
  for (const target of ['/', '/events', '/stats', '/stats.json']) {
    const answer = await scene.ask(target, browser)
    assert.is(answer.status, 421, target)
    assert.match(await answer.text(), 'Ask for it by its IP address, by localhost, or by the host in its http_listen.')
  }
  assert.is(scene.app.viewers, 0)
  for (const target of ['/healthy', '/ready', '/metrics']) assert.is((await scene.ask(target, browser)).status, 200)
  // programs, by whatever name: as it was without a dashboard
  const program = { host: 'router.lan:8081' }
  for (const target of ['/stats', '/stats.json']) assert.is((await scene.ask(target, program)).status, 200, target)
  assert.is((await scene.ask('/', program)).status, 404)
  assert.is((await scene.ask('/events', program)).status, 421)
  assert.is((await scene.ask('/', { ...browser, host: 'monitor.lan:8081' })).status, 200)
  // whose page has no token
  scene.token = TOKEN
  assert.is((await scene.ask('/', browser)).status, 200)
  for (const target of ['/events', '/stats', '/stats.json']) assert.is((await scene.ask(target, browser)).status, 401)
  const told = await scene.ask('/stats.json', { ...browser, authorization: `Bearer ${TOKEN}` })
  assert.is(told.status, 200)
})

test("another site's page has no answer from any path, with a token or without, and nothing is done for it", async () => {
  let prepared = 0
  const scene = new Scene({
    prepare: async () => {
      prepared++
    },
  })
  const paths = ['/', '/events', '/stats', '/stats.json', '/metrics', '/ready', '/healthy', '/unknown']
  const foreign: Record<string, string>[] = [
    { origin: 'http://evil.example' },
    { origin: 'null' },
    { origin: '' },
    { origin: 'http://127.0.0.1:3000', 'sec-fetch-site': 'same-site' },
    { origin: 'http://127.0.0.1:8081.evil.example' },
    { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' },
    { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' },
    { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' },
    { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'object' },
  ]
  for (const token of [undefined, TOKEN]) {
    scene.token = token
    for (const headers of foreign) {
      for (const target of paths) {
        const all = { host: '127.0.0.1:8081', authorization: `Bearer ${TOKEN}`, ...headers }
        for (const method of ['GET', 'POST']) {
          const answer = await scene.ask(target, all, method)
          assert.is(answer.status, 403, `${method} ${target} ${JSON.stringify(headers)}`)
          assert.is(answer.headers.get('access-control-allow-origin'), null)
        }
      }
    }
  }
  assert.is(scene.app.viewers, 0)
  assert.is(scene.snapshots, 0)
  assert.is(prepared, 0)
})

test('a link to the page works, one to anything else does not; the page itself and programs may ask', async () => {
  const scene = new Scene()
  const host = '127.0.0.1:8081'
  const link = { host, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }
  const page = await scene.ask('/', link)
  assert.is(page.status, 200)
  assert.match(page.headers.get('content-security-policy') ?? '', "frame-ancestors 'none'")
  assert.is(page.headers.get('x-frame-options'), 'DENY')
  assert.is((await scene.ask('/', link, 'POST')).status, 403)
  for (const target of ['/stats', '/stats.json', '/events', '/metrics']) {
    assert.is((await scene.ask(target, link)).status, 403, target)
  }
  for (const headers of [
    { host, 'sec-fetch-site': 'same-origin' },
    { host, 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
    { host, origin: `http://${host}` },
    { host: 'Monitor.LAN', origin: 'https://monitor.lan' },
    { host },
  ]) {
    assert.is((await scene.ask('/stats', headers, 'POST')).status, 200, JSON.stringify(headers))
  }
  assert.ok(isForeign(new Headers({ origin: 'http://127.0.0.1:8081' })))
})

test('who has no token causes no work', async () => {
  let prepared = 0
  const scene = new Scene({
    prepare: async () => {
      prepared++
    },
  })
  scene.token = TOKEN
  for (const target of ['/events', '/stats', '/stats.json', '/metrics', '/ready', '/unknown', '/stats?%']) {
    await scene.ask(target, { authorization: 'Bearer wrong' })
  }
  assert.is(scene.snapshots + prepared, 0)
  await scene.ask('/stats', { authorization: `Bearer ${TOKEN}` })
  assert.is(prepared, 1)
})

test('no GET changes what others see', async () => {
  const scene = new Scene()
  const rates = async (): Promise<string> =>
    / tcp: .*/.exec(await (await scene.ask('/stats', {}, 'POST')).text())?.[0] ?? ''
  await rates()
  scene.at += 1000
  scene.counters = { ...scene.counters, tcp_read_bytes: 5000 }
  for (const target of [
    '/stats',
    '/stats.json',
    '/metrics',
    '/ready',
    '/healthy',
    '/',
    '/stats?sessions=all&nobanner',
  ]) {
    await (await scene.ask(target)).text()
  }
  assert.match(await rates(), '4.88KiB/s')
})

test('with a token everything but /healthy and the empty page wants it', async () => {
  const scene = new Scene()
  scene.token = TOKEN
  for (const target of ['/events', '/stats', '/stats.json', '/metrics', '/ready']) {
    for (const authorization of ['', 'Bearer', 'Bearer wrong', `Basic ${TOKEN}`, `Bearer ${TOKEN}x`, TOKEN]) {
      const answer = await scene.ask(target, authorization === '' ? {} : { authorization })
      assert.is(answer.status, 401, `${target} ${authorization}`)
      assert.is(answer.headers.get('www-authenticate'), 'Bearer')
      assert.not.match(await answer.text(), TOKEN)
    }
  }
  assert.is((await scene.ask('/healthy')).status, 200)
  assert.is((await scene.ask('/foo')).status, 404)
  assert.not.match(await (await scene.ask('/')).text(), TOKEN)
  const authorization = `bearer ${TOKEN}`
  for (const target of ['/stats', '/stats.json', '/metrics', '/ready']) {
    assert.is((await scene.ask(target, { authorization })).status, 200, target)
  }
  const watcher = (await scene.watch({ authorization })).read()
  await waitFor('a sample', () => watcher.last !== undefined)
  await watcher.leave()
})

test('a token is compared as a whole', () => {
  assert.ok(hasToken('Bearer abcdefgh', 'abcdefgh'))
  for (const wrong of [null, '', 'Bearer ', 'Bearer abcdefg', 'Bearer abcdefghi', 'Bearer abcdefgH', 'Bearer a b']) {
    assert.not(hasToken(wrong, 'abcdefgh'), String(wrong))
  }
})

test('the stream greets, then tells the figures of /stats.json again and again', async () => {
  const scene = new Scene({}, { about: () => ({ method: 'none' }) })
  scene.counters = { ...scene.counters, tcp_read_bytes: 12345 }
  scene.warnings = [{ at: 1, level: 3, text: '<script>alert(1)</script>\n\ndata: x' }]
  const watcher = (await scene.watch()).read()
  assert.is(watcher.response.headers.get('content-type'), 'text/event-stream; charset=utf-8')
  assert.is(scene.holds, 1)
  await waitFor('three samples', () => watcher.samples.length >= 3)
  assert.equal(watcher.hello?.about, { method: 'none' })
  assert.equal(watcher.hello?.warnings, scene.warnings)
  const { sessions: _, ...told } = JSON.parse(await (await scene.ask('/stats.json')).text())
  for (const name of ['counters', 'gauges', 'host', 'program', 'health'] as const) {
    assert.equal(watcher.last?.[name], told[name], name)
  }
  assert.is(watcher.last?.warnings, undefined)
  scene.warnings = [...scene.warnings, { at: 2, level: 2, text: 'news' }]
  await waitFor('the news', () => watcher.samples.some(({ warnings }) => warnings?.at(-1)?.text === 'news'))
  await watcher.leave()
})

test('nobody watches: nothing is read, no timer runs; many watch: all is read once', async () => {
  const scene = new Scene()
  const watchers: Watcher[] = []
  for (let i = 0; i < VIEWERS_MAX; i++) watchers.push((await scene.watch()).read())
  assert.is(scene.app.viewers, VIEWERS_MAX)
  // the start of each viewer brings a sample of its own
  scene.snapshots = 0
  const seen = watchers[0]?.samples.length ?? 0
  await waitFor('two samples', () => (watchers[0]?.samples.length ?? 0) >= seen + 2)
  assert.ok(scene.snapshots <= 4, `${scene.snapshots} snapshots for 2 samples`)
  for (const watcher of watchers) await watcher.leave()
  assert.is(scene.app.viewers, 0)
  scene.snapshots = 0
  await new Promise((resolve) => setTimeout(resolve, 700))
  assert.is(scene.snapshots, 0)
  const again = (await scene.watch()).read()
  await waitFor('samples again', () => again.samples.length > 1)
  await again.leave()
})

test('one more viewer than there may be takes the place of the oldest of who has most', async () => {
  const scene = new Scene()
  scene.remote = '192.0.2.7'
  const owner = (await scene.watch()).read()
  scene.remote = '192.0.2.66'
  const strangers: Watcher[] = []
  for (let i = 0; i < VIEWERS_MAX + 3; i++) strangers.push((await scene.watch()).read())
  await waitFor('room', () => strangers.filter(({ ended }) => ended).length === 4)
  assert.equal(
    strangers.map(({ crowded }) => crowded),
    strangers.map((_, i) => i < 4),
  )
  assert.is(scene.app.viewers, VIEWERS_MAX)
  // another place of the owner, and again one of the same address
  scene.remote = '192.0.2.8'
  const second = (await scene.watch()).read()
  await waitFor('samples for the owner', () => second.samples.length > 1 && owner.samples.length > 1)
  assert.not(owner.ended)
  for (const watcher of [owner, second, ...strangers]) await watcher.leave().catch(() => {})
})

test('streams that may be those of other sites make room first: they drive no page of ours out', async () => {
  const scene = new Scene()
  const browser = { host: '127.0.0.1:8081', 'accept-encoding': 'gzip' }
  const owner = (await scene.watch({ ...browser, [PAGE_HEADER]: '1' })).read()
  const others: Watcher[] = []
  // to a plain HTTP address browsers say nothing of who asks
  for (let i = 0; i < 3 * VIEWERS_MAX; i++) others.push((await scene.watch(browser)).read())
  await waitFor('room', () => others.filter(({ ended }) => !ended).length === VIEWERS_MAX - 1)
  const { length } = owner.samples
  await waitFor('samples', () => owner.samples.length > length + 1)
  assert.not(owner.ended)
  for (const watcher of [owner, ...others]) await watcher.leave().catch(() => {})
})

test('who has most entries gives the oldest', () => {
  const of = (text: string): string | undefined => oldestOfMost(text.split(' '), ([holder]) => holder)
  assert.is(of('a1 b1 b2 a2'), 'b1')
  assert.is(of('a1 b1 c1'), 'a1')
  assert.is(of('a1 b1 b2 b3 a2'), 'b1')
  assert.is(oldestOfMost([], String), undefined)
})

test('streams end when the server closes or its configuration changes', async () => {
  const scene = new Scene()
  const watchers = [(await scene.watch()).read(), (await scene.watch()).read()]
  await waitFor('samples', () => watchers.every(({ last }) => last !== undefined))
  scene.app.endViewers()
  await waitFor('the ends', () => watchers.every(({ ended }) => ended))
  assert.is(scene.app.viewers, 0)
  const after = (await scene.watch()).read()
  await waitFor('a sample', () => after.last !== undefined)
  await after.leave()
})

test('a viewer that does not read misses samples and is cut after 15 s, the others go on', async () => {
  const scene = new Scene()
  const deaf = await scene.watch()
  const reader = (await scene.watch()).read()
  await waitFor('samples', () => reader.samples.length > 2)
  assert.is(scene.app.viewers, 2)
  assert.is(scene.cuts, 0)
  scene.at += 16_000
  await waitFor('the cut', () => scene.cuts === 1)
  assert.is(scene.app.viewers, 1)
  const { length } = reader.samples
  await waitFor('more samples', () => reader.samples.length > length)
  await deaf.leave().catch(() => {})
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

test('of many sessions the liveliest are listed', async () => {
  const scene = new Scene()
  scene.sessions = Array.from({ length: 1000 }, (_, conv) => ({
    ...SESSION,
    conv,
    state: conv < 500 ? 4 : conv % 2 === 0 ? 2 : 3,
    idle: conv % 10,
    tcpRead: conv,
  }))
  const watcher = (await scene.watch()).read()
  await waitFor('a sample', () => watcher.last !== undefined)
  const rows = watcher.last?.sessions ?? []
  assert.is(rows.length, ROWS_MAX)
  assert.ok(rows.every(({ state, idle_seconds }) => state === 'established' && idle_seconds === 0))
  assert.is(rows[0]?.tcp_read_bytes, 990)
  assert.is(watcher.last?.path?.tcp_read_bytes, 990)
  await watcher.leave()
})

test('what several processes have to tell is fetched before each sample, sessions too when it is their turn', async () => {
  const fetched: string[] = []
  const scene: Scene = new Scene(
    {},
    {
      async prepare(target) {
        fetched.push(target)
        scene.at += 100
        scene.sessions = target === '/stats.json' ? [SESSION] : []
      },
    },
  )
  const watcher = (await scene.watch()).read()
  await waitFor('the session', () => watcher.last?.sessions.length === 1)
  // fetching took 100 ms: the next time is far away, and the session stays until then
  const { length } = watcher.samples
  await waitFor('more samples', () => watcher.samples.length > length + 1)
  assert.is(watcher.last?.sessions.length, 1)
  assert.equal(fetched.slice(0, 3), ['/stats.json', '/events', '/events'])
  await watcher.leave()
  const before = fetched.length
  await new Promise((resolve) => setTimeout(resolve, 700))
  assert.is(fetched.length, before)
})

test('contexts of an obfuscator are told, the first of many', async () => {
  const remote = { family: 4, address: '10.0.0.1', port: 5, scope: 0 } as const
  const numbers = { state: 3, age: 1, idle: 2, bytesIn: 7, bytesOut: 8, congested: 0, echoes: 0 }
  const context: ContextStats = { remote, ...numbers }
  const scene = new Scene({ contexts: () => [[context], Array.from({ length: 500 }, () => context)] })
  const watcher = (await scene.watch()).read()
  await waitFor('a sample', () => watcher.last !== undefined)
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
  const clock = setInterval(() => {
    scene.at += 10
    if (received > 0) scene.counters = { ...scene.counters, pkt_received: received++ }
  }, 10)
  scene.counters = { ...scene.counters, sessions_established: 1, waitsnd, last_received_age: 100 }
  const watcher = (await scene.watch()).read()
  await waitFor(`${mode}: up`, () => watcher.last?.link.state === 'up' && watcher.samples.length > 1)
  const { pings } = scene
  received = 0
  const from = scene.at
  await waitFor(`${mode}: ${state}`, () => watcher.last?.link.state === state)
  assert.ok(scene.at - from <= 3000, `${mode}: ${scene.at - from} ms`)
  assert.ok(scene.at - from >= 1500, `${mode}: ${scene.at - from} ms`)
  assert.ok(live.client ? scene.pings >= pings + 3 : scene.pings === 0, `${mode}: ${scene.pings} pings`)
  // what strangers send is no sign of life
  scene.counters = { ...scene.counters, pkt_received: 1e6, drop_auth: 1e6 - scene.counters.pkt_received }
  const { length } = watcher.samples
  await waitFor(`${mode}: more samples`, () => watcher.samples.length > length + 1)
  assert.is(watcher.last?.link.state, state)
  received = 2e6
  await waitFor(`${mode}: up again`, () => watcher.last?.link.state === 'up')
  await watcher.leave()
  clearInterval(clock)
}

test('who hears nothing says so within 3 s, and that it hears again', async () => {
  await Promise.all(SILENCES.map(fallSilent))
})

test('a client that never heard its peer is being checked, then without an answer', async () => {
  const scene = new Scene()
  const clock = setInterval(() => {
    scene.at += 10
  }, 10)
  const watcher = (await scene.watch()).read()
  await waitFor('checking', () => watcher.last?.link.state === 'checking')
  await waitFor('silent', () => watcher.last?.link.state === 'silent')
  await watcher.leave()
  clearInterval(clock)
})

test("what may be another site's page causes no ping; our page does, and silence counts from then on", async () => {
  const scene = new Scene()
  const clock = setInterval(() => {
    scene.at += 10
  }, 10)
  const browser = { host: '127.0.0.1:8081', 'accept-encoding': 'gzip' }
  const other = (await scene.watch(browser)).read()
  await waitFor('quiet', () => other.last?.link.state === 'quiet')
  assert.is(scene.pings, 0)
  const own = (await scene.watch({ ...browser, [PAGE_HEADER]: '1' })).read()
  await waitFor('a sample', () => own.last !== undefined)
  assert.is(own.last?.link.state, 'checking')
  await waitFor('silent', () => own.last?.link.state === 'silent')
  assert.ok(scene.pings >= 3)
  for (const watcher of [other, own]) await watcher.leave()
  clearInterval(clock)
})

test('a rendezvous client without its peer says so and pings nobody', async () => {
  const rendezvous = { family: 4, address: '10.0.0.1', port: 5, scope: 0 } as const
  const scene = new Scene({}, { path: () => ({ ...NO_LIVE.path(), rendezvous }) })
  const watcher = (await scene.watch()).read()
  await waitFor('samples', () => watcher.samples.length > 3)
  assert.is(watcher.last?.link.state, 'pending')
  assert.is(watcher.last?.link.rendezvous, '10.0.0.1:5')
  assert.is(scene.pings, 0)
  await watcher.leave()
})

test.run()
