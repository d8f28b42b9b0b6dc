// time limit: 300 s, waits
/**
 * The name of the rendezvous server has an address of each family: when it is restarted at one of them only, the
 * endpoints meet there, whichever they used before, and connections stay.
 */
import { suite } from 'uvu'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type MeetingOptions, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'

const PORT = 12345
const NODE_SERVER = { rendezvous: 'bun', server: 'node', client: 'bun' } as const
const BUN_SERVER = { rendezvous: 'node', server: 'bun', client: 'node' } as const
const CASES = [
  { programs: NODE_SERVER, family: 4, path: 'auto' },
  { programs: BUN_SERVER, family: 6, path: 'auto' },
  { programs: NODE_SERVER, family: 6, path: 'portable' },
  { programs: BUN_SERVER, family: 4, path: 'portable' },
] as const

const test = suite('netns: several addresses of a rendezvous server')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addHost('server', world.addRouter('router-s', 1))
  const clientHost = world.addHost('client', world.addRouter('router-c', 2))
  const names = new HostsFile()
  test.after(() => {
    world.close()
    names.remove()
  })

  for (const { programs, family, path } of CASES) {
    const other = family === 4 ? 6 : 4
    const party = { rendezvous_server: `meet.test:${PORT}` }
    const { wrapper } = names
    const options: MeetingOptions = {
      programs,
      family,
      net: world.net,
      serverHost,
      clientHost,
      config: { udp: { path } },
      roles: { server: party, client: party },
      start: { server: { wrapper }, client: { wrapper } },
    }
    test(`the first address does not answer any more: ${titleOf(options)}, udp.path ${path}`, () => {
      names.set('meet.test', world.net.addresses[family], world.net.addresses[other])
      return withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        await meeting.stop('rendezvous')
        await meeting.start('rendezvous', { kcp_bind: world.net.at(other, PORT) })
        const moved = `another address of rendezvous_server`
        await waitFor(
          'the server is announced at the other address',
          () => meeting.server.log().includes(moved),
          RECOVERY_MS,
          () => meeting.server.log(),
        )
        await assertEchoes(app, 'the open connection')
        await meeting.stop('client')
        await meeting.start('client')
        const fresh = await meeting.connect()
        for (const end of [app, fresh]) end.destroy()
      })
    })
  }
}

test.run()
