// time limit: 240 s
/** Several tunnels in one process: traffic, monitoring, reloads of single entries, refused reloads and starts. */
import { createSocket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import {
  type Config,
  freePort,
  httpGet,
  type Program,
  type Running,
  run,
  start,
  writeConfig,
} from '../../testkit/process.ts'
import { dial, echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const MIB = 1024 * 1024
const TRANSFER_BYTES = 24 * MIB
const TRANSFER_TIMEOUT_MS = 120_000
const SECURITY = { method: 'xchacha20poly1305_ietf', password: 'several tunnels' }
const RELOADED = 'config successfully reloaded'
const FAILED = 'reload failed, keeping the old configuration'

const count = (text: string, part: string): number => text.split(part).length - 1

async function reload(running: Running, file: Config, result: string): Promise<void> {
  const before = count(running.log(), result)
  running.reload(JSON.stringify({ ...file, http_listen: running.config['http_listen'] }))
  await waitFor(
    `the log contains "${result}"`,
    () => count(running.log(), result) > before,
    20_000,
    () => running.log().slice(-3000),
  )
}

async function assertEchoes(port: number, host = '127.0.0.1'): Promise<void> {
  const app = await dial(host, port)
  await app.send('x')
  await waitFor(`an echo through port ${port}`, () => app.received === 1 || app.ended, 15_000)
  assert.is(app.received, 1)
  app.destroy()
}

const isRefused = (port: number): Promise<boolean> =>
  dial('127.0.0.1', port).then(
    (app) => {
      app.destroy()
      return false
    },
    () => true,
  )

const ask = async (running: Running, path: string): Promise<{ status: number; body: string }> => {
  const answer = await fetch(`http://${running.config['http_listen']}${path}`)
  return { status: answer.status, body: await answer.text() }
}

interface Entry extends Config {
  readonly name: string
}

/** A server and two clients of it in one file. */
interface World {
  readonly running: Running
  readonly file: Config
  readonly entries: Record<'server', Entry & { connect: string }> &
    Record<'one' | 'two', Entry & { listen: string; kcp_connect: string }>
  readonly ports: { readonly udp: number; readonly one: number; readonly two: number }
  readonly target: Awaited<ReturnType<typeof echoTarget>>
}

async function withWorld(program: Program, action: (world: World) => Promise<void>, host = '127.0.0.1'): Promise<void> {
  const target = await echoTarget()
  const ports = { udp: await freePort(), one: await freePort(), two: await freePort() }
  const shown = host.includes(':') ? `[${host}]` : host
  const udp = `${shown}:${ports.udp}`
  const entries = {
    server: { name: 'server', kcp_bind: udp, connect: target.address },
    one: { name: 'one', listen: `${shown}:${ports.one}`, kcp_connect: udp },
    two: { name: 'two', listen: `${shown}:${ports.two}`, kcp_connect: udp },
  }
  const file = { ...SECURITY, loglevel: 6, tunnels: [entries.server, entries.one, entries.two] }
  const running = await start(program, file)
  try {
    await action({ running, file, entries, ports, target })
  } finally {
    await running.stop('SIGKILL')
    await target.close()
  }
}

async function assertEchoed(app: TcpEnd, bytes: number): Promise<void> {
  await waitFor(
    'the whole echo',
    () => app.received === bytes || app.ended,
    TRANSFER_TIMEOUT_MS,
    () => `${app.received} of ${bytes} bytes`,
  )
  assert.is(app.received, bytes)
}

const test = suite('tunnels')

for (const program of RUNTIMES) {
  for (const host of ['127.0.0.1', '::1']) {
    test(`two clients and a server in one process pass data at once at ${host}: ${program}`, async () => {
      await withWorld(
        program,
        async ({ running, ports }) => {
          const apps = [await dial(host, ports.one), await dial(host, ports.two)]
          const poured = Promise.all(apps.map((app, index) => app.pour(4 * MIB, index)))
          for (const app of apps) await assertEchoed(app, 4 * MIB)
          await poured
          for (const line of ['[server] server start', '[one] client start', '[two] client start']) {
            assert.is(count(running.log(), line), 1, running.log())
          }
          assert.match(running.log(), /\[one\] \[session:[0-9A-F]{8}\] session opened/)
          for (const app of apps) app.destroy()
          assert.equal(await running.stop(), { code: 0, signal: null })
        },
        host,
      )
    })
  }

  test(`what is shown of several tunnels is labelled with their names: ${program}`, async () => {
    await withWorld(program, async ({ running, ports }) => {
      const app = await dial('127.0.0.1', ports.one)
      await app.pour(1000, 1)
      await assertEchoed(app, 1000)
      await waitFor('all are ready', async () => (await ask(running, '/ready')).status === 200)
      assert.match((await ask(running, '/ready')).body, /^server: healthy\none: healthy \(.*\)\ntwo: healthy \(.*\)\n$/)
      assert.match((await ask(running, '/healthy?tunnel=two')).body, /^healthy \(peer seen/)
      const stats = await running.stats()
      assert.match(stats, /^tunnel server, server: healthy$/m)
      assert.match(stats, /^tunnel two, client: healthy \(/m)
      assert.is(count(stats, 'server time'), 1)
      const document = JSON.parse((await ask(running, '/stats.json')).body)
      assert.is(document.program.mode, 'tunnels')
      assert.equal(document.sessions.map(({ tunnel }: { tunnel: string }) => tunnel).sort(), ['one', 'server'])
      const figures = document.tunnels.map(
        (tunnel: { name: string; mode: string; counters: Record<string, number> }) => [
          tunnel.name,
          tunnel.mode,
          tunnel.counters['tcp_read_bytes'],
        ],
      )
      assert.equal(figures, [
        ['server', 'server', 1000],
        ['one', 'client', 1000],
        ['two', 'client', 0],
      ])
      assert.is(document.counters.tcp_read_bytes, 2000)
      const single = JSON.parse((await ask(running, '/stats.json?tunnel=one')).body)
      assert.is(single.program.mode, 'client')
      assert.is(single.counters.tcp_read_bytes, 1000)
      assert.is(single.tunnels, undefined)
      const metrics = (await ask(running, '/metrics')).body
      assert.match(metrics, /^kcptun_tcp_read_bytes_total\{tunnel="one"\} 1000$/m)
      assert.match(metrics, /^kcptun_sessions\{tunnel="one",state="established"\} 1$/m)
      assert.is(count(metrics, '# TYPE kcptun_ready gauge\n'), 1)
      assert.is(metrics.match(/^kcptun_ready\{tunnel="\w+"\} 1$/gm)?.length, 3)
      assert.match(metrics, /^kcptun_resident_memory_bytes \d+$/m)
      for (const path of ['/stats', '/stats.json', '/metrics', '/ready', '/healthy', '/events']) {
        assert.is((await ask(running, `${path}?tunnel=none`)).status, 404, path)
      }
      app.destroy()
    })
  })

  test(`health, doctor and top are about all tunnels or about one: ${program}`, async () => {
    await withWorld(program, async ({ running, ports }) => {
      const app = await dial('127.0.0.1', ports.one)
      await app.send('x')
      const all = await run(program, ['health', '-c', running.path])
      assert.is(all.code, 0, all.stdout)
      assert.match(all.stdout, /^server: healthy: this endpoint/m)
      assert.match(all.stdout, /^two: healthy: server/m)
      const one = await run(program, ['health', '-c', running.path, '--tunnel', 'one'])
      assert.match(one.stdout, /^healthy: server/)
      const doctor = await run(program, ['doctor', '-c', running.path, '--tunnel', 'one', '--seconds', '1'])
      assert.match(doctor.stdout, `${running.path}, tunnel one (client)`)
      assert.match(doctor.stdout, /in use by a running client: healthy/)
      const top = await run(program, ['top', '-c', running.path, '--once'])
      assert.match(top.stdout, /^one +client +1 /m)
      const single = await run(program, ['top', '-c', running.path, '--once', '--tunnel', 'two'])
      assert.match(single.stdout, / client, /)
      assert.match(single.stdout, '0 sessions')
      app.destroy()
    })
  })

  test(`/ready is that of all tunnels, and names the one that does not work: ${program}`, async () => {
    const target = await echoTarget()
    const kcp_connect = `127.0.0.1:${await freePort()}`
    const tunnels = [
      { kcp_bind: '127.0.0.1:0', connect: target.address },
      { name: 'lost', listen: '127.0.0.1:0', kcp_connect },
    ]
    const running = await start(program, { ...SECURITY, tunnels })
    try {
      const { status, body } = await ask(running, '/ready')
      assert.is(status, 503)
      assert.is(body, 'server: healthy\nlost: peer unreachable\n')
      assert.is((await ask(running, '/ready?tunnel=server')).status, 200)
      assert.is(JSON.parse((await ask(running, '/stats.json')).body).health, 'lost: peer unreachable')
    } finally {
      await running.stop()
      await target.close()
    }
  })

  test(`a reload adds, removes and changes tunnels and leaves a transfer of another alone: ${program}`, async () => {
    await withWorld(program, async ({ running, file, entries, ports }) => {
      const other = await echoTarget()
      const app = await dial('127.0.0.1', ports.one)
      const poured = app.pour(TRANSFER_BYTES, 3)
      const open = await dial('127.0.0.1', ports.two)
      await open.send('x')
      await waitFor('data flows', () => app.received > MIB && open.received === 1)
      const third = { listen: `127.0.0.1:${await freePort()}`, kcp_connect: entries.one.kcp_connect }
      const port = Number(third.listen.split(':')[1])
      // one stays, three is new, two is changed
      const changed = { ...entries.two, timeout: 100 }
      await reload(running, { ...file, tunnels: [third, entries.one, changed, entries.server] }, RELOADED)
      await assertEchoes(port)
      assert.match(running.log(), `[client-${port}] client start`)
      await open.send('y')
      await waitFor('the session of the changed tunnel goes on', () => open.received === 2 || open.ended)
      assert.is(open.received, 2)
      // three and two are removed
      await reload(running, { ...file, tunnels: [entries.server, entries.one] }, RELOADED)
      await waitFor('its session ended', () => open.ended)
      assert.ok(await isRefused(ports.two))
      assert.ok(await isRefused(port))
      assert.is((await ask(running, '/ready?tunnel=two')).status, 404)
      assert.ok(app.received < TRANSFER_BYTES, 'the transfer was still under way')
      await within('the transfer', TRANSFER_TIMEOUT_MS, poured)
      await assertEchoed(app, TRANSFER_BYTES)
      assert.is(count(running.log(), '[one] udp bind:'), 1, 'its socket was kept')
      assert.not.match(running.log(), 'aborted')
      app.destroy()
      await other.close()
    })
  })

  test(`a tunnel is started anew when a key changed that is read at its start: ${program}`, async () => {
    await withWorld(program, async ({ running, file, entries, ports }) => {
      const kept = await dial('127.0.0.1', ports.two)
      await kept.send('x')
      await waitFor('an echo', () => kept.received === 1)
      const port = await freePort()
      const moved = { ...entries.one, listen: `127.0.0.1:${port}` }
      await reload(running, { ...file, tunnels: [entries.server, moved, entries.two] }, RELOADED)
      await assertEchoes(port)
      assert.ok(await isRefused(ports.one))
      // the ports of two tunnels change places
      const swapped = [
        { ...entries.one, listen: entries.two.listen },
        { ...entries.two, listen: moved.listen },
      ]
      await kept.send('y')
      await waitFor('the other tunnel goes on', () => kept.received === 2 || kept.ended)
      await reload(running, { ...file, tunnels: [entries.server, ...swapped] }, RELOADED)
      await assertEchoes(ports.two)
      await assertEchoes(port)
      // another key at both ends, on the same UDP port
      await reload(running, { ...file, password: 'another', tunnels: [entries.server, ...swapped] }, RELOADED)
      await assertEchoes(port)
      // the mode, too
      const roles = { name: 'one', kcp_bind: `127.0.0.1:${await freePort()}`, connect: entries.server.connect }
      await reload(running, { ...file, tunnels: [entries.server, roles, entries.two] }, RELOADED)
      assert.match(running.log(), '[one] server start')
    })
  })

  test(`a reload that fails at one entry is refused and leaves everything as it was: ${program}`, async () => {
    await withWorld(program, async ({ running, file, entries, ports, target }) => {
      const holder = await echoTarget()
      const fresh = { name: 'fresh', listen: `127.0.0.1:${await freePort()}`, kcp_connect: entries.one.kcp_connect }
      const app = await dial('127.0.0.1', ports.one)
      await app.send('x')
      await waitFor('an echo', () => app.received === 1)
      const changed = { ...entries.server, connect: holder.address }
      const taken = { name: 'taken', listen: holder.address, kcp_connect: entries.one.kcp_connect }
      await reload(running, { ...file, tunnels: [changed, entries.two, fresh, taken] }, FAILED)
      assert.match(running.log(), /reload failed, keeping the old configuration: tunnel taken: listen: .*EADDRINUSE/)
      const bad = { ...entries.two, kcp: { mtu: 5 } }
      await reload(running, { ...file, tunnels: [changed, bad] }, FAILED)
      assert.match(running.log(), 'config key tunnels[1].kcp.mtu = 5: must be an integer')
      await reload(running, { ...SECURITY, ...entries.one }, FAILED)
      assert.match(running.log(), 'config key tunnels: was there at the start')
      const forced = [{ ...entries.server, password: 'other' }, entries.one, entries.two, taken]
      await reload(running, { ...file, tunnels: forced }, FAILED)
      await app.send('y')
      await waitFor('the session goes on', () => app.received === 2 || app.ended)
      assert.is(app.received, 2)
      // a tunnel that had given up its port gets it back
      const held = createSocket('udp4')
      await new Promise<void>((resolve) => held.bind(0, '127.0.0.1', resolve))
      const blocked = { ...entries.one, password: 'other', kcp_bind: `127.0.0.1:${held.address().port}` }
      await reload(running, { ...file, tunnels: [entries.server, blocked, entries.two] }, FAILED)
      held.close()
      assert.is(count(running.log(), RELOADED), 0)
      assert.ok(await isRefused(Number(fresh.listen.split(':')[1])))
      const before = target.connections.length
      await assertEchoes(ports.one)
      await assertEchoes(ports.two)
      assert.is(target.connections.length, before + 2, 'the target is the one before')
      assert.is(holder.connections.length, 0)
      assert.match((await ask(running, '/ready')).body, /^server: .*\none: .*\ntwo: /)
      app.destroy()
      await holder.close()
    })
  })

  test(`a reload of the level, the token and keys of the process concerns no tunnel: ${program}`, async () => {
    await withWorld(program, async ({ running, file, ports }) => {
      const app = await dial('127.0.0.1', ports.one)
      await app.send('x')
      await waitFor('an echo', () => app.received === 1)
      await reload(running, { ...file, loglevel: 4, http_token: '12345678', user: 'nobody' }, RELOADED)
      assert.match(running.log(), 'config key user: the change needs a restart and is ignored')
      assert.is(count(running.log(), 'needs a restart'), 1)
      assert.is((await ask(running, '/metrics')).status, 401)
      assert.is((await ask(running, '/healthy')).status, 200)
      await app.send('y')
      await waitFor('the session goes on', () => app.received === 2 || app.ended)
      assert.is(app.received, 2)
      app.destroy()
    })
  })

  test(`a tunnel that cannot start ends the process with an error that names it: ${program}`, async () => {
    const holder = await echoTarget()
    const good = { name: 'good', listen: `127.0.0.1:${await freePort()}`, kcp_connect: '127.0.0.1:9' }
    for (const [bad, reason] of [
      [
        { name: 'bad', listen: holder.address, kcp_connect: '127.0.0.1:9' },
        /^F .* tunnel bad: listen: cannot listen on .*EADDRINUSE/m,
      ],
      [{ listen: '127.0.0.1:0' }, /^F .* config key tunnels\[1\]\.kcp_connect: missing/m],
      [
        { listen: '127.0.0.1:0', kcp_connect: 'x' },
        /^F .* config key tunnels\[1\]\.kcp_connect = "x": an address must be/m,
      ],
      [{ listen: '127.0.0.1:0', kcp_connect: ':', method: 'rot13' }, /tunnels\[1\]\.method = "rot13": unknown method/],
      [{ ...good, name: 'twice' }, /tunnels\[1\]\.listen = .*: tunnels\[0\]\.listen has this address too/],
      [{ listen: '127.0.0.1:0', kcp_connect: 'a:1', user: 'x' }, /tunnels\[1\]\.user = "x": belongs to the process/],
    ] as const) {
      const { path, remove } = writeConfig({ ...SECURITY, tunnels: [good, bad] })
      const { code, stdout } = await run(program, ['-c', path])
      assert.is(code, 1)
      assert.match(stdout, reason)
      remove()
    }
    await holder.close()
  })

  const shared = `workers of an entry serve, and take part in reloads and figures: ${program}`
  const withWorkers = async (): Promise<void> => {
    await withWorld(program, async ({ running, file, entries, ports }) => {
      const many = { ...entries.server, workers: 2 }
      await reload(running, { ...file, tunnels: [many, entries.one, entries.two] }, RELOADED)
      await assertEchoes(ports.one)
      const metrics = (await ask(running, '/metrics')).body
      assert.match(metrics, /^kcptun_workers\{tunnel="server"\} 2$/m)
      assert.not.match(metrics, /^kcptun_workers\{tunnel="one"/m)
      const { tunnels } = JSON.parse((await ask(running, '/stats.json')).body)
      assert.equal(tunnels[0].workers, { serving: 2, restarts: 0 })
      await reload(running, { ...file, tunnels: [{ ...many, timeout: 90 }, entries.one, entries.two] }, RELOADED)
      await assertEchoes(ports.two)
      await reload(running, file, RELOADED)
      await assertEchoes(ports.one)
      assert.equal(await running.stop(), { code: 0, signal: null })
    })
  }
  if (process.platform === 'linux') test(shared, withWorkers)
  else skip(test, shared, 'workers are for Linux')
}

test('a file without tunnels shows nothing of them: the parameter has no effect, and a reload cannot add some', async () => {
  const target = await echoTarget()
  const keys = { ...SECURITY, kcp_bind: `127.0.0.1:${await freePort()}`, connect: target.address }
  const running = await start('node', keys)
  try {
    assert.is((await ask(running, '/ready?tunnel=x')).body, 'healthy\n')
    assert.not.match((await ask(running, '/metrics?tunnel=x')).body, 'tunnel="')
    assert.not.match(await httpGet(`http://${running.config['http_listen']}/stats.json`), /"tunnels?"/)
    await reload(running, { tunnels: [keys] }, FAILED)
    assert.match(running.log(), 'config key tunnels: was not there at the start: restart the program')
  } finally {
    await running.stop()
    await target.close()
  }
})

test.run()
