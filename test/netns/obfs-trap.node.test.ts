// time limit: 300 s
/**
 * A trap of the engine at either endpoint of an obfuscated tunnel: the tunnel is re-established with the original
 * sockets, which a process without privileges could not open again.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES } from '../../testkit/netns.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { fragileCommand, trap } from '../../testkit/trap.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { RECOVERY_MS, withMeeting } from './meeting.ts'
import { meetingOf, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'

const TRANSFER_BYTES = 4 << 20
const NOBODY = '65534:65534'

const test = suite('netns: obfs, trap')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  test.after(() => hosts.world.close())

  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp') test('the printed firewall rules are installed', () => setFirewalls(hosts, 'node'))
    for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
      const options = meetingOf(hosts, obfs, FAMILIES[index] ?? 4, server, client, {
        config: { user: NOBODY },
        start: { server: { command: fragileCommand(server) }, client: { command: fragileCommand(client) } },
      })
      for (const end of ['server', 'client'] as const) {
        test(`the tunnel recovers from a trap of the ${end}: ${options.title}`, () =>
          withMeeting(options, async (meeting) => {
            const app = await meeting.connect()
            const ends = end === 'client' ? [app] : meeting.target.connections
            await trap(meeting[end])
            for (const { ending } of ends) {
              assert.is((await within('the end of the connection', RECOVERY_MS, ending)).kind, 'reset')
            }
            const second = await meeting.connect()
            second.destroy()
            assert.ok(meeting.client.log().split('obfs ready').length >= 3, 'ready a second time')
            await upload(meeting, meeting.target, TRANSFER_BYTES, 1)
            await download(meeting, meeting.target, TRANSFER_BYTES, 2)
            assert.is(meeting[end].log().split('the engine trapped').length, 2)
          }))
      }
    }
  }
}

test.run()
