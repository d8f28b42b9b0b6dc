// time limit: 300 s
/**
 * `fwmark` and `dscp`: every packet of the tunnel carries them, in both families, whatever opens the socket; a reload
 * changes them and keeps the connections.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Family, type Host, World } from '../../testkit/netns.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, type Meeting, type MeetingOptions, RECOVERY_MS, withMeeting } from './meeting.ts'

const test = suite('netns: fwmark and dscp')

/** Counts packets with a mark and code point, and all others, of a protocol. */
class Counters {
  readonly #host: Host

  constructor(host: Host, match: string, mark: number, dscp: number) {
    this.#host = host
    const field = (family: string): string => `${family} dscp ${dscp} counter accept`
    host.namespace.run(
      ['nft', '-f', '-'],
      `table inet marks {
         chain c {
           type filter hook output priority 0
           ${match} meta mark ${mark} jump code
           ${match} counter comment "other"
         }
         chain code {
           ${field('ip')} comment "wanted4"
           ${field('ip6')} comment "wanted6"
         }
       }\n`,
    )
  }

  #count(comment: string): number {
    const rules = this.#host.namespace.run(['nft', 'list', 'table', 'inet', 'marks'])
    return Number(new RegExp(`counter packets (\\d+) [^\\n]*"${comment}"`).exec(rules)?.[1] ?? Number.NaN)
  }

  wanted(family: Family): number {
    return this.#count(`wanted${family}`)
  }

  get others(): number {
    return this.#count('other')
  }

  remove(): void {
    this.#host.namespace.run(['nft', 'delete', 'table', 'inet', 'marks'])
  }
}

async function echo(meeting: Meeting): Promise<void> {
  const app = await meeting.connect()
  await assertEchoes(app, 'a connection')
  app.destroy()
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addPublicHost('server', 50)
  const clientHost = world.addPublicHost('client', 60)
  test.after(() => world.close())
  const hosts = { server: serverHost, client: clientHost }

  const cases: { server: Program; family: Family; what: string; config: Config; serverBind?: string }[] = [
    { server: 'node', family: 4, what: 'fast', config: {} },
    { server: 'bun', family: 6, what: 'fast', config: {} },
    { server: 'bun', family: 4, what: 'portable', config: { udp: { path: 'portable' } } },
    { server: 'node', family: 6, what: 'portable', config: { udp: { path: 'portable' } } },
    { server: 'node', family: 4, what: 'IPv6 socket', config: {}, serverBind: '[::]:5200' },
  ]
  for (const { server, family, what, config, serverBind } of cases) {
    const client: Program = server === 'node' ? 'bun' : 'node'
    const common: MeetingOptions = { programs: { server, client }, family, net: world.net, serverHost, clientHost }
    const options = { ...common, config: { ...config, fwmark: 0xc0000007, dscp: 46 } }
    test(`${what}: ${server} server, ${client} client, IPv${family}`, async () => {
      const counters = (['server', 'client'] as const).map(
        (role) => new Counters(hosts[role], `udp ${role === 'server' ? 'sport' : 'dport'} 5200`, 0xc0000007, 46),
      )
      try {
        await withMeeting(options, async (meeting) => {
          if (serverBind !== undefined) {
            await meeting.stop('server', 'SIGTERM')
            await meeting.start('server', { kcp_bind: serverBind })
          }
          const app = await meeting.connect()
          await echo(meeting)
          for (const counter of counters) {
            assert.ok(counter.wanted(family) > 0)
            assert.is(counter.others, 0, 'packets without mark and code point')
          }
          meeting.client.reload({ fwmark: 9, dscp: 10 })
          await waitFor('the reload', () => meeting.client.log().includes('udp socket restart'), RECOVERY_MS)
          await assertEchoes(app, 'an open connection')
          assert.ok((counters[1]?.others ?? 0) > 0, 'the reload changed nothing')
          assert.not.match(meeting.client.log() + meeting.server.log(), /config key (fwmark|dscp)/)
          app.destroy()
        })
      } finally {
        for (const counter of counters) counter.remove()
      }
    })
  }

  test('workers share marked sockets, and a reload leaves them', async () => {
    const programs = { server: 'node', client: 'bun' } as const
    const config = { fwmark: 7, dscp: 46 }
    const options = { programs, family: 4, net: world.net, serverHost, clientHost, config } as const
    const counters = new Counters(serverHost, 'udp sport 5200', 7, 46)
    try {
      await withMeeting(options, async (meeting) => {
        await meeting.stop('server', 'SIGTERM')
        await meeting.start('server', { workers: 2 })
        await echo(meeting)
        assert.ok(counters.wanted(4) > 0)
        assert.is(counters.others, 0)
        meeting.server.reload({ fwmark: 8 })
        await waitFor('the warning', () => /config key fwmark: the change needs a restart/.test(meeting.server.log()))
      })
    } finally {
      counters.remove()
    }
  })

  for (const obfs of ['dpi/tcp-wnd', 'dpi/tcp'] as const) {
    test(`the packets of ${obfs} are marked`, async () => {
      const programs = { server: 'bun', client: 'node' } as const
      const config = { fwmark: 7, obfs }
      const options = { programs, family: 4, net: world.net, serverHost, clientHost, config } as const
      const counters = [
        new Counters(serverHost, 'tcp sport 5200 tcp flags & rst == 0', 7, 0),
        new Counters(clientHost, 'tcp dport 5200 tcp flags & rst == 0', 7, 0),
      ]
      try {
        await withMeeting(options, async (meeting) => {
          await echo(meeting)
          for (const counter of counters) {
            assert.ok(counter.wanted(4) > 0)
            assert.is(counter.others, 0, 'packets without mark')
          }
        })
      } finally {
        for (const counter of counters) counter.remove()
      }
    })
  }
}

test.run()
