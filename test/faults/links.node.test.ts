// time limit: 150 s, long 3600 s
/**
 * The faults of quic-interop-runner on the link, with each program in each role: bodies of 64 KiB to 1 MiB (and short connections) arrive
 * whole in both directions at once, compared by SHA-256. A kcptun-libev
 * server follows no NAT rebinding, and one that only receives sends nothing by which ours could: both are left out.
 */
import { suite } from 'uvu'
import type { LinkShape } from '../../testkit/link.ts'
import { libevPath } from '../../testkit/process.ts'
import { type Tunnel, type TunnelOptions, withTunnel } from '../../testkit/tunnel.ts'
import { sleep } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import { form, isLong, together } from './form.ts'
import { Streams } from './streams.ts'

const LIMIT_MS = 60_000
const KIB = 1024
/** They mostly wait. */
const CELLS_AT_ONCE = 8
/** Of a blackhole, and the time between two. */
const DARK_MS = 5000
const LIGHT_MS = 2000
const REBIND_MS = 1000
/** Time before the first. */
const FIRST_MS = 300
/** Body where kcptun-libev is one end: without congestion control it needs minutes for more. */
const LIBEV_BYTES_MAX = 256 * KIB

interface Fault {
  readonly link: LinkShape
  readonly bytes: number
  /** Connections one after the other. */
  readonly connections?: number
  /** Runs beside the transfers until they are over. */
  disturb?(tunnel: Tunnel, isOver: () => boolean): Promise<void>
}

let addresses = 1

async function blackholes(tunnel: Tunnel, isOver: () => boolean): Promise<void> {
  await sleep(FIRST_MS)
  while (!isOver()) {
    tunnel.link.blackhole()
    await sleep(DARK_MS)
    tunnel.link.heal()
    await sleep(LIGHT_MS)
  }
}

const rebind =
  (hostOf: () => string | undefined) =>
  async (tunnel: Tunnel, isOver: () => boolean): Promise<void> => {
    for (await sleep(FIRST_MS); !isOver(); await sleep(REBIND_MS)) tunnel.link.rebind(hostOf())
  }

/** Slow enough for a body to be under way, with a queue for the window that kcptun-libev sends at once. */
const SLOW: LinkShape = { delay: 15, rate: 4e6, queue: 512 * KIB }

const FAULTS: Readonly<Record<string, Fault>> = {
  'loss of 30 % in bursts of 3': { link: { delay: 15, loss: 0.3, burst: 3 }, bytes: 256 * KIB },
  // less than the smallest datagram that black hole detection tries: on such a link it may mistake chance for one
  'loss of 30 % in bursts of 3, short connections': {
    ...{ link: { delay: 15, loss: 0.3, burst: 3 }, bytes: KIB / 2 },
    connections: form(5, 50),
  },
  'corruption of 30 %, short connections': {
    ...{ link: { delay: 15, corrupt: 0.3 }, bytes: KIB },
    connections: form(5, 50),
  },
  'corruption of 2 %': { link: { delay: 15, corrupt: 0.02 }, bytes: 1024 * KIB },
  'a blackhole of 5 s every 7 s': { link: SLOW, bytes: 1024 * KIB, disturb: blackholes },
  'an RTT of 750 ms': { link: { delay: 375 }, bytes: 64 * KIB },
  'NAT rebinding of the port every second': {
    ...{ link: SLOW, bytes: 1024 * KIB },
    disturb: rebind(() => undefined),
  },
  'NAT rebinding of the address every second': {
    ...{ link: SLOW, bytes: 1024 * KIB },
    disturb: rebind(() => `127.0.0.${(++addresses % 200) + 2}`),
  },
}

const PROGRAMS = ['node', 'bun', 'libev'] as const
type Ends = Pick<TunnelOptions, 'server' | 'client'>
const ALL: readonly Ends[] = PROGRAMS.flatMap((server) => PROGRAMS.map((client) => ({ server, client }))).filter(
  ({ server, client }) => server !== 'libev' || client !== 'libev',
)

/** All mixtures, or three that differ from fault to fault: both ours, and kcptun-libev in each role. */
function mixturesOf(index: number): readonly Ends[] {
  if (isLong) return ALL
  const [one, other] = index % 2 === 0 ? (['node', 'bun'] as const) : (['bun', 'node'] as const)
  return [
    { server: one, client: other },
    { server: other, client: 'libev' },
    { server: 'libev', client: one },
  ]
}

const isOurs = ({ server, client }: Ends): boolean => server !== 'libev' && client !== 'libev'

async function survive(fault: Fault, ends: Ends, seed: number): Promise<void> {
  const streams = await Streams.open()
  const options = { ...ends, target: streams.target.address, link: { ...fault.link, seed } }
  await withTunnel(options, async (tunnel) => {
    let isOver = false
    const disturbing = fault.disturb?.(tunnel, () => isOver)
    try {
      const bytes = isOurs(ends) ? fault.bytes : Math.min(fault.bytes, LIBEV_BYTES_MAX)
      for (let i = 0; i < (fault.connections ?? 1); i++) {
        await streams.assertExchange(tunnel, bytes, LIMIT_MS)
      }
    } finally {
      isOver = true
      await disturbing
      tunnel.link.heal()
    }
  }).finally(() => streams.target.close())
}

const test = suite('faults: links')

const isFollowed = (name: string, ends: Ends): boolean => !name.startsWith('NAT') || isOurs(ends)

const cells = Object.entries(FAULTS).flatMap(([name, fault], index) =>
  mixturesOf(index)
    .filter((ends) => isFollowed(name, ends))
    .map((ends, i) => ({ name, fault, ends, seed: 1000 * index + i + 7 })),
)

for (const [title, group] of [
  ['our programs', cells.filter(({ ends }) => isOurs(ends))],
  ['with kcptun-libev', cells.filter(({ ends }) => !isOurs(ends))],
] as const) {
  if (title !== 'our programs' && libevPath === undefined) {
    skip(test, title, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
    continue
  }
  test(`${Object.keys(FAULTS).join('; ')}: ${title}`, () =>
    together(
      group.map(({ name, fault, ends, seed }) => () => {
        return survive(fault, ends, seed).catch((error: Error) => {
          throw new Error(`${name}: ${error.message}`)
        })
      }),
      CELLS_AT_ONCE,
    ))
}

test.run()
