// time limit: 300 s
/**
 * The interface that `netdev` names is deleted and created again, as ppp, WireGuard and containers do: servers and
 * rendezvous servers serve on the new one without being told.
 */
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Family, Host, World } from '../../testkit/netns.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type MeetingOptions, withMeeting } from './meeting.ts'

const NETDEV = 'ppp0'
const SERVER: Record<Family, string> = { 4: '10.9.0.1', 6: 'fd09::1' }
const CLIENT: Record<Family, string> = { 4: '10.9.0.2', 6: 'fd09::2' }

const test = suite('netns: netdev')

interface Cell {
  readonly title: string
  readonly family: Family
  /** Of the program that has a `netdev`, and of all. */
  readonly config?: Config
  readonly common?: Config
  /** Replaces the address that it binds to. */
  readonly bind?: string
  readonly isRendezvous?: boolean
  readonly areSessionsLost?: boolean
}

const CELLS: readonly Cell[] = [
  { title: 'wildcard address', family: 4, bind: '[::]:5200' },
  { title: 'address of the interface', family: 6 },
  { title: 'portable UDP', family: 4, bind: '0.0.0.0:5200', config: { udp: { path: 'portable' } } },
  { title: 'workers', family: 4, bind: '0.0.0.0:5200', config: { workers: 2 }, areSessionsLost: true },
  { title: 'obfs', family: 4, bind: '0.0.0.0:5200', common: { obfs: 'dpi/tcp-wnd' } },
  { title: 'rendezvous server', family: 4, isRendezvous: true },
]

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const [left, right] = [world.addPublicHost('left', 50), world.addPublicHost('right', 60)]
  const [server, client] = [new Host(left.namespace, SERVER), new Host(right.namespace, CLIENT)]
  test.after(() => {
    for (const host of [server, client]) host.stop()
    world.close()
  })

  const create = (): void => {
    server.namespace.ip(`link add ${NETDEV} type veth peer name ${NETDEV} netns ${client.namespace.name}`)
    for (const { namespace, addresses } of [server, client]) {
      namespace.ip(
        `link set ${NETDEV} up
         addr add ${addresses[4]}/24 dev ${NETDEV}
         addr add ${addresses[6]}/64 dev ${NETDEV} nodad`,
      )
    }
  }
  const remove = (): void => server.namespace.ip(`link del ${NETDEV}`)

  const optionsOf = (
    { family, bind, isRendezvous, config = {}, common = {} }: Cell,
    program: Program,
  ): MeetingOptions => {
    const own = { netdev: NETDEV, ...config, ...(bind === undefined ? {} : { kcp_bind: bind }) }
    const programs = { server: program, client: program, ...(isRendezvous === true && { rendezvous: program }) }
    const roles = isRendezvous === true ? { rendezvous: own } : { server: own }
    return { programs, family, net: server, serverHost: server, clientHost: client, config: common, roles }
  }

  for (const program of RUNTIMES) {
    for (const cell of CELLS) {
      test(`${cell.title}: ${program}`, async () => {
        create()
        try {
          await withMeeting(optionsOf(cell, program), async (meeting) => {
            const app = await meeting.connect()
            remove()
            create()
            if (cell.areSessionsLost === true) {
              await app.send('gone').catch(() => undefined)
              await app.ending
              await meeting.connect().then((second) => second.destroy())
            } else if (cell.isRendezvous === true) {
              // peers that have found each other need it no longer
              await meeting.stop('client')
              await meeting.start('client')
              await meeting.connect().then((second) => second.destroy())
            } else {
              await assertEchoes(app, 'the open connection')
              await meeting.connect().then((second) => second.destroy())
            }
            app.destroy()
          })
        } finally {
          remove()
        }
      })
    }
  }
}

test.run()
