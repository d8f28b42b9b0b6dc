// time limit: 240 s
/** Clients of kcptun-libev as users of a server with several keys, and how one of them gets another key. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { libevPath, type Program, start } from '../../testkit/process.ts'
import { reloadFile, Steps } from '../../testkit/steps.ts'
import { dial, echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { openUsers, type Users } from '../../testkit/users.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const MOVED = 300_000

const test = suite('interop: users')

async function echo(app: TcpEnd, bytes: number): Promise<void> {
  const wanted = app.received + bytes
  await app.pour(bytes, 3)
  await waitFor('the echo', () => app.received >= wanted || app.ended, 60_000)
  assert.is(app.received, wanted, 'everything came back')
}

async function withUsers(server: Program, body: (users: Users) => Promise<void>): Promise<void> {
  const target = await echoTarget()
  const clients = { alice: 'libev', bob: 'libev', carol: 'node' } as const
  const users = await openUsers({ server, clients, target: target.address })
  try {
    await body(users)
  } catch (error) {
    throw new Error(`${String(error)}\n${users.server.log().slice(-3000)}`, { cause: error })
  } finally {
    await users.close()
    await target.close()
  }
}

if (libevPath === undefined) {
  skip(test, 'all', 'KCPTUN_LIBEV is not set')
} else {
  for (const program of RUNTIMES) {
    test(`kcptun-libev clients are told apart by their keys: ${program} server`, () =>
      withUsers(program, async (users) => {
        const apps = {
          alice: await users.dial('alice'),
          bob: await users.dial('bob'),
          carol: await users.dial('carol'),
        }
        await echo(apps.alice, MOVED)
        await echo(apps.bob, 2000)
        await echo(apps.carol, 100)
        for (const [name, bytes] of Object.entries({ alice: MOVED, bob: 2000, carol: 100 })) {
          await waitFor(`the bytes of ${name}`, async () => (await users.figures(name)).tcp_written_bytes === bytes)
          assert.is((await users.figures(name)).sessions, 1, name)
        }
        const { alice = {}, carol = {} } = users.entries
        await users.setKeys(carol, alice)
        await waitFor('the session of bob ends', () => apps.bob.ended, 60_000)
        await echo(apps.alice, 1000)
        await echo(apps.carol, 1000)
      }))

    test(`the steps of rotate with a kcptun-libev client: ${program} server`, () =>
      withUsers(program, async ({ server, clients, dial: dialUser, figures }) => {
        const steps = await Steps.print(program, '-c', server.path, 'alice')
        // as a person writes it: an entry on a line
        server.reload(
          JSON.stringify(server.config, null, 1).replaceAll(/\{\s+("name".*)\s+("psk".*)\s+\}/g, '{ $1 $2 }'),
        )
        steps.add(server.path)
        await reloadFile(server)
        const bob = await dialUser('bob')
        await echo(bob, 1000)
        await clients['alice']?.stop()
        const renewed = await start('libev', { ...clients['alice']?.config, psk: steps.psk })
        const port = Number(String(renewed.config['listen']).split(':')[1])
        const app = await dial('127.0.0.1', port)
        await echo(app, MOVED)
        const status = await steps.status(program)
        assert.match(status, /^alice +0 sessions/m)
        assert.match(status, /^alice-\d{4}-\d{2} +1 session, /m)
        steps.remove(server.path)
        await reloadFile(server)
        await echo(app, MOVED)
        await echo(bob, 1000)
        assert.is((await figures('bob')).sessions, 1)
        await renewed.stop()
      }))
  }
}

test.run()
