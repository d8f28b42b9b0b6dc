// time limit: 120 s
/** Obfuscated tunnels with Deno at either end: its packet sockets, and cover connections that it adopts. */
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { skip } from '../skip.ts'
import { withMeeting } from './meeting.ts'
import { meetingOf, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'

const TRANSFER_BYTES = 4 << 20

const test = suite('netns: obfs, Deno')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  test.after(() => hosts.world.close())
  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp')
      test('the rules printed by --obfs-firewall can be installed', () => setFirewalls(hosts, 'deno'))
    for (const [server, client, family] of [
      ['deno', 'node', 4],
      ['node', 'deno', 6],
      ['deno', 'deno', 4],
    ] as const) {
      const options = meetingOf(hosts, obfs, family, server, client)
      test(`both directions, and a new connection: ${options.title}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          app.destroy()
          await upload(meeting, meeting.target, TRANSFER_BYTES, 1)
          await download(meeting, meeting.target, TRANSFER_BYTES, 2)
        }))
    }
  }
}

test.run()
