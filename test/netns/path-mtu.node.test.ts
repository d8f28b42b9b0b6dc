// time limit: 300 s
/**
 * A router between the ends takes smaller packets than the hosts send, and its ICMP messages are lost. The ends find the
 * size, and a transfer goes on when it falls. Packets of kcptun-libev fit, because it does not search.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Family, type Router, World } from '../../testkit/netns.ts'
import { libevPath, type Program } from '../../testkit/process.ts'
import { download, upload } from '../../testkit/traffic.ts'
import { skip } from '../skip.ts'
import { type Meeting, type MeetingOptions, RECOVERY_MS, titleOf, withMeeting } from './meeting.ts'
import { transfer } from './transfer.ts'

const BYTES = 2_000_000
/** A search ends closer to the size of the path, unless a busy machine loses or delays tests. */
const PRECISION = 30
const HEADERS = { 4: 28, 6: 48 } as const

const test = suite('netns: path MTU')

/** Limits the packets that the router forwards, in both directions. (An interface would drop longer ones it receives.) */
function limit(router: Router, bytes: number): void {
  router.namespace.ip(
    `route replace 203.0.113.0/24 dev wan mtu lock ${bytes}
     route replace 2001:db8::/64 dev wan metric 256 mtu lock ${bytes}
     route replace 192.168.1.0/24 dev lan mtu lock ${bytes}
     route replace fd00:1::/64 dev lan metric 256 mtu lock ${bytes}`,
  )
}

/** Drops the ICMP messages that report packets as too big. */
function silence(router: Router): void {
  router.namespace.run(
    ['nft', '-f', '-'],
    `table inet silence {
       chain output {
         type filter hook output priority 0
         icmp type destination-unreachable drop
         icmpv6 type packet-too-big drop
       }
     }`,
  )
}

interface Stats {
  readonly counters: Readonly<Record<string, number>>
  readonly gauges: Readonly<Record<string, number>>
}

async function statsOf(meeting: Meeting, role: 'server' | 'client'): Promise<Stats> {
  return JSON.parse(await meeting.hostOf(role).get(`http://${meeting[role].config['http_listen']}/stats.json`))
}

/** Lets them pass again. */
function speak(router: Router): void {
  router.namespace.run(['nft', 'delete', 'table', 'inet', 'silence'])
}

/** The size of packets in use at one end, bytes. */
async function sizeAt(meeting: Meeting, role: 'server' | 'client', family: Family): Promise<number> {
  const { gauges } = await statsOf(meeting, role)
  const bytes = gauges['path_bytes'] ?? 0
  return bytes === 0 ? 1400 : bytes + HEADERS[family]
}

/** Transfers in both directions until our ends have found a size that the path takes. */
async function assertFound(meeting: Meeting, most: number): Promise<void> {
  const { programs, family } = meeting.options
  const ours = (['server', 'client'] as const).filter((role) => programs[role] !== 'libev')
  let sizes: number[] = []
  const isFound = async (): Promise<boolean> => {
    await upload(meeting, meeting.target, BYTES, 1)
    await download(meeting, meeting.target, BYTES, 2)
    sizes = await Promise.all(ours.map((role) => sizeAt(meeting, role, family)))
    for (const size of sizes) assert.ok(size <= most || size === 1400, `${sizes}`)
    return sizes.every((size) => size <= most && size >= most - PRECISION)
  }
  const end = performance.now() + RECOVERY_MS
  while (!(await isFound())) assert.ok(performance.now() < end, `sizes ${sizes}, the path takes ${most}`)
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const router = world.addRouter('router', 1)
  const clientHost = world.addHost('client', router)
  const serverHost = world.addPublicHost('server', 50)
  silence(router)
  test.after(() => world.close())
  test.before.each(() => limit(router, 1500))

  const meet = (server: Program, client: Program, family: Family): MeetingOptions => {
    return { programs: { server, client }, family, net: world.net, serverHost, clientHost }
  }

  for (const options of [meet('node', 'bun', 4), meet('bun', 'node', 6)]) {
    for (const most of [1500, 1460, 1280]) {
      test(`packets of up to ${most} bytes are used, which a new connection has at once: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          limit(router, most)
          await assertFound(meeting, most)
          const { counters } = await statsOf(meeting, 'client')
          await upload(meeting, meeting.target, BYTES, 3)
          const after = await statsOf(meeting, 'client')
          assert.is(after.counters['segments_oversized'], counters['segments_oversized'])
        }))
    }
    for (const direction of ['upload', 'download'] as const) {
      test(`the path takes 1300 instead of 1500 bytes during a ${direction}: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          await assertFound(meeting, 1500)
          await transfer(meeting, direction, 3, [() => limit(router, 1300)])
        }))
    }
    test(`ICMP messages about the size are not believed, and are no errors: ${titleOf(options)}`, () =>
      withMeeting(options, async (meeting) => {
        speak(router)
        try {
          limit(router, 1440)
          await assertFound(meeting, 1440)
        } finally {
          silence(router)
        }
        for (const { log } of [meeting.client, meeting.server]) {
          assert.not.match(log(), /rejects datagrams|UDP_SEGMENT\) are lost|EMSGSIZE/)
        }
        for (const role of ['client', 'server'] as const) {
          assert.is((await statsOf(meeting, role)).counters['segments_oversized'], 0)
        }
      }))
    test(`with kcp.mtu no larger packet is sent: ${titleOf(options)}`, () =>
      withMeeting({ ...options, config: { kcp: { mtu: 1400 } } }, async (meeting) => {
        await upload(meeting, meeting.target, BYTES, 1)
        await download(meeting, meeting.target, BYTES, 2)
        for (const role of ['server', 'client'] as const) {
          const { counters, gauges } = await statsOf(meeting, role)
          assert.equal([counters['size_tests_sent'], gauges['path_bytes']], [0, 0])
        }
      }))
  }

  if (libevPath === undefined) {
    skip(test, 'kcptun-libev', 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
  } else {
    for (const options of [
      meet('libev', 'node', 4),
      meet('libev', 'bun', 6),
      meet('node', 'libev', 6),
      meet('bun', 'libev', 4),
    ]) {
      const direction = options.programs.server === 'libev' ? 'upload' : 'download'
      test(`with kcptun-libev: 1480 bytes are found, and 1420 during a ${direction}: ${titleOf(options)}`, () =>
        withMeeting(options, async (meeting) => {
          limit(router, 1480)
          await assertFound(meeting, 1480)
          await transfer(meeting, direction, 3, [() => limit(router, 1420)])
          await assertFound(meeting, 1420)
        }))
    }
  }
}

test.run()
