/** The monitoring application as a browser sees it; the requests are those of the recorded samples. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { createHttpApp, parseStatsQuery } from '../../host/http.ts'
import type { Snapshot } from '../../host/stats.ts'

const test = suite('http')

const TOTALS = { tcpRead: 0, tcpWritten: 0, kcpReceived: 0, kcpSent: 0, pktReceived: 0, pktSent: 0 }

function app(clock = { at: 0 }) {
  const snapshot = (): Snapshot => ({
    at: clock.at,
    uptime: clock.at,
    cpu: undefined,
    date: new Date(),
    totals: { ...TOTALS, pktReceived: clock.at },
    sessions: [],
  })
  const start = snapshot()
  return createHttpApp({
    banner: 'NAME\n  URL',
    snapshot,
    start,
    health: () => ({ client: true, pending: false, lastReceived: undefined, silence: 79 }),
  })
}

async function ask(target: string, method = 'GET'): Promise<{ status: number; body: string; headers: Headers }> {
  const response = await app().fetch(new Request(`http://127.0.0.1:8080${target}`, { method }))
  return { status: response.status, body: await response.text(), headers: response.headers }
}

test('MUST 75: GET /stats answers as plain text that is not cached', async () => {
  const { status, body, headers } = await ask('/stats')
  assert.is(status, 200)
  assert.ok(body.startsWith('server time: '))
  assert.is(headers.get('content-type'), 'text/plain; charset=utf-8')
  assert.is(headers.get('x-content-type-options'), 'nosniff')
  assert.is(headers.get('cache-control'), 'no-store')
  assert.is(headers.get('connection'), 'close')
})

test('MUST 75: POST /stats counts rates from the POST before', async () => {
  const clock = { at: 1000 }
  const stats = app(clock)
  const text = async (method: string): Promise<string> =>
    (await stats.fetch(new Request('http://h/stats', { method }))).text()
  clock.at = 2000
  assert.match(await text('POST'), '(last 1000ms); pkt: 1000B/s, 0/s;')
  clock.at = 5000
  assert.not.match(await text('GET'), 'last')
  assert.match(await text('POST'), '(last 3000ms)')
  const response = await stats.fetch(new Request('http://h/stats', { method: 'POST' }))
  assert.is(response.headers.get('cache-control'), null)
})

test('MUST 75: /healthy answers 200 to every method and names the state', async () => {
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

test('MUST 75: other methods on /stats are refused with the page of the samples', async () => {
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

test('MUST 75: unknown paths are 404, also a trailing slash', async () => {
  for (const target of ['/', '/foo', '/stats/', '/stats/x', '/healthy/']) {
    const { status, body } = await ask(target)
    assert.is(status, 404, target)
    assert.match(body, 'The requested URL was not found on this server.\n')
  }
})

test('MUST 75: bad percent codes are 400 before anything else', async () => {
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
  assert.ok((await ask('/stats?nobanner=0')).body.startsWith('NAME\n  URL\n\nserver time: '))
})

test.run()
