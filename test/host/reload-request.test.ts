/** POST /reload: who may ask, what the answer says, and requests at the same time. */

import { Hono } from 'hono'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config, ConfigFile } from '../../host/config/config.ts'
import { parseConfig } from '../../host/config/load.ts'
import { parseFile } from '../../host/config/tunnels.ts'
import { makeReload } from '../../host/endpoint/reload.ts'
import { reloadedOutcome } from '../../host/endpoint/reload-outcome.ts'
import { Log } from '../../host/log/log.ts'
import { createHttpApp } from '../../host/monitoring/app.ts'
import type { HttpSource, ReloadOutcome } from '../../host/monitoring/source.ts'
import { NO_COUNTERS } from '../../host/monitoring/stats.ts'
import { NO_LIVE } from './live-source.ts'

const test = suite('reload request')

const TOKEN = 'a-token-of-some-length'
const RELOADED: ReloadOutcome = { outcome: 'reloaded', changed: ['timeout'], needs_restart: [] }

function ask(
  headers: Record<string, string>,
  { target = '/reload', method = 'POST', token = TOKEN, reload = async () => RELOADED },
) {
  const start = { at: 0, uptime: 0, cpu: undefined, date: new Date(0), counters: NO_COUNTERS }
  let calls = 0
  const source = {
    program: { name: 'NAME', version: '1', note: '', runtime: 'node', runtimeVersion: '20', mode: 'client' },
    start,
    snapshot: () => start,
    sessions: () => [],
    listen: undefined,
    token: () => (token === '' ? undefined : token),
    live: NO_LIVE,
    reload: () => {
      calls++
      return reload()
    },
  } as unknown as HttpSource
  const request = new Request('http://127.0.0.1:8080/reload', { method, headers })
  const answer = createHttpApp(source, Hono).fetch(request, { target })
  return Promise.resolve(answer).then(async (response) => ({
    status: response.status,
    body: await response.text(),
    headers: response.headers,
    calls,
  }))
}

const BEARER = { Authorization: `Bearer ${TOKEN}` }

test('the token in the header reloads, and the answer is the outcome', async () => {
  const { status, body, headers, calls } = await ask(BEARER, {})
  assert.equal([status, calls], [200, 1])
  assert.equal(JSON.parse(body), RELOADED)
  assert.is(headers.get('content-type'), 'application/json')
  const refused = { outcome: 'refused', error: 'config key timeout = -1: too small', key: 'timeout' } as const
  const answer = await ask(BEARER, { reload: async () => refused })
  assert.is(answer.status, 422)
  assert.equal(JSON.parse(answer.body), refused)
})

test('nothing else does: no token, a wrong one, one in the query, in a cookie or as a password', async () => {
  for (const [headers, target] of [
    [{}, '/reload'],
    [{ Authorization: 'Bearer wrong' }, '/reload'],
    [{ Authorization: `Bearer ${TOKEN}x` }, '/reload'],
    [{ Authorization: `Basic ${btoa(`:${TOKEN}`)}` }, '/reload'],
    [{ Cookie: `token=${TOKEN}; http_token=${TOKEN}` }, '/reload'],
    [{}, `/reload?token=${TOKEN}`],
    [{}, `/reload?http_token=${TOKEN}&access_token=${TOKEN}`],
  ] as [Record<string, string>, string][]) {
    const { status, headers: answer, calls } = await ask(headers, { target })
    assert.equal([status, calls], [401, 0], JSON.stringify(headers) + target)
    assert.is(answer.get('www-authenticate'), 'Bearer')
  }
})

test('without http_token it is refused with the reason, from everywhere', async () => {
  for (const headers of [{}, BEARER, { Authorization: 'Bearer undefined' }, { Authorization: 'Bearer ' }]) {
    const { status, body, calls } = await ask(headers, { token: '' })
    assert.equal([status, calls], [403, 0])
    assert.match(body, 'set http_token')
  }
})

test('pages of other sites are refused, also with the token', async () => {
  for (const headers of [
    { Origin: 'http://evil.example' },
    { Origin: 'null' },
    { 'Sec-Fetch-Site': 'cross-site' },
    { 'Sec-Fetch-Site': 'same-site' },
  ] as Record<string, string>[]) {
    const { status, calls, headers: answer } = await ask({ ...BEARER, ...headers }, {})
    assert.equal([status, calls], [403, 0], JSON.stringify(headers))
    assert.is(answer.get('access-control-allow-origin'), null)
  }
})

