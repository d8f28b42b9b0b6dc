// time limit: 180 s
/** `workers`: several processes that share the work of one endpoint. */
import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { existsSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
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
import { dial, echoTarget, patternDigest, type Target, type TcpEnd } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

/** Connections of a client: enough that both workers get some. */
const CONNECTIONS = 48
const BYTES = 4000
const SOCKETS = 64
const TIMEOUT_MS = 40_000

const test = suite('workers')

/** Running children of a process. */
function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8').split(' ').filter(Boolean).map(Number)
}

/** Whether a process has exited. A zombie has an empty command line. */
const isGone = (pid: number): boolean =>
  !existsSync(`/proc/${pid}`) || readFileSync(`/proc/${pid}/cmdline`, 'utf8') === ''

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it has exited
  }
}

/** Numbers of the workers with a matching log line. */
const workersLogging = (running: Running, pattern: string): Set<string> =>
  new Set(
    [...running.log().matchAll(new RegExp(`\\[worker (\\d+)\\] ${pattern}`, 'g'))].map(([, number = '']) => number),
  )

async function json(running: Running): Promise<{ workers: unknown; counters: Record<string, number>; sessions: [] }> {
  const { http_listen } = running.config
  return JSON.parse(await httpGet(`http://${http_listen}/stats.json`))
}

const opened: { stop(): unknown }[] = []
const keep = <T extends { stop(): unknown }>(one: T): T => {
  opened.push(one)
  return one
}
test.after.each(async () => {
  for (const one of opened.splice(0)) await one.stop()
})

const PSK = randomBytes(32).toString('base64')
const CRYPTO: Config = { method: 'xchacha20poly1305_ietf', psk: PSK }

async function startServer(program: Program, target: string, more: Config = {}): Promise<Running> {
  const kcp_bind = `127.0.0.1:${await freePort()}`
  return keep(await start(program, { ...CRYPTO, kcp_bind, connect: target, loglevel: 6, ...more }))
}

async function startClient(program: Program, server: Running, more: Config = {}): Promise<Running> {
  const listen = `127.0.0.1:${await freePort()}`
  const kcp_connect = String(server.config['kcp_bind'])
  return keep(await start(program, { ...CRYPTO, listen, kcp_connect, loglevel: 6, ...more }))
}

async function openTarget(): Promise<Target> {
  const target = await echoTarget()
  opened.push({ stop: () => target.close() })
  return target
}

const portOf = (client: Running): number => Number(String(client.config['listen']).split(':')[1])

/** Opens connections, verifies that each gets its own bytes back, and leaves them open. */
async function echoes(client: Running, count: number): Promise<TcpEnd[]> {
  const apps = await Promise.all(Array.from({ length: count }, () => dial('127.0.0.1', portOf(client))))
  await Promise.all(apps.map((app, i) => app.pour(BYTES, i)))
  await waitFor(
    'every connection has its bytes back',
    () => apps.every(({ received }) => received === BYTES),
    TIMEOUT_MS,
    () => `${apps.filter(({ received }) => received === BYTES).length} of ${count}\n${client.log().slice(-3000)}`,
  )
  return apps
}

const NAMES = {
  shares: 'the kernel distributes peers over all workers of a server, each always to the same one',
  tunnel: 'connections are spread over several workers, get their own bytes back, and are summed in the stats',
  killed: 'a killed worker is restarted, connections of the others survive, and totals do not decrease',
  stops: 'a stop leaves no process, even when the first one is killed',
  reload: 'a reload reaches every worker and reports changes that need a restart',
  refused: 'a reload that workers cannot apply changes neither workers nor log',
  user: 'workers and their replacements run as the user that the first process switches to',
  fails: 'a start that fails in a worker exits with status 1 and its message, and leaves no process',
}

