// time limit: 300 s
/**
 * Merged datagrams are lost on the way while single ones pass: a firewall that matches the length of packets sees the
 * message that the kernel has not split yet (UDP_SEGMENT), or has already merged (UDP_GRO). Nothing reports it.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Host, World } from '../../testkit/netns.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { skip } from '../skip.ts'
import { type Meeting, type MeetingOptions, type Role, withMeeting } from './meeting.ts'

const BYTES = 2_000_000
/** Longer than any single packet. */
const MERGED = 1600
const LOST = /passed to the kernel merged \(UDP_SEGMENT\) are lost, single ones arrive: .* for an hour/

const test = suite('netns: offload')

const GRO_LOST = /merges on arrival \(UDP_GRO\) are lost on this host, single ones arrive: .* for an hour/

type Direction = 'upload' | 'download'

/** Drops merged packets on one of the hooks of a host. */
function dropMerged(host: Host, hook: 'input' | 'output'): void {
  host.namespace.run(
    ['nft', '-f', '-'],
    `table inet length {
       chain c { type filter hook ${hook} priority 0; meta l4proto udp meta length > ${MERGED} counter drop; }
     }\n`,
  )
}

/** Removes the rule. @returns the number of packets that it dropped */
function passMerged(host: Host): number {
  const rules = host.namespace.run(['nft', 'list', 'table', 'inet', 'length'])
  host.namespace.run(['nft', 'delete', 'table', 'inet', 'length'])

  return Number(/counter packets (\d+)/.exec(rules)?.[1] ?? 0)
}

/** Drops merged packets while `body` runs. @returns the number of packets dropped */
async function withoutMerged(host: Host, hook: 'input' | 'output', body: () => Promise<void>): Promise<number> {
  dropMerged(host, hook)
  let dropped = 0
  try {
    await body()
  } finally {
    dropped = passMerged(host)
  }
  return dropped
}

async function carry(meeting: Meeting, direction: Direction, seed: number): Promise<void> {
  const app = await meeting.connect()
  app.destroy()
  if (direction === 'upload') await upload(meeting, meeting.target, BYTES, seed)
  else await download(meeting, meeting.target, BYTES, seed)
}

/**
 * Lets the interface of a host merge what arrives within some ms, as a network card does with what arrives while it
 * waits for its interrupt. A veth interface alone would take each packet at once.
 */
function mergeArrivals({ namespace }: Host, net: Host, port: string): void {
  // veth passes packets to GRO only if its other end cannot send runs
  net.namespace.run(['ethtool', '-K', port, 'tso', 'off'])
  namespace.run(['ethtool', '-K', 'eth0', 'gro', 'on'])
  const directory = '/sys/class/net/eth0'
  const set = `echo 300000 > ${directory}/gro_flush_timeout; echo 2 > ${directory}/napi_defer_hard_irqs`
  namespace.run(['sh', '-c', set])
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const serverHost = world.addPublicHost('server', 50)
  const clientHost = world.addPublicHost('client', 60)
  test.after(() => world.close())
  const hosts = { server: serverHost, client: clientHost }

  const cases: {
    sender: Exclude<Role, 'rendezvous'>
    programs: { server: Program; client: Program }
    family: 4 | 6
  }[] = [
    { sender: 'client', programs: { server: 'bun', client: 'node' }, family: 4 },
    { sender: 'client', programs: { server: 'node', client: 'bun' }, family: 6 },
    { sender: 'server', programs: { server: 'node', client: 'bun' }, family: 4 },
    { sender: 'server', programs: { server: 'bun', client: 'node' }, family: 6 },
  ]
  for (const { sender, programs, family } of cases) {
    const direction = sender === 'client' ? 'upload' : 'download'
    const options: MeetingOptions = { programs, family, net: world.net, serverHost, clientHost }
    const receiver = sender === 'client' ? 'server' : 'client'
    test(`${direction}: the ${programs[sender]} ${sender} sends single datagrams once merged ones are lost, IPv${family}`, async () => {
      const dropped = await withoutMerged(hosts[sender], 'output', () =>
        withMeeting(options, async (meeting) => {
          await carry(meeting, direction, 1)
          assert.match(meeting[sender].log(), LOST)
          assert.not.match(meeting[receiver].log(), LOST, 'the other end loses nothing')
        }),
      )
      assert.ok(dropped > 0, 'the rule dropped nothing')
    })

    test(`${direction}: ${programs[sender]} ${sender}, udp.gso = off, IPv${family}`, async () => {
      const config: Config = { udp: { gso: 'off' } }
      const dropped = await withoutMerged(hosts[sender], 'output', () =>
        withMeeting({ ...options, config }, async (meeting) => {
          await carry(meeting, direction, 2)
          assert.not.match(meeting[sender].log(), /UDP_SEGMENT/)
        }),
      )
      assert.is(dropped, 0, 'no merged packet')
    })
  }

  const arrivals: {
    receiver: Exclude<Role, 'rendezvous'>
    programs: { server: Program; client: Program }
    family: 4 | 6
  }[] = [
    { receiver: 'server', programs: { server: 'bun', client: 'node' }, family: 4 },
    { receiver: 'client', programs: { server: 'bun', client: 'node' }, family: 6 },
    { receiver: 'client', programs: { server: 'node', client: 'bun' }, family: 4 },
  ]
  for (const { receiver, programs, family } of arrivals) {
    const direction = receiver === 'server' ? 'upload' : 'download'
    // the sender's own runs would be lost here too
    const options: MeetingOptions = { programs, family, net: world.net, serverHost, clientHost }
    const host = hosts[receiver]
    test(`${direction}: the ${programs[receiver]} ${receiver} receives single datagrams once merged ones are lost, IPv${family}`, async () => {
      mergeArrivals(host, world.net, receiver === 'server' ? 'port0' : 'port1')
      const dropped = await withoutMerged(host, 'input', () =>
        withMeeting({ ...options, config: { udp: { gso: 'off' } } }, async (meeting) => {
          // while little is merged, transfers pass and the host still tries: how many depends on the speed of the machine
          for (let i = 0; i < 100 && !GRO_LOST.test(meeting[receiver].log()); i++) await carry(meeting, direction, i)
          assert.match(meeting[receiver].log(), GRO_LOST)
        }),
      )
      assert.ok(dropped > 0, 'the rule dropped nothing')
    })

    test(`${direction}: ${programs[receiver]} ${receiver}, udp.gro = off, IPv${family}`, async () => {
      mergeArrivals(host, world.net, receiver === 'server' ? 'port0' : 'port1')
      const dropped = await withoutMerged(host, 'input', () =>
        withMeeting({ ...options, config: { udp: { gso: 'off', gro: 'off' } } }, async (meeting) => {
          await carry(meeting, direction, 4)
          assert.not.match(meeting[receiver].log(), GRO_LOST)
        }),
      )
      assert.is(dropped, 0, 'no merged packet')
    })

    test(`${direction}: ${programs[receiver]} ${receiver} keeps merging where merged datagrams arrive, IPv${family}`, async () => {
      mergeArrivals(host, world.net, receiver === 'server' ? 'port0' : 'port1')
      await withMeeting({ ...options, config: { udp: { gso: 'off' } } }, async (meeting) => {
        await carry(meeting, direction, 5)
        assert.not.match(meeting[receiver].log(), GRO_LOST)
      })
    })
  }
}

test.run()
