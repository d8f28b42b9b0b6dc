// time limit: 240 s
/** A server with several keys: who is who, limits and ends of keys, and reloads that add and remove users. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, httpGet, type Program, run, start, writeConfig } from '../../testkit/process.ts'
import { dial, echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { newPsk, openUsers, type Users, type UsersOptions } from '../../testkit/users.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const MOVED = 300_000

const test = suite('users')

async function withUsers(options: Omit<UsersOptions, 'target'>, body: (users: Users) => Promise<void>): Promise<void> {
  const target = await echoTarget()
  const users = await openUsers({ ...options, target: target.address })
  try {
    await body(users)
  } catch (error) {
    throw new Error(`${String(error)}\n${users.server.log().slice(-3000)}`, { cause: error })
  } finally {
    await users.close()
    await target.close()
  }
}

async function echo(app: TcpEnd, bytes: number): Promise<void> {
  const wanted = app.received + bytes
  await app.pour(bytes, 3)
  await waitFor('the echo', () => app.received >= wanted || app.ended, 60_000)
  assert.is(app.received, wanted, 'everything came back')
}

/** Whether a fresh connection of a user is served. */
async function isServed(users: Users, name: string): Promise<boolean> {
  const app = await users.dial(name)
  await app.send('x')
  await waitFor('an echo or an end', () => app.received > 0 || app.ended, 60_000)
  const served = app.received > 0
  app.destroy()
  return served
}

/** A user knocks, and is dropped as a stranger. */
async function isStranger(users: Users, name: string): Promise<void> {
  const dropped = async (): Promise<number> => (await users.statistics()).counters['drop_auth'] ?? 0
  const before = await dropped()
  const app = await users.dial(name)
  await app.send('x')
  await waitFor('datagrams are dropped', async () => (await dropped()) > before, 60_000)
  assert.is(app.received, 0)
  app.destroy()
}

const clients = ({ client, server }: { client: Program; server: Program }) => ({ alice: client, bob: server })

for (const pair of MIXED_PAIRS) {
  const { server } = pair
  test(`each user is counted and named everywhere: ${server} server`, () =>
    withUsers({ server, clients: { ...clients(pair), carol: pair.client } }, async (users) => {
      const [alice, bob] = [await users.dial('alice'), await users.dial('bob')]
      await echo(alice, MOVED)
      await echo(bob, 1000)
      const second = await users.dial('bob')
      await echo(second, 10)
      await waitFor('the figures', async () => (await users.figures('bob')).tcp_written_bytes === 1010)
      const figures = await users.figures('alice')
      assert.equal([figures.sessions, figures.sessions_opened, figures.max_sessions], [1, 1, null])
      assert.equal([figures.tcp_read_bytes, figures.tcp_written_bytes], [MOVED, MOVED])
      assert.ok(figures.datagrams_received > 100 && figures.datagrams_sent > 100, JSON.stringify(figures))
      assert.ok((figures.last_seen_seconds ?? 99) < 60)
      const { keys = [], sessions } = await users.statistics()
      assert.equal(
        keys.map(({ name }) => name),
        ['alice', 'bob', 'carol'],
      )
      assert.equal([keys[1]?.sessions, keys[1]?.sessions_opened], [2, 2])
      assert.equal(keys[2]?.sessions_opened, 0)
      assert.equal(sessions.map(({ user }) => user).sort(), ['alice', 'bob', 'bob'])
      const text = await users.server.stats('sessions=all')
      assert.match(text, /^\[\w{8}\] - peer=\S+ user=alice /m)
      assert.match(text, /^\[user bob\] 2 sessions, 2 opened; /m)
      const metrics = await httpGet(`http://${users.server.config['http_listen']}/metrics`)
      assert.match(metrics, `kcptun_key_tcp_written_bytes_total{key="alice"} ${MOVED}\n`)
      assert.match(users.server.log(), /alice/)
      for (const app of [alice, bob, second]) app.finish()
      await waitFor('their end', async () => (await users.figures('bob')).sessions === 0)
      assert.is((await users.figures('bob')).tcp_read_bytes, 1010, 'totals stay')
    }))

  test(`max_sessions of a key refuses its user alone: ${server} server`, () =>
    withUsers({ server, clients: clients(pair), entries: { bob: { max_sessions: 2 } } }, async (users) => {
      const apps = [await users.dial('bob'), await users.dial('bob')]
      for (const app of apps) await echo(app, 10)
      const third = await users.dial('bob')
      await third.send('x')
      await waitFor('it is refused', async () => (await users.figures('bob')).sessions_refused > 0, 60_000)
      assert.is(third.received, 0)
      third.destroy()
      for (let more = 0; more < 4; more++) assert.ok(await isServed(users, 'alice'))
      for (const app of apps) await echo(app, 10)
      const { max_sessions, sessions } = await users.figures('bob')
      assert.equal([max_sessions, sessions], [2, 2])
      apps[0]?.finish()
      await waitFor('room', async () => (await users.figures('bob')).sessions < 2)
      await waitFor('it is served again', () => isServed(users, 'bob'), 60_000)
    }))

  test(`the sessions of a key end when it expires, and it is refused then: ${server} server`, () => {
    const not_after = new Date(Date.now() + 6000).toISOString()
    return withUsers({ server, clients: clients(pair), entries: { bob: { not_after } } }, async (users) => {
      const [alice, bob] = [await users.dial('alice'), await users.dial('bob')]
      await echo(alice, 10)
      await echo(bob, 10)
      await waitFor('the end of the session', () => bob.ended, 60_000)
      await isStranger(users, 'bob')
      await echo(alice, 10)
      await users.setKeys(users.entries['alice'] ?? {}, { ...users.entries['bob'], not_after: '2999-12-31' })
      await waitFor('bob has more time', () => isServed(users, 'bob'), 60_000)
      await echo(alice, 10)
    })
  })
}

