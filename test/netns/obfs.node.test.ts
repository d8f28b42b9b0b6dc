// time limit: 300 s
/**
 * Obfuscated tunnels between hosts: every pair of runtimes, both obfuscators, both address families, whole transfers;
 * with loss; with RSTs of the kernels; with servers that are killed and restarted, or that move.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES } from '../../testkit/netns.ts'
import { ALL_PAIRS, MIXED_PAIRS } from '../../testkit/pairs.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { assertEchoes, RECOVERY_MS, withMeeting } from './meeting.ts'
import { meetingOf, OBFS_PORT, OBFUSCATORS, obfsWorld, setFirewalls, withHostsFile } from './obfs.ts'

const TRANSFER_BYTES = 64 << 20
const LOSSY_BYTES = 4 << 20
const LOSS_PERCENT = 3
/** New address of a server that moves. */
const OTHER = { 4: '203.0.113.160/24', 6: '2001:db8::160/64' } as const

const test = suite('netns: obfs')

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const hosts = obfsWorld()
  const { world, serverHost, clientHost } = hosts
  test.after(() => world.close())

  let seed = 1000

  // before the firewall rules are set
  for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
    const options = meetingOf(hosts, 'dpi/tcp', FAMILIES[index] ?? 4, server, client)
    test(`MUST 65: RSTs of the kernels do not disturb the tunnel: ${options.title}`, () =>
      withMeeting(options, async (meeting) => {
        const app = await meeting.connect()
        app.destroy()
        await upload(meeting, meeting.target, LOSSY_BYTES, 1)
        await download(meeting, meeting.target, LOSSY_BYTES, 2)
      }))
  }

  for (const obfs of OBFUSCATORS) {
    // from here on a real TCP connection to that port is blocked
    if (obfs === 'dpi/tcp')
      test('the rules printed by --obfs-firewall can be installed', () => setFirewalls(hosts, 'node'))

    for (const family of FAMILIES) {
      for (const { server, client } of ALL_PAIRS) {
        const options = meetingOf(hosts, obfs, family, server, client)
        const own = ++seed
        // one direction each: in total every runtime sends and receives in both roles
        const [direction, transfer] = own % 2 === 0 ? (['upload', upload] as const) : (['download', download] as const)
        test(`MUST 63, MUST 67: a ${direction} of 64 MiB succeeds: ${options.title}`, () =>
          withMeeting(options, async (meeting) => {
            const app = await meeting.connect()
            app.destroy()
            await transfer(meeting, meeting.target, TRANSFER_BYTES, own)
          }))
      }
    }

    for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
      // with a named interface as well
      const config = { netdev: 'eth0' }
      const options = meetingOf(hosts, obfs, FAMILIES[index] ?? 4, server, client, { config })
      test(`transfers succeed at ${LOSS_PERCENT} % packet loss: ${options.title}`, () =>
        withMeeting(options, async (meeting) => {
          world.setLoss(LOSS_PERCENT)
          const app = await meeting.connect()
          app.destroy()
          await upload(meeting, meeting.target, LOSSY_BYTES, 3)
          await download(meeting, meeting.target, LOSSY_BYTES, 4)
        }).finally(() => world.setLoss(0)))

      test(`MUST 66: the tunnel recovers after the server is killed and restarted: ${options.title}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          await meeting.stop('server')
          await meeting.start('server')
          const ending = await within('the end of the old connection', RECOVERY_MS, app.ending)
          assert.is(ending.kind, 'reset')
          const second = await meeting.connect()
          second.destroy()
          assert.ok(meeting.client.log().split('obfs ready').length >= 3, 'ready a second time')
        }))

      test(`MUST 66: a client started before its server refuses applications until the server is up: ${options.title}`, () =>
        withMeeting(options, async (meeting) => {
          await meeting.stop('server')
          await meeting.stop('client')
          await meeting.start('client')
          // the reset may come before the connection is reported
          const refusal = await meeting.dial().then(
            async (app) => (await within('the refusal', RECOVERY_MS, app.ending)).kind,
            (error: unknown) => String(error),
          )
          assert.match(refusal, /reset/i)
          await meeting.start('server')
          // the schedule, or for dpi/tcp the end of the context, causes another dial
          const app = await meeting.connect()
          app.destroy()
        }))

      if (obfs === 'dpi/tcp-wnd')
        test(`MUST 66: kcp_connect is resolved at every dial: ${options.title}`, () =>
          withHostsFile(clientHost, async (setAddress) => {
            const { family } = options
            setAddress('server.test', serverHost.addresses[family])
            await withMeeting(options, async (meeting) => {
              await meeting.stop('client')
              await meeting.start('client', { kcp_connect: `server.test:${OBFS_PORT}` })
              const app = await meeting.connect()
              app.destroy()
              await meeting.stop('server')
              serverHost.namespace.ip(`addr add ${OTHER[family]} dev eth0 nodad`)
              const address = (OTHER[family].split('/')[0] ?? '').replace(/^(.*:.*)$/, '[$1]')
              setAddress('server.test', address.replaceAll(/[[\]]/g, ''))
              await meeting.start('server', { kcp_bind: `${address}:${OBFS_PORT}` })
              const second = await meeting.connect()
              second.destroy()
              assert.match(meeting.client.log(), `obfs ready: ${address}:${OBFS_PORT}`)
            })
          }))

      if (obfs === 'dpi/tcp-wnd')
        test(`an address that does not answer is followed by the next one of the name: ${options.title}`, () =>
          withHostsFile(clientHost, async (setAddress) => {
            const { family } = options
            const other = OTHER[family].split('/')[0] ?? ''
            // getaddrinfo prefers the one that has more bits in common with the client's
            setAddress('server.test', serverHost.addresses[family], other)
            await withMeeting(options, async (meeting) => {
              for (const role of ['client', 'server'] as const) await meeting.stop(role)
              serverHost.namespace.ip(`addr replace ${OTHER[family]} dev eth0 nodad`)
              await meeting.start('server', { kcp_bind: `${family === 4 ? other : `[${other}]`}:${OBFS_PORT}` })
              await meeting.start('client', { kcp_connect: `server.test:${OBFS_PORT}` })
              const app = await meeting.connect()
              assert.match(meeting.client.log(), `${other}${family === 4 ? '' : ']'}:${OBFS_PORT}`)
              // a reload keeps it, although another one comes first in the answer
              meeting.client.reload({ timeout: 61 })
              await waitFor('the reload', () => meeting.client.log().includes('successfully reloaded'), RECOVERY_MS)
              await assertEchoes(app, 'the open connection')
              app.destroy()
            })
          }))

      test(`a changed address moves the tunnel, and a reload without one keeps it: ${options.title}`, () =>
        withMeeting(options, async (meeting) => {
          const app = await meeting.connect()
          meeting.client.reload({ timeout: 61 })
          meeting.server.reload({ timeout: 61 })
          for (const end of [meeting.client, meeting.server]) {
            await waitFor('the reload', () => end.log().includes('successfully reloaded'), RECOVERY_MS)
          }
          await app.send('x')
          await waitFor('an echo', () => app.text().endsWith('x'), RECOVERY_MS)
          assert.not.ok(app.ended)
          const address = serverHost.at(options.family, OBFS_PORT + 1)
          meeting.server.reload({ kcp_bind: address })
          await waitFor('the server moves', () => meeting.server.log().includes(`${address}\n`), RECOVERY_MS)
          meeting.client.reload({ kcp_connect: address })
          await waitFor('ready there', () => meeting.client.log().includes(`obfs ready: ${address}`), RECOVERY_MS)
          const second = await meeting.connect()
          assert.is((await within('the end of the old one', RECOVERY_MS, app.ending)).kind, 'reset')
          second.destroy()
        }))
    }
  }
}

test.run()
