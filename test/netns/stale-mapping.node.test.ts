// time limit: 600 s, waits
/**
 * A router keeps a NAT mapping that leads nowhere, alive by the datagrams of its port: the public address of the mapping
 * is gone. Only another local port gets another mapping. Endpoints find that out by themselves, and keep their port when
 * it is only the network that is down.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { type Config, libevPath } from '../../testkit/process.ts'
import { sleep, waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import {
  assertEchoes,
  assertMoves,
  hasMoved,
  type Meeting,
  type MeetingOptions,
  RECOVERY_MS,
  titleOf,
  withMeeting,
} from './meeting.ts'

/** An outage that lasts several probes. */
const OUTAGE_MS = 25_000

const PORTABLE: Config = { udp: { path: 'portable' } }
const PAIRS = [
  { server: 'node', client: 'bun', family: 4, config: {} },
  { server: 'bun', client: 'node', family: 6, config: {} },
  { server: 'bun', client: 'node', family: 4, config: PORTABLE },
  { server: 'node', client: 'bun', family: 6, config: PORTABLE },
] as const

const KEPT = /answers at a new local port.*kcp_bind sets the port/g

const onPath = ({ config }: { config: Config }): string => ('udp' in config ? ', portable UDP path' : '')

/** An old connection ends by a reset, a new one works. */
async function assertReplaced(meeting: Meeting, number: number, strand: (number: number) => void): Promise<void> {
  const old = await meeting.connect()
  strand(number)
  await assertMoves(meeting.client)
  await old.send('where are you?')
  const ending = await within('the end of the old connection', RECOVERY_MS, old.ending)
  assert.is(ending.kind, 'reset')
  const fresh = await meeting.connect()
  fresh.destroy()
}

const test = suite('netns: stale NAT mapping')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const routerC = world.addRouter('router-c', 2)
  const clientHost = world.addHost('client', routerC)
  const publicServer = world.addPublicHost('public-s', 50)
  routerC.fixSource()
  test.after(() => world.close())

  // every change of an address uses a new one
  let number = 100
  const direct = ({ server, client, family, config }: (typeof PAIRS)[number]): MeetingOptions => ({
    programs: { server, client },
    family,
    config,
    net: world.net,
    serverHost: publicServer,
    clientHost,
  })

  for (const pair of PAIRS) {
    const options = direct(pair)
    test(`a client moves to a port that works, and its connections with it: ${titleOf(options)}${onPath(pair)}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        routerC.strand(++number)
        await assertMoves(meeting.client)
        await assertEchoes(app, 'the open connection')
        const second = await meeting.connect()
        for (const end of [app, second]) end.destroy()
      }))
  }

  for (const pair of PAIRS.slice(0, 2)) {
    const options = direct(pair)
    test(`an outage moves nothing: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        world.setLoss(100)
        await app.send('sent into the void; ')
        await sleep(OUTAGE_MS)
        world.setLoss(0)
        await assertEchoes(app, 'the open connection')
        assert.match(app.text(), 'sent into the void')
        assert.not.ok(hasMoved(meeting.client))
        app.destroy()
      }).finally(() => world.setLoss(0)))

    test(`a port set by kcp_bind is kept, which is logged once with the reason: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        await meeting.stop('client')
        const wildcard = pair.family === 4 ? '0.0.0.0' : '[::]'
        await meeting.start('client', { kcp_bind: `${wildcard}:7654` })
        const app = await meeting.connect()
        routerC.strand(++number)
        const lines = (): number => meeting.client.log().match(KEPT)?.length ?? 0
        await waitFor('the warning', () => lines() > 0, RECOVERY_MS)
        await sleep(10_000)
        assert.is(lines(), 1)
        assert.not.ok(hasMoved(meeting.client))
        app.destroy()
      }))
  }

  test(`with workers at the server, old connections are reset and new ones work`, () =>
    withMeeting({ ...direct(PAIRS[0]), start: { server: {} } }, async (meeting) => {
      await meeting.stop('server')
      await meeting.start('server', { workers: 2 })
      const app = await meeting.connect()
      routerC.strand(++number)
      await assertMoves(meeting.client)
      // the kernel may give the new port to the same worker, which then continues
      await app.send('where are you?')
      await waitFor('an answer or the end', () => app.ended || app.text().includes('where'), RECOVERY_MS)
      const fresh = await meeting.connect()
      for (const end of [app, fresh]) end.destroy()
    }))

  for (const [index, client] of (['node', 'bun'] as const).entries()) {
    const options: MeetingOptions = { ...direct(PAIRS[index] ?? PAIRS[0]), programs: { server: 'libev', client } }
    if (libevPath === undefined) skip(test, titleOf(options), 'KCPTUN_LIBEV is not set')
    else
      test(`a server that does not know the connections at the new port resets them, new ones work: ${titleOf(options)}`, () =>
        withMeeting(options, (meeting) => assertReplaced(meeting, ++number, (next) => routerC.strand(next))))
  }
}

test.run()