if (process.platform !== 'linux' || !existsSync(`/proc/self/task/${process.pid}/children`)) {
  for (const name of Object.values(NAMES)) skip(test, name, 'workers are for Linux with /proc/PID/task/PID/children')
} else {
  for (const program of [...RUNTIMES, 'deno'] as const) {
    test(`${NAMES.shares}: ${program}`, async () => {
      const server = await startServer(program, '127.0.0.1:9', { workers: 3 })
      const port = Number(String(server.config['kcp_bind']).split(':')[1])
      const sockets: Socket[] = []
      try {
        for (let i = 0; i < SOCKETS; i++) {
          const socket = createSocket('udp4')
          sockets.push(socket)
          // each worker logs its first unauthenticated datagram at once
          for (let n = 0; n < 3; n++) socket.send(randomBytes(100), port, '127.0.0.1')
        }
        await waitFor(
          'every worker received unauthenticated datagrams',
          () => workersLogging(server, '.*packet').size === 3,
          TIMEOUT_MS,
          () => server.log(),
        )
        await waitFor(
          'all datagrams are counted',
          async () => (await json(server)).counters['drop_auth'] === 3 * SOCKETS,
          TIMEOUT_MS,
          async () => JSON.stringify(await json(server)),
        )
      } finally {
        for (const socket of sockets) socket.close()
      }
    })

    test(`${NAMES.stops}: ${program}`, async () => {
      const server = await startServer(program, '127.0.0.1:9', { workers: 2 })
      const first = childrenOf(server.pid)
      assert.is(first.length, 2)
      const status = await server.stop()
      assert.is(status.code, 0, server.log())
      assert.ok(first.every(isGone), 'workers after SIGTERM')

      const again = await startServer(program, '127.0.0.1:9', { workers: 2 })
      const second = childrenOf(again.pid)
      kill(again.pid)
      await waitFor('workers end after their first process', () => second.every(isGone), TIMEOUT_MS)
    })

    test(`${NAMES.refused}: ${program}`, async () => {
      const target = await openTarget()
      const client = await startClient(program, await startServer(program, target.address), { workers: 2 })
      const apps = await echoes(client, 4)
      // not an address of this machine (RFC 5737)
      client.reload({ kcp_bind: '203.0.113.9:0', loglevel: 3 })
      await waitFor('refused', () => /reload failed.*EADDRNOTAVAIL/.test(client.log()), TIMEOUT_MS, client.log)
      client.reload({})
      await waitFor('reloaded', () => /config successfully reloaded/.test(client.log()), TIMEOUT_MS, client.log)
      for (const app of apps) assert.not(app.ended, 'a connection from before')
      await echoes(client, CONNECTIONS)
    })

    test(`${NAMES.reload}: ${program}`, async () => {
      const [one, two] = [await openTarget(), await openTarget()]
      const server = await startServer(program, one.address, { workers: 2 })
      const client = await startClient(program, server, { workers: 2 })
      server.reload({ connect: two.address, udp: { rcvbuf: 100_000 }, workers: 3 })
      await waitFor('reloaded', () => /config successfully reloaded/.test(server.log()), TIMEOUT_MS, server.log)
      assert.match(server.log(), /config key workers: the change needs a restart/)
      assert.match(server.log(), /config key udp: the change needs a restart/)
      await echoes(client, CONNECTIONS)
      assert.is(one.connections.length, 0, 'connections to the old target')
      assert.is(two.connections.length, CONNECTIONS, 'connections to the new target')
      server.reload('{')
      await waitFor('refused', () => /reload failed/.test(server.log()), TIMEOUT_MS, server.log)
    })

    test(`${NAMES.fails}: ${program}`, async () => {
      const listen = `127.0.0.1:${await freePort()}`
      const families = { kcp_bind: '127.0.0.1:0', kcp_connect: '[::1]:1' }
      const file = writeConfig({ ...CRYPTO, listen, ...families, workers: 2 })
      try {
        const { code, stdout, stderr } = await run(program, ['-c', file.path])
        assert.is(code, 1, stdout + stderr)
        assert.match(stdout + stderr, /F .*kcp_connect: an IPv6 address is not reachable from an IPv4 kcp_bind/)
      } finally {
        file.remove()
      }
    })

    if (process.getuid?.() !== 0) skip(test, `${NAMES.user}: ${program}`, 'changing the user needs root')
    else
      test(`${NAMES.user}: ${program}`, async () => {
        const server = await startServer(program, '127.0.0.1:9', { workers: 2, user: '54321:54321' })
        const uids = (): (string | undefined)[] =>
          childrenOf(server.pid).map((pid) => /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
        assert.equal(uids(), ['54321', '54321'])
        kill(childrenOf(server.pid)[0] ?? -1)
        await waitFor('it serves again', () => /serves again/.test(server.log()), TIMEOUT_MS, server.log)
        assert.equal(uids(), ['54321', '54321'])
      })
  }

  for (const pair of [...MIXED_PAIRS, { server: 'deno', client: 'deno' }] as const) {
    const name = `${pair.server} server, ${pair.client} client`

    test(`${NAMES.tunnel}: ${name}`, async () => {
      const target = await openTarget()
      const server = await startServer(pair.server, target.address, { workers: 2 })
      const client = await startClient(pair.client, server, { workers: 2 })
      const apps = await echoes(client, CONNECTIONS)
      assert.is(workersLogging(client, '.*session opened').size, 2, 'workers of the client with sessions')
      for (const end of [server, client]) {
        const { counters, sessions, workers } = await json(end)
        assert.equal(workers, { serving: 2, restarts: 0 })
        assert.is(sessions.length, CONNECTIONS)
        const [read, written] = [counters['tcp_read_bytes'], counters['tcp_written_bytes']]
        assert.equal([read, written], [CONNECTIONS * BYTES, CONNECTIONS * BYTES])
        const { http_listen } = end.config
        assert.match(await httpGet(`http://${http_listen}/metrics`), /^kcptun_workers 2$/m)
        assert.match(await httpGet(`http://${http_listen}/healthy`), /^healthy/)
        const text = await end.stats('sessions=all')
        assert.match(text, new RegExp(`= ${CONNECTIONS} sessions: `))
        assert.is(text.match(/peer=/g)?.length, CONNECTIONS)
      }
      await Promise.all(
        apps.map(async (app, i) => {
          app.finish()
          const ending = await within(`the end of connection ${i}`, TIMEOUT_MS, app.ending)
          assert.equal([ending.kind, ending.sha256], ['fin', patternDigest(BYTES, i)], `connection ${i}`)
        }),
      )
    })

    test(`${NAMES.killed}: ${name}`, async () => {
      const target = await openTarget()
      const server = await startServer(pair.server, target.address, { workers: 2 })
      const client = await startClient(pair.client, server, { workers: 2 })
      const apps = await echoes(client, CONNECTIONS)
      const before = await json(client)
      kill(childrenOf(client.pid)[0] ?? -1)
      await waitFor('connections of that worker are reset', () => apps.some(({ ended }) => ended), TIMEOUT_MS)
      await waitFor('it serves again', () => /worker \d serves again/.test(client.log()), TIMEOUT_MS, client.log)
      assert.match(client.log(), /E .*worker \d was killed by SIGKILL; restarting in /)
      const left = apps.filter(({ ended }) => !ended)
      assert.ok(left.length > 0 && left.length < CONNECTIONS, `${left.length} are left`)
      await Promise.all(left.map((app) => app.send('x')))
      const answered = (): boolean => left.every(({ received }) => received === BYTES + 1)
      await waitFor('connections of the other worker survive', answered, TIMEOUT_MS, client.log)
      const after = await json(client)
      assert.equal(after.workers, { serving: 2, restarts: 1 })
      assert.ok((after.counters['tcp_read_bytes'] ?? 0) >= (before.counters['tcp_read_bytes'] ?? 0), 'totals')
      assert.ok(after.sessions.length <= left.length, 'ended sessions are not counted')

      // the server's workers: their sockets stay, so peers of the other one are not affected
      kill(childrenOf(server.pid)[0] ?? -1)
      kill(childrenOf(server.pid)[1] ?? -1)
      const served = (): boolean => (server.log().match(/serves again/g)?.length ?? 0) === 2
      await waitFor('both serve again', served, TIMEOUT_MS, server.log)
      await echoes(client, CONNECTIONS)
    })
  }
}

test.run()
