// time limit: 240 s
/** Parts of the path that are missing, disappear or come back. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { freePort, sessionCounts } from '../../testkit/process.ts'
import { echoTarget, patternDigest, sinkTarget, sourceTarget } from '../../testkit/tcp.ts'
import { echo, scriptedTarget } from '../../testkit/traffic.ts'
import type { Tunnel } from '../../testkit/tunnel.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const TIMEOUT_MS = 30_000
/** An endpoint that cannot reach its peer gives up after `timeout` (60 s is the minimum), checked every 10 s. */
const GIVE_UP_MS = 90_000
/** Number of connections that are reset, and limit of the log text that they may cause. */
const STORM = 300
const STORM_LOG = 20_000
const LINK = { delay: 5, loss: 0.01, seed: 31 }

const test = suite('faults')

/** Asserts that a new connection through the tunnel echoes. */
async function assertWorks(tunnel: Tunnel): Promise<void> {
  const app = await tunnel.dial()
  await app.send('still here?')
  await waitFor('a new connection works', () => app.text() === 'still here?' || app.ended, TIMEOUT_MS)
  assert.is(app.text(), 'still here?')
  app.finish()
  assert.is((await within('its end', TIMEOUT_MS, app.ending)).kind, 'fin')
}

for (const pair of MIXED_PAIRS) {
  test(`MUST 34: a target that refuses ends the application's connection, and later connections work: ${nameOf(pair)}`, async () => {
    const port = await freePort()
    await withTunnel({ ...pair, link: LINK, target: `127.0.0.1:${port}` }, async (tunnel) => {
      for (let i = 0; i < 3; i++) {
        const app = await tunnel.dial()
        void app.pour(100_000, i)
        const ending = await within('the end', TIMEOUT_MS, app.ending)
        assert.is(ending.bytes, 0)
        app.destroy()
      }
      const target = await echoTarget({ port })
      await assertWorks(tunnel).finally(() => target.close())
    })
  })

  test(`hundreds of connections reset before they are accepted leave no session: ${nameOf(pair)}`, async () => {
    const target = await scriptedTarget()
    await withTunnel({ ...pair, config: { loglevel: 4 }, target: target.address }, async (tunnel) => {
      const before = tunnel.client.log().length + tunnel.server.log().length
      // the program finds all of them reset when it accepts
      process.kill(tunnel.client.pid, 'SIGSTOP')
      const storm = await Promise.all(Array.from({ length: STORM }, () => tunnel.dial()))
      for (const app of storm) app.reset()
      process.kill(tunnel.client.pid, 'SIGCONT')
      // and a target that resets each accepted connection
      void target.serve((end) => end.reset())
      const apps = await Promise.all(Array.from({ length: STORM }, () => tunnel.dial()))
      for (const app of apps) app.socket.write('x')
      for (const app of apps) {
        await within('the end', TIMEOUT_MS, app.ending)
        app.destroy()
      }
      void target.serve((end) => end.socket.pipe(end.socket))
      const app = await tunnel.dial()
      await app.send('still here?')
      await waitFor('a new connection works', () => app.text() === 'still here?' || app.ended, TIMEOUT_MS)
      assert.is(app.text(), 'still here?')
      app.destroy()
      for (const end of [tunnel.client, tunnel.server]) {
        await waitFor(
          'no session is left open',
          async () => sessionCounts(await end.stats()).connected === 0,
          TIMEOUT_MS,
        )
      }
      const logged = tunnel.client.log().length + tunnel.server.log().length - before
      assert.ok(logged < STORM_LOG, `${logged} characters in the logs`)
    }).finally(() => target.close())
  })

  test(`a target that vanishes ends open connections and does not affect later ones: ${nameOf(pair)}`, async () => {
    const first = await echoTarget()
    await withTunnel({ ...pair, link: LINK, target: first.address }, async (tunnel) => {
      const apps = await Promise.all([tunnel.dial(), tunnel.dial(), tunnel.dial()])
      await Promise.all(apps.map((app) => app.send('x')))
      await waitFor('all are echoed', () => apps.every((app) => app.received === 1), TIMEOUT_MS)
      for (const end of first.connections) end.reset()
      await first.close()
      for (const app of apps) {
        assert.is((await within('the end', TIMEOUT_MS, app.ending)).bytes, 1)
        app.destroy()
      }
      const second = await echoTarget({ port: first.port })
      await assertWorks(tunnel).finally(() => second.close())
    })
  })

  test(`a link outage of some seconds costs time, not data: ${nameOf(pair)}`, async () => {
    const target = await scriptedTarget()
    await withTunnel({ ...pair, link: LINK, target: target.address }, async (tunnel) => {
      const source = target.serve((end) => void end.pour(4 << 20, 8).then(() => end.finish()))
      const app = await tunnel.dial()
      await source
      await waitFor('bytes flow', () => app.received > 200_000, TIMEOUT_MS)
      tunnel.link.blackhole()
      const { lost } = tunnel.link.counters.down
      await waitFor('some were lost', () => tunnel.link.counters.down.lost > lost + 3, TIMEOUT_MS)
      tunnel.link.heal()
      const ending = await within('the rest', TIMEOUT_MS, app.ending)
      assert.is(ending.bytes, 4 << 20)
      assert.is(ending.sha256, patternDigest(4 << 20, 8))
    }).finally(() => target.close())
  })

  test(`a client whose address changed opens new connections at once: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, link: LINK, target: target.address }, async (tunnel) => {
      await assertWorks(tunnel)
      tunnel.link.rebind()
      await assertWorks(tunnel)
    }).finally(() => target.close())
  })

  test(`a killed and restarted server serves new connections, and old ones end: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    const config = { timeout: 60, linger: 5 }
    await withTunnel({ ...pair, link: LINK, config, target: target.address }, async (tunnel) => {
      const old = await tunnel.dial()
      await old.send('before')
      await waitFor('the old connection works', () => old.text() === 'before', TIMEOUT_MS)
      await tunnel.restart('server')
      await assertWorks(tunnel)
      // An application that keeps sending must see the connection break.
      void old.pour(20_000, 1)
      const ending = await within('the end of the old connection', GIVE_UP_MS, old.ending)
      assert.is(ending.bytes, 'before'.length, 'nothing else came back')
      assert.is.not(ending.kind, 'fin', 'a broken connection does not end with FIN')
    }).finally(() => target.close())
  })

  test(`MUST 42, 45: a killed and restarted client works, and the server drops its old connections: ${nameOf(pair)}`, async () => {
    const target = await scriptedTarget()
    const clientConfig = { kcp_bind: `127.0.0.1:${await freePort()}` }
    await withTunnel({ ...pair, link: LINK, clientConfig, target: target.address }, async (tunnel) => {
      const endless = target.serve((end) => void end.pour(1 << 30, 4))
      const app = await tunnel.dial()
      await waitFor('a download is under way', () => app.received > 100_000, TIMEOUT_MS)
      await tunnel.restart('client')
      // The client has no state of the old connection: its RESET ends the server's side.
      await within('the end of the old connection at the target', TIMEOUT_MS, (await endless).ending)
      await echo(tunnel, target, 10_000, 5)
      const counts = sessionCounts(await tunnel.server.stats('sessions=all'))
      assert.is(counts.connected + counts.halfOpen, 0, await tunnel.server.stats('sessions=all'))
      app.destroy()
    }).finally(() => target.close())
  })
}

