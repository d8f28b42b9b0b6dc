// time limit: 120 s
/**
 * `kcptun-wasm top` in a real terminal (tmux): it shows the tunnel, follows keys and resizing, and restores the
 * terminal.
 */
import { createServer } from 'node:http'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, freePort, type Program, run } from '../../testkit/process.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { Terminal, terminalProblem } from '../../testkit/terminal.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const test = suite('top')

const IN_USE = '1 0 0'
const RESTORED = '0 1 1'

async function watch(program: Program): Promise<void> {
  const target = await echoTarget()
  await withTunnel({ server: 'node', client: 'bun', target: target.address }, async ({ client, dial }) => {
    const ends = await Promise.all([dial(), dial()])
    let busy = true
    const traffic = (async () => {
      for (; busy; await sleep(50)) await ends[0]?.send(Buffer.alloc(20_000))
    })()
    const url = `http://${client.config['http_listen']}`
    const command = `${commandOf(program).join(' ')} top ${url}`
    const terminal = new Terminal(80, 24)
    try {
      await terminal.shows(/READY:/)
      terminal.type(`${command}\n`)
      await terminal.shows(/^kcptun-wasm \S+ client, bun .*healthy/m)
      await terminal.shows(/^receiving +[\d.]+ [kM]bit\/s .*█/m)
      await terminal.shows(/^2 sessions: 2 established/m)
      assert.is(terminal.flags(), IN_USE)
      // also what was before it ran
      await terminal.shows(/^receiving .*[▁-█]{10}/m)
      terminal.resize(45, 12)
      await terminal.shows(/^CONV +AGE|^CONV +RTT/m)
      assert.is(terminal.screen().trimEnd().split('\n').length, 12)
      terminal.key('s')
      terminal.key('Down')
      await terminal.shows(/, from #2/)
      await terminal.shows(/sort order: rtt/)
      terminal.key('q')
      await waitFor('the terminal is restored', () => terminal.flags() === RESTORED)
      terminal.type('echo "it was $?"\n')
      await terminal.shows(/^it was 0/m)

      terminal.type(`${command}\n`)
      await waitFor('top runs again', () => terminal.flags() === IN_USE)
      process.kill(terminal.child(), 'SIGTERM')
      await waitFor('the terminal is restored after a signal', () => terminal.flags() === RESTORED)
      terminal.type('stty -a | tr " " "\\n" | grep -x -e -icanon -e icanon\n')
      await terminal.shows(/^icanon/m)
    } finally {
      terminal.close()
      busy = false
      await traffic
    }
    const once = await run(program, ['top', url])
    assert.is(once.code, 0, once.stderr)
    assert.match(once.stdout, /^2 sessions: 2 established/m)
    assert.not.ok(once.stdout.includes('\x1b'), 'no codes without a terminal')
    for (const end of ends) end.destroy()
  }).finally(() => target.close())
}

const names = RUNTIMES.map((program) => ({
  program,
  name: `the terminal shows the tunnel and is restored: ${program}`,
}))
for (const { program, name } of names) {
  if (terminalProblem === undefined) test(name, () => watch(program))
  else skip(test, name, terminalProblem)
}

const OLD = { version: 1, program: { name: 'kcptun-wasm', mode: 'client' }, health: 'an older program', uptime_ms: 0 }
const oldName = 'a program without /events is polled'
if (terminalProblem === undefined) {
  test(oldName, async () => {
    const asked: string[] = []
    const server = createServer((request, response) => {
      const path = request.url?.split('?')[0] ?? ''
      asked.push(path)
      response.statusCode = path === '/stats.json' ? 200 : 404
      response.end(JSON.stringify({ ...OLD, uptime_ms: 1000 * asked.length }))
    })
    const port = await freePort()
    await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
    const terminal = new Terminal(80, 24)
    try {
      await terminal.shows(/READY:/)
      terminal.type(`${commandOf('node').join(' ')} top 127.0.0.1:${port}\n`)
      await terminal.shows(/an older program/)
      await waitFor('it is asked again', () => asked.length > 3)
      assert.is(asked.filter((path) => path === '/events').length, 1)
    } finally {
      terminal.close()
      server.close()
      server.closeAllConnections()
    }
  })
} else skip(test, oldName, terminalProblem)

test('a configured token is sent, and a missing one is reported', async () => {
  const statistics = JSON.stringify({ version: 1, program: { name: 'kcptun-wasm', mode: 'client' }, health: 'well' })
  const server = createServer((request, response) => {
    response.statusCode = request.headers.authorization === 'Bearer sesame' ? 200 : 401
    response.end(statistics)
  })
  const port = await freePort()
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
  const url = `127.0.0.1:${port}`
  const without = await run('node', ['top', url])
  process.env['KCPTUN_HTTP_TOKEN'] = 'sesame'
  const results = await Promise.all(RUNTIMES.map((program) => run(program, ['top', url])))
  delete process.env['KCPTUN_HTTP_TOKEN']
  server.close()
  assert.is(without.code, 1)
  assert.match(without.stderr, /token/)
  for (const { code, stdout, stderr } of results) {
    assert.is(code, 0, stderr)
    assert.match(stdout, /client.*well$/m)
  }
})

test('an unreachable program and a missing argument exit with status 1', async () => {
  const { code, stderr } = await run('node', ['top', `127.0.0.1:${await freePort()}`])
  assert.is(code, 1)
  assert.match(stderr, /^kcptun-wasm top: no statistics from http:\/\/127\.0\.0\.1:\d+\/stats\.json: ECONNREFUSED\n$/)
  const none = await run('node', ['top'])
  assert.is(none.code, 1)
  assert.match(none.stderr, /URL/)
})

test.run()
