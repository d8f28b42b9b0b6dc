// time limit: 240 s
/** SIGHUP (protocol.md 10.5): changes that a running tunnel applies, and those it rejects. */
import { spawn } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { commandOf, freePort, type Running, writeConfig } from '../../testkit/process.ts'
import { echoTarget, patternDigest } from '../../testkit/tcp.ts'
import { scriptedTarget } from '../../testkit/traffic.ts'
import { nameOf, type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TRANSFER_BYTES = 64 * 1024 * 1024
const TRANSFER_TIMEOUT_MS = 120_000
const MIB = 1024 * 1024
/** Log levels. */
const ERRORS = 2
const NOTICES = 4
const DEBUG = 6

const count = (text: string, part: string): number => text.split(part).length - 1

/** Sends SIGHUP with a changed configuration and waits for the result in the log. */
async function reload(end: Running, change: Parameters<Running['reload']>[0], result: string): Promise<void> {
  const before = count(end.log(), result)
  end.reload(change)
  await waitFor(
    `the log contains "${result}"`,
    () => count(end.log(), result) > before,
    20_000,
    () => end.log().slice(-2000),
  )
}

const RELOADED = 'config successfully reloaded'
const FAILED = 'reload failed, keeping the old configuration'

async function assertEchoes(tunnel: Tunnel): Promise<void> {
  const app = await tunnel.dial()
  await app.send('x')
  await waitFor('an echo', () => app.received === 1 || app.ended)
  assert.is(app.received, 1)
  app.destroy()
}

const test = suite('reload')

if (process.platform === 'win32') {
  skip(test, 'all', 'Windows has no SIGHUP')
} else {
  for (const pair of MIXED_PAIRS) {
    test(`MUST 73: SIGHUPs at both endpoints during a 64 MiB transfer do not disturb it and change the log level: ${nameOf(pair)}`, async () => {
      const target = await scriptedTarget()
      const config = { loglevel: NOTICES, kcp: { sndwnd: 1024, rcvwnd: 1024 } }
      await withTunnel({ ...pair, target: target.address, config }, async (tunnel) => {
        const accepted = target.serve(() => {})
        const app = await tunnel.dial()
        const poured = app.pour(TRANSFER_BYTES, 5)
        const end = await within('the dial', 20_000, accepted)
        for (const [round, level] of [DEBUG, NOTICES, DEBUG].entries()) {
          const wanted = (round + 1) * 8 * MIB
          await waitFor('data flows', () => end.received > wanted || end.ended, TRANSFER_TIMEOUT_MS)
          const change = { loglevel: level, timeout: 100 + round, keepalive: 5 + round, kcp: { sndwnd: 512 } }
          await Promise.all([tunnel.server, tunnel.client].map((each) => reload(each, change, RELOADED)))
          assert.ok(end.received < TRANSFER_BYTES, 'the transfer was still under way')
        }
        await within('the transfer', TRANSFER_TIMEOUT_MS, poured)
        app.finish()
        const ending = await within('its end', TRANSFER_TIMEOUT_MS, end.ending)
        assert.is(ending.bytes, TRANSFER_BYTES)
        assert.is(ending.sha256, patternDigest(TRANSFER_BYTES, 5))
        assert.is(ending.kind, 'fin')
        end.finish()
        for (const { log } of [tunnel.server, tunnel.client]) {
          assert.is(count(log(), 'udp bind:'), 1, 'the socket was kept')
          assert.not.match(log(), 'aborted')
        }
        await waitFor('the client logs at debug level', () => tunnel.client.log().includes('session closed'))
      }).finally(() => target.close())
    })

    test(`kcp.mtu may decrease and increase at either endpoint while data flows both ways: ${nameOf(pair)}`, async () => {
      const target = await scriptedTarget()
      await withTunnel({ ...pair, target: target.address, config: { loglevel: NOTICES } }, async (tunnel) => {
        const accepted = target.serve(() => {})
        const app = await tunnel.dial()
        const up = app.pour(TRANSFER_BYTES, 5)
        const end = await within('the dial', 20_000, accepted)
        const down = end.pour(TRANSFER_BYTES, 6)
        for (const [round, mtu] of [1000, 1400, 576, 1400, 1000, 1400].entries()) {
          const wanted = (round + 1) * 4 * MIB
          await waitFor(
            'data flow both ways',
            () => Math.min(app.received, end.received) > wanted || app.ended || end.ended,
            TRANSFER_TIMEOUT_MS,
          )
          const ends = [[tunnel.client], [tunnel.server], [tunnel.client, tunnel.server]][(round >> 1) % 3] ?? []
          await Promise.all(ends.map((each) => reload(each, { kcp: { mtu } }, RELOADED)))
        }
        await within('the transfers', TRANSFER_TIMEOUT_MS, Promise.all([up, down]))
        app.finish()
        end.finish()
        for (const [what, side, seed] of [
          ['upload', end, 5],
          ['download', app, 6],
        ] as const) {
          const ending = await within(what, TRANSFER_TIMEOUT_MS, side.ending)
          assert.is(ending.bytes, TRANSFER_BYTES, what)
          assert.is(ending.sha256, patternDigest(TRANSFER_BYTES, seed), what)
          assert.is(ending.kind, 'fin', what)
        }
        for (const { log } of [tunnel.server, tunnel.client]) assert.not.match(log(), 'aborted')
      }).finally(() => target.close())
    })

    test(`MUST 73: a bad file, a bad address and another mode are rejected with one line each: ${nameOf(pair)}`, async () => {
      const target = await echoTarget()
      await withTunnel({ ...pair, target: target.address, config: { loglevel: ERRORS + 2 } }, async (tunnel) => {
        const { server, client } = tunnel
        await assertEchoes(tunnel)
        await reload(server, '{ "connect": ', FAILED)
        await reload(server, { timeout: 1 }, FAILED)
        await reload(server, { connect: 'no port' }, FAILED)
        await reload(client, { kcp_connect: ':1' }, FAILED)
        const { listen: _, kcp_connect: __, ...rest } = client.config
        await reload(client, JSON.stringify({ ...rest, connect: target.address, kcp_bind: '127.0.0.1:0' }), FAILED)
        assert.match(client.log(), 'the mode cannot change from client to server')
        await reload(client, { rendezvous_server: '127.0.0.1:1' }, FAILED)
        assert.is(count(server.log(), FAILED), 3)
        assert.is(count(client.log(), FAILED), 3)
        for (const { log } of [server, client]) assert.is(count(log(), RELOADED), 0)
        await assertEchoes(tunnel)
      }).finally(() => target.close())
    })

    test(`MUST 73: new connections go to the new target, open ones stay with the old one: ${nameOf(pair)}`, async () => {
      const first = await echoTarget()
      const second = await echoTarget()
      await withTunnel({ ...pair, target: first.address }, async (tunnel) => {
        const { server, client } = tunnel
        const app = await tunnel.dial()
        await app.send('x')
        await waitFor('an echo', () => app.received === 1)
        await reload(server, { connect: second.address }, RELOADED)
        await assertEchoes(tunnel)
        assert.is(first.connections.length, 1)
        assert.is(second.connections.length, 1)
        await app.send('y')
        await waitFor('the open connection echoes', () => app.received === 2 || app.ended)
        assert.is(app.received, 2)
        // kcptun-libev loses them here: its client opens another socket
        await reload(client, { linger: 60 }, RELOADED)
        await app.send('z')
        await waitFor('the open connection echoes again', () => app.received === 3 || app.ended)
        assert.is(app.received, 3)
        app.destroy()
      }).finally(async () => {
        await first.close()
        await second.close()
      })
    })

    const early = `a SIGHUP that arrives during the start is obeyed: ${pair.client} client`
    const obeysEarly = async (): Promise<void> => {
      const listen = `127.0.0.1:${await freePort()}`
      const file = writeConfig({ listen, kcp_connect: '127.0.0.1:9', workers: 2 })
      const [command, ...args] = commandOf(pair.client)
      const child = spawn(command, [...args, '-c', file.path], { stdio: ['ignore', 'pipe', 'pipe'] })
      let log = ''
      const read = (text: string): void => {
        // the workers, which take a while, are not yet started
        if (log === '') child.kill('SIGHUP')
        log += text
      }
      child.stdout.setEncoding('utf8').on('data', read)
      child.stderr.setEncoding('utf8').on('data', read)
      try {
        await waitFor(
          'the reload',
          () => log.includes(RELOADED),
          20_000,
          () => log,
        )
      } finally {
        child.kill('SIGKILL')
        file.remove()
      }
    }
    if (process.platform === 'linux') test(early, obeysEarly)
    else skip(test, early, 'workers are for Linux')

    test(`a server moves to another port on SIGHUP, and a client follows on its own: ${nameOf(pair)}`, async () => {
      const target = await echoTarget()
      const port = await freePort()
      await withTunnel({ ...pair, target: target.address }, async (tunnel) => {
        await assertEchoes(tunnel)
        await reload(tunnel.server, { kcp_bind: `127.0.0.1:${port}` }, RELOADED)
        await reload(tunnel.client, { kcp_connect: `127.0.0.1:${port}` }, RELOADED)
        await assertEchoes(tunnel)
        await reload(tunnel.client, { kcp_connect: `127.0.0.1:${port}`, http_listen: '127.0.0.1:1' }, RELOADED)
        assert.match(tunnel.client.log(), 'config key http_listen: the change needs a restart')
        await assertEchoes(tunnel)
      }).finally(() => target.close())
    })
  }
}

test.run()