if (process.platform === 'win32') {
  skip(test, 'reloads', 'Windows has no SIGHUP')
} else {
  for (const pair of MIXED_PAIRS) {
    test(`a reload adds and removes users, and the others notice nothing: ${pair.server} server`, () =>
      withUsers({ server: pair.server, clients: clients(pair) }, async (users) => {
        const { alice = {}, bob = {} } = users.entries
        const [one, two] = [await users.dial('alice'), await users.dial('bob')]
        await echo(one, MOVED)
        await echo(two, 10)
        const poured = echo(one, 8 * 1024 * 1024)
        await users.setKeys(alice)
        await waitFor('the session of bob ends', () => two.ended, 60_000)
        const { kind } = await two.ending
        assert.is(kind, 'reset')
        await poured
        await isStranger(users, 'bob')
        await users.setKeys({ name: 'carol', psk: newPsk() }, bob, alice)
        await waitFor('bob is served again', () => isServed(users, 'bob'), 60_000)
        await echo(one, 10)
        await users.setKeys(bob, { ...alice, name: 'alice-2' })
        await echo(one, 10)
        assert.is((await users.figures('alice-2')).sessions, 1, 'a key may get another name')
      }))
  }

  test('a reload with bad keys is refused as a whole', () =>
    withUsers({ server: 'node', clients: { alice: 'bun', bob: 'node' } }, async (users) => {
      const app = await users.dial('alice')
      await echo(app, 10)
      const { alice = {}, bob = {} } = users.entries
      for (const [keys, reason] of [
        [[alice, { ...bob, name: 'alice' }], 'is the name of keys[0] too'],
        [[alice, { name: 'c', psk: 'short' }], 'must be 32 bytes in standard Base64'],
        [[{ ...alice, not_after: '2020-01-01' }], 'all of them have expired'],
        [[], 'requires a key'],
      ] as const) {
        users.server.reload({ keys })
        await waitFor(reason, () => users.server.log().includes(reason))
      }
      await echo(app, 10)
      assert.ok(await isServed(users, 'bob'))
    }))
}

test('IPv6, the portable UDP path', () =>
  withUsers(
    { server: 'node', clients: { alice: 'bun', bob: 'node' }, host: '::1', config: { udp: { path: 'portable' } } },
    async (users) => {
      assert.ok(await isServed(users, 'alice'))
      assert.ok(await isServed(users, 'bob'))
      await waitFor('figures', async () => (await users.figures('bob')).sessions_opened === 1)
    },
  ))

