// time limit: 300 s
/** Several keys at an obfuscated server. */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES } from '../../testkit/netns.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { skip } from '../skip.ts'
import { assertCarries, withMeeting } from './meeting.ts'
import { meetingOf, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'

const makeKey = (name: string): { name: string; psk: string } => ({ name, psk: randomBytes(32).toString('base64') })

const test = suite('netns: keys')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  test.after(() => hosts.world.close())
  const [alice, bob] = [makeKey('alice'), makeKey('bob')]
  const roles = { server: { keys: [alice, bob] }, client: { keys: [bob] } }

  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp') test('the printed firewall rules are installed', () => setFirewalls(hosts, 'node'))
    for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
      const options = meetingOf(hosts, obfs, FAMILIES[index] ?? 4, server, client, { roles })
      test(`the second user is served: ${options.title}`, () =>
        withMeeting(options, (meeting) => assertCarries(meeting, index + 1)))
    }
  }
}

test.run()
