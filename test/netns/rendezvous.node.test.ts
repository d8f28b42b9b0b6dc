// time limit: 300 s
/**
 * Rendezvous (protocol.md 8) over real NATs: peers find each other wherever they are, and again after the rendezvous
 * server or the service was replaced.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, World } from '../../testkit/netns.ts'
import { skip } from '../skip.ts'
import { assertCarries, assertEchoes, titleOf, withMeeting } from './meeting.ts'

/** Both runtimes in each role. */
const TRIOS = [
  { rendezvous: 'node', server: 'bun', client: 'node' },
  { rendezvous: 'bun', server: 'node', client: 'bun' },
] as const

const test = suite('netns: rendezvous')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [routerS, routerC] = [world.addRouter('router-s', 1), world.addRouter('router-c', 2)]
  const serverHost = world.addHost('server', routerS)
  const clientHost = world.addHost('client', routerC)
  const neighbour = world.addHost('neighbour', routerS)
  const publicServer = world.addPublicHost('public-s', 50)
  const publicClient = world.addPublicHost('public-c', 60)
  test.after(() => world.close())

  const PLACES = {
    'different NATs': { serverHost, clientHost },
    'one NAT without hairpinning': { serverHost, clientHost: neighbour },
    'public addresses': { serverHost: publicServer, clientHost: publicClient },
    'a server behind NAT, a public client': { serverHost, clientHost: publicClient },
  }
  let seed = 1
  for (const [place, hosts] of Object.entries(PLACES)) {
    for (const family of FAMILIES) {
      for (const programs of TRIOS) {
        // the two hard topologies with all combinations, the others with each runtime and each family
        const isHard = hosts.serverHost === serverHost && hosts.clientHost !== publicClient
        if (!isHard && (family === 4) !== (programs === TRIOS[0])) continue
        const options = { programs, family, net: world.net, ...hosts }
        seed += 10
        const own = seed
        test(`peers find each other (${place}): ${titleOf(options)}`, () =>
          withMeeting(options, (meeting) => assertCarries(meeting, own)))
      }
    }
  }

  for (const [index, programs] of TRIOS.entries()) {
    const family = FAMILIES[index] ?? 4
    const options = { programs, family, net: world.net, serverHost, clientHost }

    test(`a restart of the rendezvous server does not disturb connections: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        await meeting.stop('rendezvous')
        await assertEchoes(app, 'without a rendezvous server')
        const second = await meeting.connect()
        await meeting.start('rendezvous')
        await meeting.stop('client')
        await meeting.start('client')
        const third = await meeting.connect()
        for (const end of [app, second, third]) end.destroy()
      }))

    test(`another server takes over the service: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        await meeting.stop('server')
        await meeting.moveServer(publicServer)
        await meeting.start('server')
        const second = await meeting.connect()
        await assertEchoes(second, 'the new service')
        assert.ok(meeting.target.connections.length > 0)
        for (const end of [app, second]) end.destroy()
      }))
  }
}

test.run()
