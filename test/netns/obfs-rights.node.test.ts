// time limit: 180 s
/** Privileges of an obfuscated tunnel: CAP_NET_RAW at the start, none afterwards. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Host } from '../../testkit/netns.ts'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, type Program, writeConfig } from '../../testkit/process.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { type MeetingOptions, RECOVERY_MS, withMeeting } from './meeting.ts'
import { meetingOf, OBFS_PORT, OBFUSCATORS, obfsWorld, setFirewalls } from './obfs.ts'

const TRANSFER_BYTES = 4 << 20
const NOBODY = 65534
const CAP_NET_RAW = 13

const test = suite('netns: obfs, rights')
const setprivProblem =
  spawnSync('setpriv', ['--version']).status === 0 ? undefined : 'there is no setpriv program (util-linux)'
const problem = netnsProblem ?? setprivProblem

/** Runs a command as user nobody with only the given capabilities. */
const setpriv = (...capabilities: readonly string[]): readonly string[] => {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',')
  return [
    'setpriv',
    ...['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'],
    ...['--bounding-set', set, '--inh-caps', set, '--ambient-caps', set],
  ]
}

/** User and effective capabilities of a process. */
function rightsOf(pid: number): { readonly uid: number; readonly capabilities: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? ''
  return { uid: Number(field('Uid')), capabilities: Number.parseInt(field('CapEff'), 16) }
}

/**
 * Starts a program that must fail.
 * @returns its output
 */
function refusal(host: Host, wrapper: readonly string[], program: Program, obfs: string): string {
  const config = {
    ...{ method: 'aes256gcm', password: 'x', obfs },
    ...{ kcp_bind: host.at(4, OBFS_PORT), connect: '127.0.0.1:1' },
  }
  const file = writeConfig(config)
  spawnSync('chmod', ['-R', 'a+rX', file.path.replace(/\/[^/]*$/, '')])
  const command = ['netns', 'exec', host.namespace.name, ...wrapper, ...commandOf(program), '-c', file.path]
  const { status, stdout, stderr } = spawnSync('ip', command, { encoding: 'utf8', timeout: 30_000 })
  file.remove()
  assert.is(status, 1, stdout + stderr)
  return stdout + stderr
}

if (problem !== undefined) {
  skip(test, 'all', problem)
} else {
  const hosts = obfsWorld()
  const { world, serverHost } = hosts
  test.after(() => world.close())

  for (const program of RUNTIMES) {
    test(`without CAP_NET_RAW the start fails and names the remedies: ${program}`, () => {
      for (const obfs of OBFUSCATORS) {
        const text = refusal(serverHost, setpriv(), program, obfs)
        assert.match(text, `obfs = "${obfs}"`)
        assert.match(text, 'CAP_NET_RAW')
        assert.match(text, 'setcap')
        assert.match(text, 'AmbientCapabilities')
      }
    })
  }

  for (const obfs of OBFUSCATORS) {
    if (obfs === 'dpi/tcp') test('the printed firewall rules are installed', () => setFirewalls(hosts, 'bun'))
    for (const [index, { server, client }] of MIXED_PAIRS.entries()) {
      const options = meetingOf(hosts, obfs, FAMILIES[index] ?? 4, server, client)

      const wrapped = { wrapper: setpriv('net_raw'), owner: NOBODY }
      const unprivileged: MeetingOptions = { ...options, start: { server: wrapped, client: wrapped } }
      test(`both endpoints run as user nobody with only CAP_NET_RAW: ${options.title}`, () =>
        withMeeting(unprivileged, async (meeting) => {
          for (const { pid } of [meeting.server, meeting.client]) {
            assert.equal(rightsOf(pid), { uid: NOBODY, capabilities: 2 ** CAP_NET_RAW })
          }
          const app = await meeting.connect()
          app.destroy()
          await upload(meeting, meeting.target, TRANSFER_BYTES, index)
          await download(meeting, meeting.target, TRANSFER_BYTES, index + 1)
        }))

      const dropped = { args: ['-u', `${NOBODY}:${NOBODY}`], owner: NOBODY }
      const givenUp: MeetingOptions = { ...options, start: { server: dropped, client: dropped } }
      test(`MUST 66: redialling works after root was dropped: ${options.title}`, () =>
        withMeeting(givenUp, async (meeting) => {
          const app = await meeting.connect()
          assert.equal(rightsOf(meeting.client.pid), { uid: NOBODY, capabilities: 0 })
          assert.equal(rightsOf(meeting.server.pid), { uid: NOBODY, capabilities: 0 })
          // the server's own change: another port needs another filter
          const address = serverHost.at(options.family, OBFS_PORT + 1)
          meeting.server.reload({ kcp_bind: address })
          meeting.client.reload({ kcp_connect: address })
          await within('the end of the old connection', RECOVERY_MS, app.ending)
          const second = await meeting.connect()
          second.destroy()
          assert.match(meeting.client.log(), `obfs ready: ${address}`)
        }))
    }
  }
}

test.run()
