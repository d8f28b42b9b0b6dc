// time limit: 180 s
/** POST /reload to running programs: one endpoint, several servers, several tunnels, workers. */

import { writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, type Program, type Running, start } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TOKEN = 'a-token-of-some-length'
const HEADERS = { Authorization: `Bearer ${TOKEN}` }

const test = suite('reload request')

interface Answer {
  readonly status: number | undefined
  readonly body: string
}

/** As curl: without headers of browsers. */
function post(running: Running, headers: Record<string, string> = HEADERS, method = 'POST'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `http://${running.config['http_listen']}/reload`,
      { method, headers, agent: false },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
        response.once('end', () => resolve({ status: response.statusCode, body }))
      },
    )
    sent.once('error', reject)
    sent.end()
  })
}

const sorted = (keys: unknown): string[] => [...(keys as string[])].sort()

async function outcome(running: Running): Promise<Record<string, unknown>> {
  const { status, body } = await post(running)
  assert.is(status, 200, body)
  return JSON.parse(body)
}

const client = async (): Promise<Config> => ({
  listen: `127.0.0.1:${await freePort()}`,
  kcp_connect: '127.0.0.1:9',
})

const opened: Running[] = []
/** testkit asks for /stats without a token: it is set by a reload. */
async function run(program: Program, config: Config): Promise<Running> {
  const running = await start(program, config)
  opened.push(running)
  running.reload({ http_token: TOKEN })
  await waitFor('the token', () => running.log().includes('config successfully reloaded'))
  return running
}
test.after.each(async () => {
  for (const one of opened.splice(0)) await one.stop()
})

/** Replaces the file; the token stays if it is not among the changes. */
const write = (running: Running, change: Config): void =>
  writeFileSync(running.path, JSON.stringify({ ...running.config, http_token: TOKEN, ...change }))

if (process.platform === 'win32') skip(test, 'all', 'the token is set by SIGHUP, which Windows does not have')
else
  for (const program of [...RUNTIMES, 'deno'] as const) {
    test(`a client is reloaded as by SIGHUP, and the answer says what changed: ${program}`, async () => {
      const running = await run(program, await client())
      for (const headers of [{}, { Authorization: 'Bearer wrong-token' }] as Record<string, string>[])
        assert.is((await post(running, headers)).status, 401)
      assert.is((await post(running, { ...HEADERS, Origin: 'http://evil.example' })).status, 403)
      assert.is((await post(running, HEADERS, 'GET')).status, 405)
      assert.not.match(running.log(), 'over HTTP')

      write(running, { timeout: 100, kcp: { sndwnd: 77 }, http_listen: '127.0.0.1:1', memory: 65 })
      const result = await outcome(running)
      assert.equal(result['needs_restart'], ['http_listen'])
      assert.equal(sorted(result['changed']), ['kcp.sndwnd', 'memory', 'timeout'])
      assert.match(running.log(), /reload requested over HTTP by 127\.0\.0\.1/)

      write(running, { http_token: 'another-token', password: 'a secret', method: 'aes256gcm', timeout: -1 })
      const { status, body } = await post(running)
      assert.is(status, 422)
      const { outcome: kind, error, key } = JSON.parse(body)
      assert.equal([kind, key], ['refused', 'timeout'])
      assert.ok(running.log().includes(error), 'the line of the log')
      assert.not.match(body, /a secret|another-token/)
      assert.is((await post(running)).status, 422, 'the old token is in force')

      write(running, { http_token: 'another-token' })
      await outcome(running)
      assert.is((await post(running)).status, 401)
      const next = { Authorization: 'Bearer another-token' }
      const answers = await Promise.all(Array.from({ length: 20 }, () => post(running, next)))
      for (const answer of answers) assert.is(answer.status, 200, answer.body)

      writeFileSync(running.path, JSON.stringify(running.config))
      assert.is((await post(running, next)).status, 200)
      const open = await post(running, next)
      assert.is(open.status, 403)
      assert.match(open.body, 'set http_token')
    })

    test(`several servers: ${program}`, async () => {
      const running = await run(program, { ...(await client()), kcp_connect: ['127.0.0.1:9', '127.0.0.1:10'] })
      write(running, { kcp_connect: ['127.0.0.1:9', '127.0.0.1:11'], strategy: 'least_rtt' })
      assert.equal(sorted((await outcome(running))['changed']), ['kcp_connect', 'strategy'])
    })

    test(`several tunnels: ${program}`, async () => {
      const one = { name: 'one', ...(await client()) }
      const two = { name: 'two', ...(await client()) }
      const three: Config = { name: 'three', ...(await client()) }
      const running = await run(program, { tunnels: [one, two] })
      write(running, { loglevel: 5, user: 'nobody', tunnels: [{ ...one, timeout: 100 }, three] })
      assert.equal(await outcome(running), {
        outcome: 'reloaded',
        changed: ['loglevel'],
        needs_restart: ['user'],
        tunnels: [
          { tunnel: 'one', change: 'changed', changed: ['timeout'] },
          { tunnel: 'three', change: 'opened', changed: [] },
          { tunnel: 'two', change: 'closed', changed: [] },
        ],
      })
      write(running, { tunnels: [{ ...one, listen: three.listen ?? '' }, three] })
      const { status, body } = await post(running)
      assert.is(status, 422, body)
      assert.match(JSON.parse(body).error, /tunnels\[1\]\.listen/)
    })
  }

for (const program of RUNTIMES) {
  const name = `workers: ${program}`
  if (process.platform !== 'linux') {
    skip(test, name, 'workers are for Linux')
    continue
  }
  test(name, async () => {
    const kcp_bind = `127.0.0.1:${await freePort()}`
    const running = await run(program, { kcp_bind, connect: '127.0.0.1:9', workers: 2 })
    write(running, { kcp_bind: '127.0.0.1:1', timeout: 100, workers: 3 })
    const { changed, needs_restart } = await outcome(running)
    assert.equal([changed, sorted(needs_restart)], [['timeout'], ['kcp_bind', 'workers']])
  })
}

test.run()