test('a client started long before its server works as soon as the server is up', async () => {
  const target = await sourceTarget(1000, 6)
  const options = { server: 'node', client: 'bun', link: LINK, target: target.address } as const
  await withTunnel(options, async (tunnel) => {
    await tunnel.server.stop('SIGKILL')
    const early = await tunnel.dial()
    await tunnel.restart('server')
    const ending = await within('the answer', TIMEOUT_MS, early.ending)
    assert.is(ending.sha256, patternDigest(1000, 6))
  }).finally(() => target.close())
})

test('an upload to a sink arrives whole through a link that duplicates, reorders and corrupts', async () => {
  const target = await sinkTarget()
  const link = { delay: 5, jitter: 5, loss: 0.03, burst: 3, duplicate: 0.05, reorder: 0.1, corrupt: 0.02, seed: 12 }
  await withTunnel({ server: 'bun', client: 'node', link, target: target.address }, async (tunnel) => {
    const app = await tunnel.dial()
    await app.pour(2 << 20, 7)
    app.finish()
    const ending = await within(
      'the upload',
      TIMEOUT_MS,
      target.connection(0).then((end) => end.ending),
    )
    assert.is(ending.bytes, 2 << 20)
    assert.is(ending.sha256, patternDigest(2 << 20, 7))
    assert.is(ending.kind, 'fin')
    assert.ok(tunnel.link.counters.up.corrupted > 0)
  }).finally(() => target.close())
})

test.run()
