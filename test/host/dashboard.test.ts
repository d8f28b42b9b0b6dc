/** The dashboard without a browser: the page, access control, and the event stream. */

import { createHash } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { hasToken, isForeign, isOwnHost } from '../../host/monitoring/access.ts'
import { waitFor } from '../../testkit/wait.ts'
import { Scene, TOKEN } from './scene.ts'

const PAGE_MAX_BYTES = 150 * 1024

const test = suite('dashboard')

const sha256 = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

test('the page is self-contained, and its policy allows no other source', async () => {
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

test('the page is served for GET and HEAD only', async () => {
  const scene = new Scene()
  assert.is((await scene.ask('/', {}, 'HEAD')).status, 200)
  for (const method of ['POST', 'PUT', 'DELETE']) {
    assert.is((await scene.ask('/', {}, method)).status, 405)
    assert.is((await scene.ask('/events', {}, method)).status, 405)
  }
})

test('IP addresses, localhost and the name in http_listen are own hosts, other names are not', () => {
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

test('a page of another origin whose name resolves to our address (DNS rebinding) cannot read anything', async () => {
  const scene = new Scene()
  const browser = { host: 'evil.example:8081', 'accept-encoding': 'gzip, deflate' }
  for (const target of ['/', '/events', '/stats', '/stats.json']) {
    const answer = await scene.ask(target, browser)
    assert.is(answer.status, 421, target)
    assert.match(await answer.text(), 'Use its IP address, localhost, or the host in http_listen.')
  }
  assert.is(scene.app.viewers, 0)
  for (const target of ['/healthy', '/ready', '/metrics']) assert.is((await scene.ask(target, browser)).status, 200)
  // requests without browser headers are answered under any host name, as without the dashboard
  const program = { host: 'router.lan:8081' }
  for (const target of ['/stats', '/stats.json']) assert.is((await scene.ask(target, program)).status, 200, target)
  assert.is((await scene.ask('/', program)).status, 404)
  assert.is((await scene.ask('/events', program)).status, 421)
  assert.is((await scene.ask('/', { ...browser, host: 'monitor.lan:8081' })).status, 200)
  // with a token, DNS rebinding yields nothing: the page at that name has no token
  scene.token = TOKEN
  assert.is((await scene.ask('/', browser)).status, 200)
  for (const target of ['/events', '/stats', '/stats.json']) assert.is((await scene.ask(target, browser)).status, 401)
  const answer = await scene.ask('/stats.json', { ...browser, authorization: `Bearer ${TOKEN}` })
  assert.is(answer.status, 200)
})

test('requests of other sites are rejected on every path, with or without a token, and cause no work', async () => {
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

test('a cross-site link to the page works, one to any other path does not; the page itself and programs have access', async () => {
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

test('a request without a token causes no work', async () => {
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

test('a GET never changes what others see', async () => {
  const scene = new Scene()
  const rates = async (): Promise<string> =>
    / tcp: .*/.exec(await (await scene.ask('/stats', {}, 'POST')).text())?.[0] ?? ''
  await rates()
  await scene.run(1000)
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

test('with a token configured, every path but /healthy and the empty page requires it', async () => {
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

test.run()
