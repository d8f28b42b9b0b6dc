// time limit: 400 s
/**
 * A server whose `kcp_bind` is a name with several addresses of both families: it answers at each of them, from there,
 * and a client whose address of it vanishes goes on at another one.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { netnsProblem } from '../../testkit/namespace.ts'
import { World } from '../../testkit/netns.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type MeetingOptions, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'

const PORT = 5200
const BYTES = 8 << 20
const SECOND = '203.0.113.150'
const CASES = [
  { server: 'node', client: 'bun', path: 'auto', workers: 1 },
  { server: 'bun', client: 'node', path: 'auto', workers: 1 },
  { server: 'node', client: 'bun', path: 'portable', workers: 1 },
  { server: 'bun', client: 'node', path: 'portable', workers: 1 },
  { server: 'node', client: 'bun', path: 'portable', workers: 2 },
  { server: 'bun', client: 'node', path: 'auto', workers: 2 },
  { server: 'deno', client: 'node', path: 'auto', workers: 1 },
  { server: 'deno', client: 'bun', path: 'portable', workers: 1 },
] as const

const test = suite('netns: several addresses of kcp_bind')

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
  const addresses = [serverHost.at(4, PORT), serverHost.at(6, PORT), `${SECOND}:${PORT}`]

  for (const [seed, { server, client, path, workers }] of CASES.entries()) {
    const { wrapper } = names
    const options: MeetingOptions = {
      programs: { server, client },
      family: 4,
      config: { udp: { path } },
      roles: { server: { kcp_bind: `server.test:${PORT}`, workers } },
      start: { server: { wrapper }, client: { wrapper } },
      net: world.net,
      serverHost,
      clientHost,
    }
    test(`${titleOf(options)}, udp.path ${path}, workers ${workers}`, () => {
      serverHost.namespace.ip(`addr replace ${SECOND}/24 dev eth0`)
      names.set('server.test', serverHost.addresses[4], serverHost.addresses[6], SECOND)
      return withMeeting(options, async (meeting) => {
        for (const address of addresses) {
          assert.match(meeting.server.log(), `udp bind: ${address}`)
          await meeting.stop('client')
          await meeting.start('client', { kcp_connect: address })
          const app = await meeting.connect()
          app.destroy()
          await upload(meeting, meeting.target, BYTES, seed + 1)
          await download(meeting, meeting.target, BYTES, seed + 2)
        }
        // the other worker does not know the connections of this one
        if (workers > 1) return
        await meeting.stop('client')
        names.set('server.test', serverHost.addresses[6], SECOND)
        await meeting.start('client', { kcp_connect: `server.test:${PORT}` })
        const used = (): string => /.*udp connect: (\S+)/s.exec(meeting.client.log())?.[1] ?? ''
        const app = await meeting.connect()
        const before = used()
        const [address, prefix] = before.startsWith('[') ? [serverHost.addresses[6], 64] : [SECOND, 24]
        serverHost.namespace.ip(`addr del ${address}/${prefix} dev eth0`)
        await waitFor(
          'the other address',
          () => used() !== before,
          RECOVERY_MS,
          () => meeting.client.log(),
        )
        await assertEchoes(app, 'the open connection')
        app.destroy()
      }).finally(() => {
        serverHost.unplug()
        serverHost.plug()
      })
    })
  }
}

test.run()