for (const method of ['xsalsa20poly1305', 'chacha20poly1305_ietf', 'aes256gcm'])
  test(`method ${method}, with a password among the keys`, async () => {
    const target = await echoTarget()
    const options = { server: 'bun', clients: { alice: 'node', bob: 'bun' }, config: { method } } as const
    const users = await openUsers({ ...options, target: target.address })
    try {
      const { alice = {} } = users.entries
      await users.setKeys({ name: 'pass', password: 'correct horse' }, alice)
      assert.ok(await isServed(users, 'alice'))
      const port = await freePort()
      const config = { method, listen: `127.0.0.1:${port}`, kcp_connect: users.server.config['kcp_bind'] ?? '' }
      const guest = await start('node', { ...config, password: 'correct horse' })
      const app = await dial('127.0.0.1', port)
      await echo(app, 100)
      assert.is((await users.figures('pass')).sessions, 1)
      app.destroy()
      await guest.stop()
    } finally {
      await users.close()
      await target.close()
    }
  })

test('workers count together', () =>
  withUsers({ server: 'node', clients: { alice: 'node', bob: 'node' }, config: { workers: 2 } }, async (users) => {
    for (let visit = 0; visit < 6; visit++) assert.ok(await isServed(users, 'alice'))
    const app = await users.dial('bob')
    await echo(app, MOVED)
    await waitFor('alice', async () => (await users.figures('alice')).sessions_opened === 6)
    await waitFor('bob', async () => (await users.figures('bob')).tcp_written_bytes === MOVED)
    await users.setKeys(users.entries['alice'] ?? {})
    await waitFor('the session of bob ends', () => app.ended, 60_000)
    assert.ok(await isServed(users, 'alice'))
  }))

test('a proxy names the user whose request it refuses', () =>
  withUsers(
    { server: 'bun', clients: { alice: 'node', bob: 'node' }, serverConfig: { connect: 'socks5' } },
    async (users) => {
      const app = await users.dial('bob')
      await app.send(Uint8Array.of(5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9))
      const line = /socks5: request of 127\.0\.0\.1:\d+ \(bob\) refused: 127\.0\.0\.1:9 is denied/
      await waitFor('the refusal', () => line.test(users.server.log()))
      app.destroy()
    },
  ))

for (const program of RUNTIMES) {
  test(`each of several tunnels has its keys, labelled in /metrics: ${program}`, async () => {
    const target = await echoTarget()
    const keys = ['alice', 'bob'].map((name) => ({ name, psk: newPsk() }))
    const udp = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`]
    const entries = udp.map((kcp_bind, index) => ({ name: `t${index}`, kcp_bind, connect: target.address }))
    const server = await start(program, { method: 'aes256gcm', keys, tunnels: entries })
    const port = await freePort()
    const config = { method: 'aes256gcm', psk: keys[1]?.psk ?? '', listen: `127.0.0.1:${port}` }
    const client = await start(program, { ...config, kcp_connect: udp[1] ?? '' })
    const app = await dial('127.0.0.1', port)
    await echo(app, 100)
    const metrics = await httpGet(`http://${server.config['http_listen']}/metrics`)
    assert.match(metrics, 'kcptun_key_sessions{tunnel="t1",key="bob"} 1\n')
    assert.match(metrics, 'kcptun_key_sessions{tunnel="t0",key="bob"} 0\n')
    const status = (...words: string[]) => run(program, ['rotate', '-c', server.path, '--status', ...words])
    assert.match((await status()).stderr, 'has several tunnels, choose one with --tunnel: t0, t1')
    assert.match(
      (await status('--tunnel', 't1')).stdout,
      /^alice +0 sessions, not seen\nbob +1 session, seen \d+s ago\n$/,
    )
    await Promise.all([client.stop(), server.stop()])
    await target.close()
  })

  test(`keys that have all expired end the start, one of them is a warning: ${program}`, async () => {
    const base = { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9', method: 'aes256gcm' }
    const over = { name: 'old', psk: newPsk(), not_after: '2020-01-01' }
    const file = writeConfig({ ...base, keys: [over] })
    const { code, stdout } = await run(program, ['-c', file.path])
    file.remove()
    assert.is(code, 1)
    assert.match(stdout, 'all of them have expired: old (not_after 2020-01-01)')
    const server = await start(program, { ...base, keys: [over, { name: 'new', psk: newPsk() }] })
    assert.match(server.log(), /keys\[0\]\.not_after = "2020-01-01": the key of old has expired, it is not used/)
    await server.stop()
  })
}

test.run()
