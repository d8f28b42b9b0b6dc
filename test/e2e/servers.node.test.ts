// time limit: 600 s, waits
/** A client with several servers: where new connections go while servers come, go, and stay silent. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openLink } from '../../testkit/link.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { httpGet, libevPath, type Program } from '../../testkit/process.ts'
import { type Fleet, withServers } from '../../testkit/servers.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 60_000
/** Less than the default `keepalive`, after which there is another ping. */
const SOON_MS = 15_000
/** Pings are frequent, so that tests need not wait for silence long. */
const KEEPALIVE = { keepalive: 2 }

const test = suite('several servers')

const statusOf = (fleet: Fleet, path: string): Promise<number> =>
  fetch(`http://${fleet.client.config['http_listen']}${path}`).then(({ status }) => status)

const endingOf = (fleet: Fleet): Promise<string> =>
  fleet.ask().then(
    () => 'answer',
    ({ message }) => message,
  )

for (const client of RUNTIMES) {
  const pairs: readonly (readonly [Program, Program])[] = [
    ['node', 'bun'],
    ...(libevPath === undefined ? [] : [['libev', 'libev'] as const]),
  ]
  if (libevPath === undefined) skip(test, `kcptun-libev servers: ${client}`, 'KCPTUN_LIBEV is not set')

  for (const servers of pairs) {
    test(`new connections go elsewhere when the first server ends, and stay there at first: ${client}, ${servers}`, () =>
      withServers({ client, servers, clientConfig: KEEPALIVE }, async (fleet) => {
        assert.is(await fleet.where(), 0)
        await fleet.server(0).stop('SIGKILL')
        await fleet.goesTo(1)
        const open = await fleet.ask()
        assert.is(open.server, 1)
        assert.is(await statusOf(fleet, '/ready'), 200)
        const [first, second] = await fleet.states()
        assert.is(first?.state, 'down')
        assert.is(first?.used, false)
        assert.is(second?.state, 'up')
        assert.is(second?.used, true)
        assert.ok((second?.sessions ?? 0) > 0)
        assert.match(fleet.client.log(), `server ${fleet.addresses[0]} is down`)
        await fleet.startServer(0)
        await waitFor('it is seen', () => /is up, after/.test(fleet.client.log()), LIMIT_MS)
        assert.is(await fleet.where(), 1, 'a server that has just come back gets nothing yet')
        await open.app.send('again')
        await waitFor('the open connection goes on', () => open.app.text().includes('1again'), LIMIT_MS)
        await fleet.goesTo(0)
        await open.app.send('still')
        await waitFor('the open connection stays', () => open.app.text().includes('1still'), LIMIT_MS)
        open.app.destroy()
      }))
  }

  test(`a first server that is down at the start delays nothing: ${client}`, () =>
    withServers({ client, servers: ['node', 'node'], running: [1] }, async (fleet) => {
      assert.is(await fleet.where(), 1)
    }))

  test(`a server that became silent gets no new connections: ${client}`, () =>
    withServers({ client, servers: ['node', 'node'] }, async (fleet) => {
      assert.is(await fleet.where(), 0)
      const stopped = performance.now()
      for (const { rtt_ms } of await fleet.states()) assert.ok(rtt_ms !== null, 'the first answer shows the round trip')
      process.kill(fleet.server(0).pid, 'SIGSTOP')
      const lost = fleet.ask()
      lost.catch(() => {})
      await fleet.goesTo(1)
      assert.match(fleet.client.log(), 'new connections go to server')
      process.kill(fleet.server(0).pid, 'SIGCONT')
      const answered = await lost
      assert.is(answered.server, 0, 'the session that was opened there stays there')
      const lasted = performance.now() - stopped
      await waitFor('it is up', async () => (await fleet.states())[0]?.state === 'up', LIMIT_MS)
      // it answers pings of before; what is logged at once may be one of them
      await waitFor('its round trip', async () => ((await fleet.states())[0]?.rtt_ms ?? lasted) < lasted / 4, SOON_MS)
      answered.app.destroy()
    }))

  test(`round_robin takes the servers that answer in turn: ${client}`, () =>
    withServers(
      { client, servers: ['node', 'node', 'node'], clientConfig: { ...KEEPALIVE, strategy: 'round_robin' } },
      async (fleet) => {
        await waitFor('all are up', async () => (await fleet.states()).every(({ state }) => state === 'up'), LIMIT_MS)
        const turns: number[] = []
        for (let i = 0; i < 6; i++) turns.push(await fleet.where())
        assert.equal(turns.slice(0, 3).toSorted(), [0, 1, 2])
        assert.equal(turns.slice(3), turns.slice(0, 3))
        await fleet.server(1).stop('SIGKILL')
        await waitFor('it is down', async () => (await fleet.states())[1]?.state === 'down', LIMIT_MS)
        for (let i = 0; i < 4; i++) assert.is.not(await fleet.where(), 1)
      },
    ))

  test(`least_rtt takes the nearest server: ${client}`, async () => {
    const links: Awaited<ReturnType<typeof openLink>>[] = []
    // the port of the link is known only when that of the server is
    await withServers({ client, servers: ['node', 'node'], running: [] }, async (plain) => {
      const [host, port] = (plain.addresses[0] ?? '').split(':')
      links.push(await openLink({ delay: 100, target: { host: host ?? '', port: Number(port) } }))
      await plain.startServer(0)
      await plain.startServer(1)
      const far = `127.0.0.1:${links[0]?.port}`
      plain.client.reload({ strategy: 'least_rtt', kcp_connect: [far, plain.addresses[1] ?? ''] })
      await waitFor('it is reloaded', () => /successfully reloaded/.test(plain.client.log()), LIMIT_MS)
      await plain.goesTo(1)
      const { app } = await plain.ask()
      app.destroy()
    })
    for (const link of links) await link.close()
  })

  test(`connections are reset while no server answers, and go to the first that comes: ${client}`, () =>
    withServers({ client, servers: ['node', 'node'], clientConfig: KEEPALIVE, running: [] }, async (fleet) => {
      assert.is(await endingOf(fleet), 'reset')
      assert.is(await statusOf(fleet, '/ready'), 503)
      await fleet.startServer(1)
      await fleet.goesTo(1)
      assert.is(await statusOf(fleet, '/ready'), 200)
    }))

  test(`a reload adds and removes servers, and connections stay: ${client}`, () =>
    withServers(
      { client, servers: ['node', 'node'], connect: (all) => all.slice(0, 1), clientConfig: KEEPALIVE },
      async (fleet) => {
        const [first, second] = fleet.addresses
        const open = await fleet.ask()
        assert.is(open.server, 0)
        fleet.client.reload({ kcp_connect: [second ?? '', first ?? ''] })
        await waitFor('it is added', () => /is added/.test(fleet.client.log()), LIMIT_MS)
        await fleet.goesTo(1)
        fleet.client.reload({ kcp_connect: second ?? '' })
        await waitFor('it is removed', () => /is removed/.test(fleet.client.log()), LIMIT_MS)
        await open.app.send('again')
        await waitFor('the connection goes on', () => open.app.text().includes('0again'), LIMIT_MS)
        assert.equal(
          (await fleet.states()).map(({ state }) => state),
          ['up', 'leaving'],
        )
        open.app.destroy()
        await waitFor('it is gone', async () => (await fleet.states()).length === 1, LIMIT_MS)
        assert.is(await fleet.where(), 1)
      },
    ))

  test(`workers choose as one process does, and their figures are added: ${client}`, () =>
    withServers({ client, servers: ['node', 'node'], clientConfig: { ...KEEPALIVE, workers: 2 } }, async (fleet) => {
      const apps = await Promise.all(Array.from({ length: 8 }, () => fleet.ask()))
      for (const { server } of apps) assert.is(server, 0)
      assert.is((await fleet.states())[0]?.sessions, 8)
      for (const { app } of apps) app.destroy()
      await fleet.server(0).stop('SIGKILL')
      await fleet.goesTo(1)
      const metrics = (): Promise<string> => httpGet(`http://${fleet.client.config['http_listen']}/metrics`)
      const up = (index: number): string => `kcptun_server_up{server="${fleet.addresses[index]}"} `
      await waitFor('both see it', async () => (await metrics()).includes(`${up(0)}0`), LIMIT_MS)
      assert.match(await metrics(), `${up(1)}1`)
    }))

  test(`an array of one is as a string: ${client}`, () =>
    withServers({ client, servers: ['node'], clientConfig: KEEPALIVE }, async (fleet) => {
      assert.is(await fleet.where(), 0)
      await fleet.server(0).stop('SIGKILL')
      await within(
        'a reset',
        LIMIT_MS,
        waitFor('a reset', async () => (await endingOf(fleet)) === 'reset', LIMIT_MS),
      )
      await fleet.startServer(0)
      await fleet.goesTo(0)
    }))
}

test.run()