test('other methods are told which one it is, with and without the token', async () => {
  for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
    for (const headers of [{}, BEARER]) {
      const { status, calls, headers: answer } = await ask(headers, { method })
      assert.equal([status, calls, answer.get('allow')], [405, 0, 'POST'], method)
    }
  }
  assert.is((await ask(BEARER, { target: '/reload/x' })).status, 404)
})

const SECRET = btoa('\x07'.repeat(32))
const CLIENT = { listen: ':1080', kcp_connect: '192.0.2.1:1', method: 'xchacha20poly1305_ietf', psk: SECRET }
const encode = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value))
const fileOf = (value: object): ConfigFile => parseFile(encode(value))

test('the outcome names keys, dotted, and what waits for a restart, and no values', () => {
  const before = fileOf({ ...CLIENT, timeout: 100, http_token: 'first-token' })
  const wanted = fileOf({ ...CLIENT, psk: btoa('\x08'.repeat(32)), http_token: 'other-token', kcp: { sndwnd: 77 } })
  const after = { ...wanted, config: { ...wanted.config, psk: before.config.psk } }
  const outcome = reloadedOutcome(before, after, wanted)
  const expected = { outcome: 'reloaded', changed: ['http_token', 'kcp.sndwnd', 'timeout'], needs_restart: ['psk'] }
  assert.equal({ ...outcome, changed: [...('changed' in outcome ? outcome.changed : [])].sort() }, expected)
  assert.not.match(JSON.stringify(outcome), /token-|-token|AgICAg|BwcHBw/)
  assert.equal(reloadedOutcome(before, before, before), { outcome: 'reloaded', changed: [], needs_restart: [] })
  const several = fileOf({
    ...CLIENT,
    kcp_connect: ['192.0.2.1:1', '192.0.2.2:1'],
    timeout: 100,
    http_token: 'first-token',
  })
  assert.equal(reloadedOutcome(before, several, several), {
    outcome: 'reloaded',
    changed: ['kcp_connect'],
    needs_restart: [],
  })
})

test('of several tunnels the outcome names those that are not as before', () => {
  const entry = (name: string, port: number, more: object = {}) => ({
    name,
    listen: `:${port}`,
    kcp_connect: '192.0.2.1:1',
    ...more,
  })
  const { listen: _, kcp_connect: __, ...above } = CLIENT
  const before = fileOf({ ...above, tunnels: [entry('a', 1), entry('b', 2), entry('c', 3)] })
  const after = fileOf({
    ...above,
    loglevel: 5,
    tunnels: [entry('a', 1), entry('b', 2, { keepalive: 7 }), entry('d', 4)],
  })
  assert.equal(reloadedOutcome(before, after, after), {
    outcome: 'reloaded',
    changed: ['loglevel'],
    needs_restart: [],
    tunnels: [
      { tunnel: 'b', change: 'changed', changed: ['keepalive'] },
      { tunnel: 'd', change: 'opened', changed: [] },
      { tunnel: 'c', change: 'closed', changed: [] },
    ],
  })
})

test('requests during a reload together cause one more after it, and each has the outcome of one that began later', async () => {
  let content: object = CLIENT
  let reads = 0
  let release = (): void => {}
  const endpoint = {
    config: parseConfig(encode(CLIENT)),
    async reload(config: Config) {
      await new Promise<void>((resolve) => {
        release = resolve
      })
      this.config = config
    },
  }
  const reload = makeReload({
    runtime: {
      os: undefined,
      async readFile() {
        reads++
        return encode(content)
      },
    },
    log: new Log(() => {}),
    path: 'a.json',
    endpoint,
    applyLog() {},
  })
  const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve))
  content = { ...CLIENT, timeout: 100 }
  const first = reload()
  await turn()
  content = { ...CLIENT, timeout: 100, linger: 77 }
  const others = [reload(), reload(), reload()]
  release()
  assert.equal(await first, { outcome: 'reloaded', changed: ['timeout'], needs_restart: [] })
  await turn()
  release()
  for (const outcome of await Promise.all(others))
    assert.equal(outcome, { outcome: 'reloaded', changed: ['linger'], needs_restart: [] })
  assert.is(reads, 2)
  content = { ...CLIENT, psk: SECRET, timeout: -1 }
  const refused = await reload()
  assert.is(refused.outcome, 'refused')
  const { error, key } = refused as Extract<ReloadOutcome, { outcome: 'refused' }>
  assert.match(error, /^reload failed, keeping the old configuration: config key timeout = -1: /)
  assert.is(key, 'timeout')
  assert.is(endpoint.config.linger, 77, 'the old one stays')
})

test.run()
