// time limit: 600 s
/**
 * Firewalls that change while an obfuscated tunnel runs: the rule of dpi/tcp vanishes at either end, and netfilter drops
 * the tunnel's packets on their way out. Each end says so while it runs.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Host } from '../../testkit/netns.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import type { Running } from '../../testkit/process.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { type Meeting, withMeeting } from './meeting.ts'
import { meetingOf, OBFS_PORT, obfsWorld, setFirewalls } from './obfs.ts'

const BYTES = 400_000
/** Traffic goes on for at most so long; two comparisons are 10 s apart, more on a loaded machine. */
const NOTICED_MS = 120_000

const OWN_GONE = /W .*obfs: the kernel answers the tunnel's packets with RST.*ip6?tables -I INPUT/
const PEERS_GONE = /W .*obfs: the peer's kernel answers the tunnel's packets with RST/
const BACK = /obfs: the firewall rule is in force again/

const test = suite('netns: firewalls of obfuscated tunnels')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  const { world, serverHost, clientHost } = hosts
  test.after(() => world.close())
  const flush = (host: Host): void => void host.namespace.run(['nft', 'flush', 'ruleset'])

  /** Transfers until a line appears. */
  const transferUntil = async (meeting: Meeting, running: Running, line: RegExp): Promise<void> => {
    let isOver = false
    const noticed = waitFor(
      `${line} in the log`,
      () => line.test(running.log()),
      NOTICED_MS,
      () => running.log(),
    ).finally(() => {
      isOver = true
    })
    noticed.catch(() => undefined)
    for (let seed = 1; !isOver; seed += 2) {
      await upload(meeting, meeting.target, BYTES, seed)
      await download(meeting, meeting.target, BYTES, seed + 1)
    }
    await noticed
  }

  for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
    const options = meetingOf(hosts, 'dpi/tcp', FAMILIES[index] ?? 4, server, client)
    test(`a rule of dpi/tcp that vanishes, and comes back, is noticed at both ends: ${options.title}`, async () => {
      setFirewalls(hosts, 'node')
      await withMeeting(options, async (meeting) => {
        await meeting.connect().then((app) => app.destroy())
        await upload(meeting, meeting.target, BYTES, 100)
        for (const running of [meeting.client, meeting.server]) {
          assert.not.match(running.log(), OWN_GONE)
          assert.not.match(running.log(), PEERS_GONE)
        }
        flush(clientHost)
        await transferUntil(meeting, meeting.client, OWN_GONE)
        await transferUntil(meeting, meeting.server, PEERS_GONE)
        assert.not.match(meeting.server.log(), OWN_GONE)
        flush(serverHost)
        await transferUntil(meeting, meeting.server, OWN_GONE)
        setFirewalls(hosts, 'node')
        await transferUntil(meeting, meeting.client, BACK)
        await transferUntil(meeting, meeting.server, BACK)
      }).finally(() => {
        flush(clientHost)
        flush(serverHost)
      })
    })
  }

  const refuse = (rule: string): void =>
    void clientHost.namespace.run(
      ['nft', '-f', '-'],
      `table inet drops { chain output { type filter hook output priority 0; ${rule} drop; }\n}\n`,
    )

  for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
    const options = meetingOf(hosts, 'dpi/tcp-wnd', FAMILIES[index] ?? 4, server, client)
    const noticed = (meeting: Meeting): Promise<void> =>
      waitFor(
        'a line in the log',
        () => /W .*obfs: a firewall of this machine refuses the tunnel's packets/.test(meeting.client.log()),
        NOTICED_MS,
        () => meeting.client.log(),
      )

    test(`a rule that drops outgoing packets is named while it is there: ${options.title}`, () =>
      withMeeting(options, async (meeting) => {
        await meeting.connect().then((app) => app.destroy())
        refuse(`tcp dport ${OBFS_PORT}`)
        await noticed(meeting)
        flush(clientHost)
        await meeting.connect().then((again) => again.destroy())
      }).finally(() => flush(clientHost)))
  }
}

test.run()
