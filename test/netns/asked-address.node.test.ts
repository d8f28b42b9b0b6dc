// time limit: 300 s
/**
 * A server and a rendezvous server on a wildcard address are used at the second address of their host: clients accept
 * answers only from there. Data, PONG and RESET of the server and PUNCH of the rendezvous server are answers.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Family, type Host, World } from '../../testkit/netns.ts'
import type { Program } from '../../testkit/process.ts'
import { formatAddress } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertCarries, Meeting, type MeetingOptions, RECOVERY_MS } from './meeting.ts'

type Addresses = Readonly<Record<Family, string>>

/** Addresses that the hosts have in addition, and that their kernels do not select for the clients. */
const SERVER: Addresses = { 4: '203.0.113.251', 6: '2001:db8::fb' }
const RENDEZVOUS: Addresses = { 4: '203.0.113.252', 6: '2001:db8::fc' }
const PORT = 5200
const RENDEZVOUS_PORT = 12345

const test = suite('netns: the address that was asked')

/** Runs a test body, then stops the processes; a failure shows their logs. */
async function withProcesses(options: MeetingOptions, body: (meeting: Meeting) => Promise<void>): Promise<void> {
  const meeting = new Meeting(options, await options.serverHost.target())
  const failure = await body(meeting).then(
    () => undefined,
    (error: unknown) => error,
  )
  const logs = await meeting.close()
  if (failure !== undefined) throw new Error(`${failure instanceof Error ? failure.message : failure}\n${logs}`)
}

function addAddresses({ namespace }: Host, addresses: Addresses): void {
  // deprecated: not selected as a source (RFC 6724, section 5, rule 3)
  namespace.ip(
    `addr add ${addresses[4]}/24 dev eth0
     addr add ${addresses[6]}/64 dev eth0 nodad preferred_lft 0`,
  )
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addPublicHost('server', 50)
  const clientHost = world.addPublicHost('client', 60)
  // their NATs drop a PUNCH from an address that was not asked
  const [hiddenServer, hiddenClient] = [
    world.addHost('hidden-s', world.addRouter('router-s', 1)),
    world.addHost('hidden-c', world.addRouter('router-c', 2)),
  ]
  addAddresses(serverHost, SERVER)
  addAddresses(world.net, RENDEZVOUS)
  test.after(() => world.close())

  const cases: { server: Program; family: Family; bind: string; workers?: number }[] = [
    { server: 'node', family: 4, bind: '0.0.0.0' },
    { server: 'bun', family: 4, bind: '::' },
    { server: 'node', family: 6, bind: '::' },
    { server: 'bun', family: 6, bind: '::', workers: 2 },
    { server: 'node', family: 4, bind: '::', workers: 2 },
  ]
  for (const { server, family, bind, workers = 1 } of cases) {
    const client: Program = server === 'node' ? 'bun' : 'node'
    const options = { programs: { server, client }, family, net: world.net, serverHost, clientHost }
    const at = formatAddress(bind, PORT)
    const doubts = `${workers > 1 ? ', workers' : ''}`
    test(`data, PONG and RESET: ${server} server on ${at}, IPv${family}${doubts}`, () =>
      withProcesses(options, async (meeting) => {
        const config = { kcp_bind: at, workers }
        await meeting.start('server', config)
        await meeting.start('client', { kcp_connect: formatAddress(SERVER[family], PORT) })
        const ready = `http://${meeting.client.config['http_listen']}/ready`
        const isReady = (): Promise<boolean> =>
          clientHost.get(ready).then(
            () => true,
            () => false,
          )
        await waitFor('a PONG', isReady, RECOVERY_MS)
        await assertCarries(meeting, family)
        const app = await meeting.connect()
        await meeting.stop('server')
        await meeting.start('server', config)
        await app.send('is anybody there?')
        const ending = await within('the end of the old connection', RECOVERY_MS, app.ending)
        assert.is(ending.kind, 'reset')
      }))
  }

  for (const [rendezvous, server, client, family] of [
    ['node', 'bun', 'node', 4],
    ['bun', 'node', 'bun', 6],
  ] as const) {
    const programs = { rendezvous, server, client }
    const options = { programs, family, net: world.net, serverHost: hiddenServer, clientHost: hiddenClient }
    test(`PUNCH: ${rendezvous} rendezvous server, IPv${family}`, () =>
      withProcesses(options, async (meeting) => {
        const at = formatAddress(RENDEZVOUS[family], RENDEZVOUS_PORT)
        await meeting.start('rendezvous', { kcp_bind: formatAddress('::', RENDEZVOUS_PORT) })
        await meeting.start('server', { rendezvous_server: at })
        await meeting.start('client', { rendezvous_server: at })
        await assertCarries(meeting, family)
      }))
  }
}

test.run()
