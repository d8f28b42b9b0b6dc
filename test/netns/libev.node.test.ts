// time limit: 300 s
/**
 * With kcptun-libev in each of the three roles, peers behind two different NATs find each other (protocol.md 8). The
 * trio of kcptun-libev alone shows that kcptun-libev can traverse this network.
 */
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, World } from '../../testkit/netns.ts'
import { libevPath } from '../../testkit/process.ts'
import { skip } from '../skip.ts'
import { assertCarries, assertEchoes, titleOf, withMeeting } from './meeting.ts'
import { transfer } from './transfer.ts'

const TRIOS = [
  { rendezvous: 'libev', server: 'libev', client: 'libev' },
  { rendezvous: 'node', server: 'libev', client: 'libev' },
  { rendezvous: 'bun', server: 'libev', client: 'libev' },
  { rendezvous: 'libev', server: 'node', client: 'libev' },
  { rendezvous: 'libev', server: 'bun', client: 'libev' },
  { rendezvous: 'libev', server: 'libev', client: 'node' },
  { rendezvous: 'libev', server: 'libev', client: 'bun' },
  { rendezvous: 'libev', server: 'node', client: 'bun' },
  { rendezvous: 'libev', server: 'bun', client: 'node' },
  { rendezvous: 'node', server: 'libev', client: 'bun' },
  { rendezvous: 'bun', server: 'node', client: 'libev' },
] as const

const test = suite('netns: kcptun-libev')
const problem = libevPath === undefined ? 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program' : netnsProblem

if (problem !== undefined) {
  skip(test, 'all', problem)
} else {
  const world = new World()
  const serverHost = world.addHost('server', world.addRouter('router-s', 1))
  const router = world.addRouter('router-c', 2)
  const clientHost = world.addHost('client', router)
  test.after(() => world.close())

  for (const family of FAMILIES) {
    for (const programs of TRIOS) {
      const options = { programs, family, net: world.net, serverHost, clientHost }
      test(`peers behind different NATs find each other: ${titleOf(options)}`, () =>
        withMeeting(options, (meeting) => assertCarries(meeting, family)))
    }
  }

  const publicServer = world.addPublicHost('public-s', 50)
  for (const [index, server] of (['node', 'bun'] as const).entries()) {
    const family = FAMILIES[index] ?? 4
    const programs = { server, client: 'libev' } as const
    const options = { programs, family, net: world.net, serverHost: publicServer, clientHost }
    test(`our server follows a kcptun-libev client whose NAT changes: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        const idle = await meeting.connect()
        await transfer(meeting, 'upload', index, [
          () => router.rebind({ firstPort: 20_000 + 1000 * index }),
          () => router.rebind({ number: 100 + index }),
        ])
        await assertEchoes(idle, 'an idle connection')
        idle.destroy()
      }))
  }
}

test.run()
