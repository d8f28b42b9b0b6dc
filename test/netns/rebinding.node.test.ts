// time limit: 300 s, waits
/**
 * A NAT loses its mappings during a transfer and creates others, with other ports or another public address: no byte is
 * lost and no connection ends. Tested with a public server that follows authenticated datagrams to a new address, and
 * with both endpoints behind NATs, where they repeat the rendezvous.
 */
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Rebinding, type Router, World } from '../../testkit/netns.ts'
import type { Program } from '../../testkit/process.ts'
import { skip } from '../skip.ts'
import { assertEchoes, titleOf, withMeeting } from './meeting.ts'
import { type Direction, transfer } from './transfer.ts'

const OURS: readonly { rendezvous: Program; server: Program; client: Program }[] = [
  { rendezvous: 'node', server: 'bun', client: 'node' },
  { rendezvous: 'bun', server: 'node', client: 'bun' },
]

const DIRECTIONS: readonly Direction[] = ['download', 'upload']

const test = suite('netns: NAT rebinding')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [routerS, routerC] = [world.addRouter('router-s', 1), world.addRouter('router-c', 2)]
  const clientHost = world.addHost('client', routerC)
  const hiddenServer = world.addHost('server', routerS)
  const publicServer = world.addPublicHost('public-s', 50)
  test.after(() => world.close())

  // every rebinding uses new ports or addresses
  let [ports, number] = [20, 100]
  const newPorts = (): Rebinding => ({ firstPort: ports++ * 1000 })
  const newAddress = (): Rebinding => ({ number: ++number })

  for (const [index, { rendezvous, server, client }] of OURS.entries()) {
    const family = FAMILIES[index] ?? 4
    const direct = { programs: { server, client }, family, net: world.net, serverHost: publicServer, clientHost }
    const hidden = { ...direct, programs: { rendezvous, server, client }, serverHost: hiddenServer }

    for (const direction of DIRECTIONS) {
      test(`the server follows its client during a ${direction}: ${titleOf(direct)}`, () =>
        withMeeting(direct, async (meeting) => {
          const idle = await meeting.connect()
          await transfer(meeting, direction, index, [
            () => routerC.rebind(newPorts()),
            () => routerC.rebind(newAddress()),
          ])
          await assertEchoes(idle, 'an idle connection')
          idle.destroy()
        }))

      const sides: [string, Router][] = [
        ['client', routerC],
        ['server', routerS],
      ]
      // each takes seconds: one direction per trio
      if (direction !== DIRECTIONS[index]) continue
      for (const [side, router] of sides) {
        test(`both endpoints behind NATs, the NAT of the ${side} changes during a ${direction}: ${titleOf(hidden)}`, () =>
          withMeeting(hidden, async (meeting) => {
            const idle = await meeting.connect()
            const change = direction === 'download' ? newPorts() : newAddress()
            await transfer(meeting, direction, index, [() => router.rebind(change)])
            await assertEchoes(idle, 'an idle connection')
            idle.destroy()
          }))
      }
    }
  }
}

test.run()
