// time limit: 120 s, long 600 s
/**
 * The interface of either end goes down and comes back during a transfer, and a firewall at either end refuses every
 * datagram for a while (EPERM from send calls): transfers go on afterwards, and the log has lines, not one per datagram.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { FAMILIES, type Host, World } from '../../testkit/netns.ts'
import type { Program } from '../../testkit/process.ts'
import { sleep } from '../../testkit/wait.ts'
import { type Meeting, type MeetingOptions, titleOf, withMeeting } from '../netns/meeting.ts'
import { type Direction, transfer } from '../netns/transfer.ts'
import { skip } from '../skip.ts'
import { type Figures, figuresUrl, form, ROLES, type Role, together } from './form.ts'

const DOWN_MS = form(3000, 20_000)
const REFUSED_MS = form(2000, 10_000)
/** Lines of one kind are at least a second apart. */
const LINES_MAX = REFUSED_MS / 1000 + 2

const test = suite('faults: interface')

const PROGRAMS: readonly { server: Program; client: Program; path: string }[] = [
  { server: 'node', client: 'bun', path: 'auto' },
  { server: 'bun', client: 'node', path: 'auto' },
  { server: 'node', client: 'bun', path: 'portable' },
  { server: 'bun', client: 'node', path: 'portable' },
]

function refuse(host: Host): void {
  host.namespace.run(
    ['nft', '-f', '-'],
    `table inet faults { chain output { type filter hook output priority 0; oifname "eth0" meta l4proto udp drop; }\n}\n`,
  )
}

const permit = (host: Host): void => void host.namespace.run(['nft', 'delete', 'table', 'inet', 'faults'])

async function unreachable(meeting: Meeting, role: Role): Promise<number> {
  const figures: Figures = JSON.parse(await meeting.hostOf(role).get(figuresUrl(meeting[role])))
  return figures.host['udp_unreachable'] ?? 0
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  test.after(() => world.close())
  const cells = PROGRAMS.map(({ path, ...programs }, index) => {
    const hosts = {
      server: world.addPublicHost(`server-${index}`, 50 + index),
      client: world.addPublicHost(`client-${index}`, 60 + index),
    }
    const family = FAMILIES[index % 2] ?? 4
    const options: MeetingOptions = {
      ...{ programs, family, net: world.net, serverHost: hosts.server, clientHost: hosts.client },
      config: { udp: { path } },
    }
    return { index, hosts, options, path }
  })
  const all = cells.map(({ options, path }) => `${titleOf(options)}, path ${path}`).join('; ')

  for (const role of ROLES) {
    const directionOf = (index: number): Direction => ((role === 'server') === index < 2 ? 'download' : 'upload')

    test(`sends of the ${role} are refused for a while: ${all}`, () =>
      together(
        cells.map(({ index, hosts, options }) => () => {
          return withMeeting(options, async (meeting) => {
            let refused: Promise<void> | undefined
            let counted = 0
            const disturb = (): void => {
              refuse(hosts[role])
              refused = sleep(REFUSED_MS)
                .then(async () => {
                  counted = await unreachable(meeting, role)
                })
                .finally(() => permit(hosts[role]))
              // awaited below, unless the transfer fails first
              refused.catch(() => undefined)
            }
            await transfer(meeting, directionOf(index), index, [disturb])
            await refused
            assert.ok(counted > 0, 'the refused datagrams are counted')
            const lines = meeting[role].log().match(/^W .*(?: udp: | cannot be reached: ).*$/gm) ?? []
            assert.ok(lines.length > 0 && lines.length <= LINES_MAX, `${counted} refused, log:\n${lines.join('\n')}`)
          })
        }),
      ))

    test(`the interface of the ${role} is down for a while: ${all}`, () =>
      together(
        cells.map(({ index, hosts, options }) => () => {
          return withMeeting(options, async (meeting) => {
            let back: Promise<void> | undefined
            const disturb = (): void => {
              hosts[role].unplug()
              back = sleep(DOWN_MS).then(() => hosts[role].plug())
            }
            await transfer(meeting, directionOf(index), index, [disturb])
            await back
            const app = await meeting.connect()
            app.destroy()
          })
        }),
      ))
  }
}

test.run()
