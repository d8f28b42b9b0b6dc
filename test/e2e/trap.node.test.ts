// time limit: 240 s
/** A trap of the engine in running programs: process and ports stay, streams are reset, new connections work. */
import { existsSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program, Running } from '../../testkit/process.ts'
import { freePort, httpGet, start } from '../../testkit/process.ts'
import { dial, echoTarget, type Target, type TcpEnd } from '../../testkit/tcp.ts'
import { fragileCommand, trap } from '../../testkit/trap.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TIMEOUT_MS = 30_000
const PSK = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
const METHODS: Readonly<Record<string, string>> = { node: 'aes256gcm', bun: 'xchacha20poly1305_ietf' }

const test = suite('trap')

const opened: { stop(): unknown }[] = []
test.after.each(async () => {
  for (const one of opened.splice(0)) await one.stop()
})

/** A program whose engine traps on SIGUSR2. */
async function startFragile(program: Program, config: Config): Promise<Running> {
  const command = fragileCommand(program)
  const running = await start(program, { psk: PSK, keepalive: 1, ...config }, { command })
  opened.push(running)
  return running
}

interface Tunnel {
  readonly server: Running
  readonly client: Running
  readonly target: Target
}

/** @param more configuration of both endpoints */
async function openTunnel(pair: { server: Program; client: Program }, more: Config = {}): Promise<Tunnel> {
  const target = await echoTarget()
  opened.push({ stop: () => target.close() })
  const kcp_bind = `127.0.0.1:${await freePort()}`
  const method = METHODS[pair.server] ?? ''
  const server = await startFragile(pair.server, { method, kcp_bind, connect: target.address, ...more })
  const listen = `127.0.0.1:${await freePort()}`
  const client = await startFragile(pair.client, { method, listen, kcp_connect: kcp_bind, ...more })
  return { server, client, target }
}

const connect = ({ client }: Tunnel): Promise<TcpEnd> =>
  dial('127.0.0.1', Number(String(client.config['listen']).split(':')[1]))

/** Opens a connection and waits for an echo. */
async function connectAndEcho(tunnel: Tunnel): Promise<TcpEnd> {
  const app = await connect(tunnel)
  await app.send('word')
  await waitFor(
    'the word comes back',
    () => app.received >= 4 || app.ended,
    TIMEOUT_MS,
    () => `${tunnel.client.log().slice(-2000)}\n${tunnel.server.log().slice(-2000)}`,
  )
  assert.is(app.ended, false, tunnel.client.log())
  return app
}

async function trapsOf(running: Running): Promise<number | undefined> {
  const { host } = JSON.parse(await httpGet(`http://${running.config['http_listen']}/stats.json`))
  return host.engine_traps
}

for (const pair of MIXED_PAIRS) {
  for (const end of ['server', 'client'] as const) {
    test(`a trap of the ${end} under load resets its connections, and new ones work: ${pair.server} server, ${pair.client} client`, async () => {
      const tunnel = await openTunnel(pair)
      const app = await connectAndEcho(tunnel)
      const idle = await connectAndEcho(tunnel)
      void app.pour(200 << 20, 1).catch(() => {})
      await waitFor('bytes flow', () => app.received > 1 << 20, TIMEOUT_MS)
      await trap(tunnel[end])
      for (const one of end === 'client' ? [app, idle] : [app]) {
        const { kind } = await within('its end', TIMEOUT_MS, one.ending)
        assert.is(kind, 'reset')
      }
      for (const { ending } of end === 'server' ? tunnel.target.connections : []) {
        assert.is((await within('the end at the target', TIMEOUT_MS, ending)).kind, 'reset')
      }
      await connectAndEcho(tunnel)
      const log = tunnel[end].log()
      assert.match(log, /E .*the engine trapped: \S.*kcptun-wasm \d+\.\d+\.\d+/)
      assert.match(log, /^E .* at .*poll_events/m)
      assert.is(log.match(/udp bind/g)?.length, 1, 'one socket')
      assert.is(await trapsOf(tunnel[end]), 1)
      assert.is(await trapsOf(tunnel[end === 'server' ? 'client' : 'server']), 0)
      idle.destroy()
    })
  }
}

for (const program of RUNTIMES) {
  test(`the third trap within a minute ends the process with status 1: ${program}`, async () => {
    const tunnel = await openTunnel({ server: program, client: program })
    const { client } = tunnel
    const provoke = (): void =>
      void connect(tunnel).then(
        (app) => app.destroy(),
        () => {},
      )
    await trap(client, client.pid, provoke)
    await trap(client, client.pid, provoke)
    assert.is(client.status, undefined)
    await trap(client, client.pid, provoke)
    assert.is((await within('its end', TIMEOUT_MS, client.exited)).code, 1)
    assert.match(client.log(), /F .*3 times within 60 s/)
  })
}

const WORKERS = 'a worker restarts its engine in the same process, and connections of the other worker survive'
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)

for (const program of RUNTIMES) {
  const name = `${WORKERS}: ${program}`
  if (process.platform !== 'linux' || !existsSync(`/proc/self/task/${process.pid}/children`)) {
    skip(test, name, 'workers are for Linux with /proc/PID/task/PID/children')
    continue
  }
  test(name, async () => {
    const tunnel = await openTunnel({ server: program, client: program }, { workers: 2 })
    const { client, server } = tunnel
    const apps = await Promise.all(Array.from({ length: 24 }, () => connectAndEcho(tunnel)))
    for (const end of [server, client]) {
      const children = childrenOf(end.pid)
      assert.is(children.length, 2)
      const alive = apps.filter(({ ended }) => !ended).length
      await trap(end, children[0])
      if (end === client) {
        await waitFor('some are reset', () => apps.filter(({ ended }) => !ended).length < alive, TIMEOUT_MS)
      }
      assert.equal(childrenOf(end.pid), children, 'the same processes')
      assert.is(await trapsOf(end), 1)
    }
    await Promise.all(Array.from({ length: 24 }, () => connectAndEcho(tunnel)))
    const { workers } = JSON.parse(await httpGet(`http://${client.config['http_listen']}/stats.json`))
    assert.equal(workers, { serving: 2, restarts: 0 })
  })
}

test.run()
