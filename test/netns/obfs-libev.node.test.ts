// time limit: 300 s
/**
 * Obfuscated tunnels with kcptun-libev at one endpoint, and the covers of both programs as seen by an unknown client.
 * Checksum offload is off here: kcptun-libev drops packets whose checksum is left to the network card (protocol.md
 * 9.1).
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Host } from '../../testkit/netns.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { libevPath, type Program } from '../../testkit/process.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { skip } from '../skip.ts'
import { withMeeting } from './meeting.ts'
import { ethtoolProblem, meetingOf, OBFS_PORT, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'
import { PROBES, probe } from './probes.ts'

const TRANSFER_BYTES = 1 << 20
const GOODPUT_BYTES = 32 << 20
/** The best of this many rounds counts. */
const GOODPUT_ROUNDS = 3

const test = suite('netns: obfs, kcptun-libev')
const problem =
  libevPath === undefined
    ? 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program'
    : (netnsProblem ?? ethtoolProblem)

/** Results of all probes of a server, in order. */
async function look(unknownPeer: Host, address: string): Promise<string[]> {
  const seen: string[] = []
  for (const each of PROBES) seen.push(await probe(unknownPeer, address, OBFS_PORT, each))
  return seen
}

if (problem !== undefined) {
  skip(test, 'all', problem)
} else {
  const hosts = obfsWorld(false)
  const { world, serverHost, clientHost } = hosts
  const unknownPeer = world.addPublicHost('obfs-x', 62)
  test.after(() => world.close())

  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp') test('the printed firewall rules are installed', () => setFirewalls(hosts, 'bun'))
    for (const family of FAMILIES) {
      for (const program of RUNTIMES) {
        const pairs: readonly (readonly [Program, Program])[] = [
          ['libev', program],
          [program, 'libev'],
        ]
        for (const [server, client] of pairs) {
          const options = meetingOf(hosts, obfs, family, server, client, { config: { kcp: { nodelay: 2 } } })
          test(`MUST 61-67: transfers succeed: ${options.title}`, () =>
            withMeeting(options, async (meeting) => {
              const app = await meeting.connect()
              app.destroy()
              await upload(meeting, meeting.target, TRANSFER_BYTES, family)
              await download(meeting, meeting.target, TRANSFER_BYTES, family + 1)
              // a dpi/tcp client detects a restart late, and over IPv6 the next SYN of kcptun-libev may have any flow
              // label or version
              if (obfs === 'dpi/tcp') return
              await meeting.stop('server')
              await meeting.start('server')
              const second = await meeting.connect()
              second.destroy()
            }))
        }
      }
    }
  }

  test('the firewall rules are removed', () => {
    for (const host of [serverHost, clientHost]) host.namespace.run(['nft', 'flush', 'ruleset'])
  })

  test('goodput through dpi/tcp-wnd is at least that of kcptun-libev in the same run', async () => {
    const config = { kcp: { nodelay: 2, interval: 10, flush: 2, resend: 2, sndwnd: 2048, rcvwnd: 2048 } }
    const seconds = new Map<Program, number>()
    for (const program of ['libev', 'node', 'bun'] as const) {
      const options = meetingOf(hosts, 'dpi/tcp-wnd', 4, program, program, { config })
      await withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        app.destroy()
        for (let round = 0; round < GOODPUT_ROUNDS; round++) {
          const start = performance.now()
          await download(meeting, meeting.target, GOODPUT_BYTES, round)
          const time = (performance.now() - start) / 1000
          seconds.set(program, Math.min(time, seconds.get(program) ?? time))
        }
      })
    }
    const libev = seconds.get('libev') ?? 0
    for (const program of RUNTIMES) {
      const own = seconds.get(program) ?? Number.POSITIVE_INFINITY
      const rate = (time: number): string => `${(GOODPUT_BYTES / time / 1e6).toFixed(1)} MB/s`
      console.log(`${program} ${rate(own)}, kcptun-libev ${rate(libev)}, ratio ${(libev / own).toFixed(1)}`)
      assert.ok(own <= libev)
    }
  })

  test('MUST 62: an unknown client gets the same responses from both covers, except for the date', async () => {
    const options = meetingOf(hosts, 'dpi/tcp-wnd', 4, 'libev', 'libev')
    const seen = new Map<Program, string[]>()
    for (const server of ['libev', 'node', 'bun'] as const) {
      await withMeeting({ ...options, programs: { server, client: 'libev' } }, async () => {
        seen.set(server, await look(unknownPeer, serverHost.addresses[4]))
      })
    }
    const libev = seen.get('libev')
    assert.is(libev?.length, PROBES.length)
    assert.equal(seen.get('node'), libev)
    assert.equal(seen.get('bun'), libev)
  })
}

test.run()
