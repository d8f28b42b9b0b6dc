// time limit: 300 s, waits
/**
 * Unknown clients at an obfuscated server: they see a plain web server, and thousands of them do not disturb a tunnel.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import type { Host } from '../../testkit/netns.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { projectRoot } from '../../testkit/process.ts'
import { download } from '../../testkit/traffic.ts'
import { sleep, waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { type Meeting, RECOVERY_MS, withMeeting } from './meeting.ts'
import { meetingOf, OBFS_PORT, obfsWorld, setFirewalls } from './obfs.ts'
import { outcome, PROBES, probe } from './probes.ts'
import { Sniffer, tsharkProblem } from './sniffer.ts'

const TRANSFER_BYTES = 12 << 20
const UNKNOWN_CLIENTS = 3000
/** Half-open connections before the transfer begins. */
const FIRST_UNKNOWN_CLIENTS = 1000
/** Contexts that are not authenticated end after 30 s, checked every 10 s (protocol.md 9.5). */
const SILENT_MS = 60_000
/** protocol.md 9.5 */
const HALF_OPEN_MAX = 60
const CONTEXTS_MAX = 4095

const test = suite('netns: obfs, unknown clients')

/** Runs flood.mjs on a host until the body ends. */
async function withFlood(host: Host, kind: 'connect' | 'syn', to: Host, body: (count: () => number) => Promise<void>) {
  const script = join(projectRoot, 'test/netns/flood.mjs')
  const args = [
    'netns',
    'exec',
    host.namespace.name,
    process.execPath,
    script,
    kind,
    to.addresses[4],
    String(OBFS_PORT),
  ]
  const child = spawn('ip', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let count = 0
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    count = Number(text.trim().split('\n').at(-1))
  })
  try {
    await body(() => count)
  } finally {
    child.kill('SIGKILL')
  }
}

/** Numbers of authenticated and other contexts, from /stats. */
function contextCounts(stats: string): { authenticated: number; others: number } {
  const [, authenticated = Number.NaN, others = Number.NaN] = (/= (\d+)\(\+(\d+)\) contexts/.exec(stats) ?? []).map(
    Number,
  )
  return { authenticated, others }
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  const { world, serverHost, clientHost } = hosts
  const unknownClient = world.addPublicHost('obfs-x', 62)
  test.after(() => world.close())

  /** A transfer through dpi/tcp-wnd during a flood of unknown clients. */
  const transferInFlood = (meeting: Meeting, kind: 'connect' | 'syn'): Promise<void> =>
    withFlood(unknownClient, kind, serverHost, async (count) => {
      await waitFor('unknown clients', () => count() >= FIRST_UNKNOWN_CLIENTS, RECOVERY_MS)
      await download(meeting, meeting.target, TRANSFER_BYTES, 5)
      await waitFor('more unknown clients', () => count() >= UNKNOWN_CLIENTS, RECOVERY_MS)
      const { authenticated, others } = contextCounts(await meeting.server.stats())
      assert.is(authenticated, 1)
      assert.ok(others <= HALF_OPEN_MAX, `${others} half-open contexts`)
    })

  for (const program of RUNTIMES) {
    const options = meetingOf(hosts, 'dpi/tcp-wnd', 4, program, program)
    const address = serverHost.addresses[4]

    test(`MUST 62, MUST 68: probes see a plain web server, ${UNKNOWN_CLIENTS} SYNs do not disturb a transfer, a silent client is kept until its timeout: ${program}`, () =>
      withMeeting(options, async (meeting) => {
        const silent = await unknownClient.dial(address, OBFS_PORT)
        await silent.send('GET /generate_204 HTTP/1.1\r\n')
        for (const each of PROBES) {
          const seen = await probe(unknownClient, address, OBFS_PORT, each)
          assert.is(seen, outcome(each.response, each.open ? 'open' : 'fin'), each.name)
        }
        assert.not.ok(silent.ended)
        const app = await meeting.connect()
        app.destroy()
        await transferInFlood(meeting, 'syn')
        const ending = await within('the end of the silent connection', SILENT_MS, silent.ending)
        assert.is(ending.bytes, 0)
        assert.is(ending.kind, 'fin')
      }))

    const replayed = `a replayed capture is not answered, and its sender stays unauthenticated: ${program}`
    if (tsharkProblem !== undefined) skip(test, replayed, tsharkProblem)
    else
      test(replayed, () =>
        withMeeting(options, async (meeting) => {
          const sniffer = new Sniffer(clientHost, OBFS_PORT)
          const app = await meeting.connect()
          await sniffer.started(address)
          const isSmall = ({ sourcePort, length, window }: { sourcePort: string; length: string; window: string }) =>
            Number(sourcePort) !== OBFS_PORT && window === '32748' && Number(length) < 200
          await waitFor('datagrams', async () => {
            await app.send('y')
            return sniffer.packets.filter(isSmall).length >= 3
          })
          const payloads = sniffer.packets.filter(isSmall).map(({ payload }) => Buffer.from(payload, 'hex'))
          await sniffer.close()
          const attacker = await unknownClient.dial(address, OBFS_PORT)
          await attacker.send('GET /generate_204 HTTP/1.1\r\n\r\n')
          await waitFor('the 204', () => attacker.text().includes('\r\n\r\n'))
          const answered = attacker.received
          for (const payload of payloads.slice(0, 3)) {
            await attacker.send(payload)
            await sleep(20)
          }
          await waitFor(
            'the replays are counted',
            async () => {
              const { others } = contextCounts(await meeting.server.stats())
              return others >= 1 && /3 packets|replay/.test(meeting.server.log())
            },
            RECOVERY_MS,
          )
          const stats = await meeting.server.stats()
          assert.is(contextCounts(stats).authenticated, 1)
          assert.match(stats, new RegExp(`\\[${unknownClient.addresses[4]}:\\d+\\] \\? seen=\\d+s rx/tx=\\S+/0 ecn`))
          assert.is(attacker.received, answered)
          attacker.destroy()
          app.destroy()
        }),
      )

    test(`MUST 68: ${UNKNOWN_CLIENTS} half-open connections of unknown clients do not disturb a transfer: dpi/tcp-wnd, ${program}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        app.destroy()
        await transferInFlood(meeting, 'connect')
      }))
  }

  test('the printed firewall rules are installed', () => setFirewalls(hosts, 'node'))

  for (const program of RUNTIMES) {
    const options = meetingOf(hosts, 'dpi/tcp', 4, program, program)
    test(`MUST 68: ${UNKNOWN_CLIENTS} SYNs of unknown clients do not disturb a transfer: dpi/tcp, ${program}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        app.destroy()
        await withFlood(unknownClient, 'syn', serverHost, async (count) => {
          await waitFor('unknown clients', () => count() >= FIRST_UNKNOWN_CLIENTS, RECOVERY_MS)
          await download(meeting, meeting.target, TRANSFER_BYTES, 6)
          await waitFor('more unknown clients', () => count() >= UNKNOWN_CLIENTS, RECOVERY_MS)
          const { authenticated, others } = contextCounts(await meeting.server.stats())
          assert.is(authenticated, 1)
          assert.ok(others > 0 && others <= CONTEXTS_MAX, `${others} half-open contexts`)
        })
      }))
  }
}

test.run()
