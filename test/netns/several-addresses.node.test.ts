// time limit: 300 s, waits
/**
 * The server's name has two addresses, one of each family: a client moves to the other one when the one in use does not
 * answer. The same server knows its connections there, another server does not.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { libevPath } from '../../testkit/process.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type Meeting, type MeetingOptions, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'

const PORT = 5200
const CASES = [
  { server: 'node', client: 'bun', family: 4, path: 'auto' },
  { server: 'bun', client: 'node', family: 6, path: 'auto' },
  { server: 'bun', client: 'node', family: 4, path: 'portable' },
  { server: 'node', client: 'bun', family: 6, path: 'portable' },
] as const

const test = suite('netns: several addresses')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addPublicHost('server', 50)
  const clientHost = world.addPublicHost('client', 60)
  const names = new HostsFile()
  test.after(() => {
    world.close()
    names.remove()
  })

  /** Runs a client that uses the server's name, whose first address is of this family. */
  const named = (options: MeetingOptions, body: (meeting: Meeting) => Promise<void>): Promise<void> =>
    withMeeting({ ...options, start: { client: { wrapper: names.wrapper } } }, async (meeting) => {
      const other = options.family === 4 ? 6 : 4
      names.set('server.test', serverHost.addresses[options.family], serverHost.addresses[other])
      for (const role of ['client', 'server'] as const) await meeting.stop(role)
      await meeting.start('server', { kcp_bind: `[::]:${PORT}` })
      await meeting.start('client', { kcp_connect: `server.test:${PORT}` })
      await body(meeting)
    }).finally(() => {
      serverHost.unplug()
      serverHost.plug()
    })

  const used = (meeting: Meeting): string => /.*udp connect: (\S+)/s.exec(meeting.client.log())?.[1] ?? ''

  /** Takes the address away that the client uses. */
  function drop(meeting: Meeting): void {
    const family = used(meeting).startsWith('[') ? 6 : 4
    const [address, prefix] = [serverHost.addresses[family], family === 4 ? 24 : 64]
    serverHost.namespace.ip(`addr del ${address}/${prefix} dev eth0`)
  }

  const assertMoves = async (meeting: Meeting): Promise<void> => {
    const before = used(meeting)
    drop(meeting)
    await waitFor(
      'the other address',
      () => used(meeting) !== before,
      RECOVERY_MS,
      () => meeting.client.log(),
    )
  }

  for (const { server, client, family, path } of CASES) {
    const programs = { server, client }
    const config = { udp: { path } }
    const options: MeetingOptions = { programs, family, config, net: world.net, serverHost, clientHost }
    test(`connections move to the other address of their server: ${titleOf(options)}, udp.path ${path}`, () =>
      named(options, async (meeting) => {
        const app = await meeting.connect()
        await assertMoves(meeting)
        await assertEchoes(app, 'the open connection')
        const fresh = await meeting.connect()
        for (const end of [app, fresh]) end.destroy()
      }))
  }

  for (const client of ['node', 'bun'] as const) {
    const programs = { server: 'libev', client } as const
    const options: MeetingOptions = { programs, family: 4, net: world.net, serverHost, clientHost }
    if (libevPath === undefined) skip(test, titleOf(options), 'KCPTUN_LIBEV is not set')
    else
      test(`a server that does not know the connections at its other address resets them: ${titleOf(options)}`, () =>
        named(options, async (meeting) => {
          const app = await meeting.connect()
          await assertMoves(meeting)
          // the RESET may have arrived with the first PINGs
          await app.send('where are you?').catch((error) => assert.ok(app.ended, error.message))
          await waitFor('an answer or the end', () => app.ended || app.text().includes('where'), RECOVERY_MS)
          const fresh = await meeting.connect()
          for (const end of [app, fresh]) end.destroy()
        }))
  }

  test('a first address without a route is passed over at the start', () =>
    named(
      { programs: { server: 'bun', client: 'node' }, family: 6, net: world.net, serverHost, clientHost },
      async (meeting) => {
        await meeting.stop('client')
        clientHost.namespace.ip(`addr flush dev eth0 scope global`)
        clientHost.namespace.ip(`addr add ${clientHost.addresses[4]}/24 dev eth0`)
        await meeting.start('client', { kcp_connect: `server.test:${PORT}` })
        const app = await meeting.connect()
        assert.is(used(meeting), serverHost.at(4, PORT))
        app.finish()
        await within('the end', RECOVERY_MS, app.ending).catch(() => app.destroy())
      },
    ).finally(() => {
      clientHost.unplug()
      clientHost.plug()
    }))
}

test.run()
