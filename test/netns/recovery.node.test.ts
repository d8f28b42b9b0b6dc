// time limit: 300 s
/**
 * Network outages and killed servers: a client recovers on its own, connections survive an outage, and dead ones end
 * promptly.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, World } from '../../testkit/netns.ts'
import { sleep, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'

/** Duration of the outage. */
const OUTAGE_MS = 10_000

const OURS = [
  { rendezvous: 'node', server: 'bun', client: 'node' },
  { rendezvous: 'bun', server: 'node', client: 'bun' },
] as const

const test = suite('netns: recovery')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [routerS, routerC] = [world.addRouter('router-s', 1), world.addRouter('router-c', 2)]
  const clientHost = world.addHost('client', routerC)
  const hiddenServer = world.addHost('server', routerS)
  const publicServer = world.addPublicHost('public-s', 50)
  test.after(() => world.close())

  for (const [index, { rendezvous, server, client }] of OURS.entries()) {
    const family = FAMILIES[index] ?? 4
    const direct = { programs: { server, client }, family, net: world.net, serverHost: publicServer, clientHost }
    const hidden = { ...direct, programs: { rendezvous, server, client }, serverHost: hiddenServer }

    for (const options of [direct, hidden]) {
      test(`connections survive a ten-second outage of the client's network: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          clientHost.unplug()
          await app.send('sent into the void; ')
          await sleep(OUTAGE_MS)
          clientHost.plug()
          const second = await meeting.connect()
          await assertEchoes(app, 'the open connection')
          assert.match(app.text(), 'sent into the void')
          for (const end of [app, second]) end.destroy()
        }).finally(() => {
          clientHost.unplug()
          clientHost.plug()
        }))

      test(`connections survive when the client moves to another network: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          clientHost.unplug()
          clientHost.plug({ 4: '192.168.2.99', 6: 'fd00:2::99' })
          await assertEchoes(app, 'the open connection')
          const second = await meeting.connect()
          for (const end of [app, second]) end.destroy()
        }).finally(() => {
          clientHost.unplug()
          clientHost.plug()
        }))

      test(`when the server is killed and restarted, old connections are reset and new ones work: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          await meeting.stop('server')
          await meeting.start('server')
          await app.send('is anybody there?')
          const ending = await within('the end of the old connection', RECOVERY_MS, app.ending)
          assert.is(ending.kind, 'reset')
          const second = await meeting.connect()
          second.destroy()
        }))
    }
  }
}

test.run()
