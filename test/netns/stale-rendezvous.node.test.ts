// time limit: 600 s, waits
/**
 * Both endpoints are behind NATs that keep mappings that lead nowhere (stale-mapping.node.test.ts): the one whose
 * mappings are dead moves to another port, and the rendezvous is repeated for it.
 */
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { skip } from '../skip.ts'
import { assertEchoes, assertMoves, type MeetingOptions, titleOf, withMeeting } from './meeting.ts'

const PORTABLE = { udp: { path: 'portable' } }
const NODE_CLIENT = { rendezvous: 'node', server: 'bun', client: 'node' } as const
const BUN_CLIENT = { rendezvous: 'bun', server: 'node', client: 'bun' } as const
const CASES = [
  { programs: NODE_CLIENT, side: 'client', family: 4, config: {} },
  { programs: NODE_CLIENT, side: 'server', family: 6, config: {} },
  { programs: BUN_CLIENT, side: 'client', family: 6, config: {} },
  { programs: BUN_CLIENT, side: 'server', family: 4, config: {} },
  { programs: NODE_CLIENT, side: 'client', family: 6, config: PORTABLE },
  { programs: BUN_CLIENT, side: 'client', family: 4, config: PORTABLE },
  { programs: NODE_CLIENT, side: 'server', family: 4, config: PORTABLE },
  { programs: BUN_CLIENT, side: 'server', family: 6, config: PORTABLE },
] as const

const test = suite('netns: stale NAT mapping, rendezvous')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [routerS, routerC] = [world.addRouter('router-s', 1), world.addRouter('router-c', 2)]
  const clientHost = world.addHost('client', routerC)
  const serverHost = world.addHost('server', routerS)
  for (const router of [routerS, routerC]) router.fixSource()
  test.after(() => world.close())

  // every change of an address uses a new one
  let number = 100
  for (const { programs, side, family, config } of CASES) {
    const options: MeetingOptions = { programs, family, config, net: world.net, serverHost, clientHost }
    const path = 'udp' in config ? ', portable UDP path' : ''
    test(`the mappings of the ${side} are dead: ${titleOf(options)}${path}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        const router = side === 'client' ? routerC : routerS
        router.strand(++number)
        await assertMoves(meeting[side])
        await assertEchoes(app, 'the open connection')
        const second = await meeting.connect()
        for (const end of [app, second]) end.destroy()
      }))
  }
}

test.run()
