/**
 * `bench ip`: tunnels beside kernel TCP on the same emulated IP links: a TUN device in each of two network namespaces.
 * kcptun-wasm without any `kcp` key, kernel TCP with CUBIC and BBR, kcptun-libev with its defaults and tuned. Requires
 * Linux, root, ip, and Node with koffi.
 *
 *   --parts NAMES   of alone, several, echo, beside (default: all)      --only NAMES    links by name
 *   --grid          `beside` over a grid of links                       --link SPEC     RTT/LOSS/MBITS/QUEUE_KB[/DISCIPLINE],
 *   --match REGEX   columns whose name matches                                          instead of the links; may be repeated
 *   --direction D   up or down (default: both, but `beside` up)         --quick         one short run
 *   --seconds N     of a transfer (default 8; `beside` 60)              --runs N        medians of N interleaved runs (1)
 *   --seed N        for the losses                                      --json FILE     all figures as JSON
 */
import { parseArgs } from 'node:util'
import { describeCalibration } from '../testkit/calibration.ts'
import { netnsProblem } from '../testkit/namespace.ts'
import { DISCIPLINES } from '../testkit/queue-discipline.ts'
import type { TunShape } from '../testkit/tun-link.ts'
import { sleep } from '../testkit/wait.ts'
import { calibrate, loadNow } from './calibration.ts'
import { allowControls, type Column, type Direction, type Flow, Network } from './ip-network.ts'
import { describe, METHOD, machine, median, type Pair, present, quantile, tuned } from './peers.ts'
import { emulatorRemarks, positive, show, writeJson } from './series.ts'

const MBIT = 1e6
const SECONDS = 8
const BESIDE_SECONDS = 60
/** Connections of `several`. */
const CONNECTIONS = 8
/** The second flow of `beside` starts after this share of the run; the shares are measured from twice this on. */
const SECOND_FLOW = 1 / 10
const ECHO_EVERY_MS = 20
/** Payload of a full datagram, for CPU time per segment. */
const SEGMENT_BYTES = 1342

interface Link extends TunShape {
  readonly name: string
}

const link = (name: string, rtt: number, loss: number, mbits?: number, queue?: number): Link => ({
  name,
  delay: rtt / 2,
  loss,
  ...(mbits !== undefined && { rate: mbits * MBIT, queue: (queue ?? 0) * 1000 }),
})

const LINKS: readonly Link[] = [
  link('wan', 50, 0),
  link('lossy', 50, 0.02),
  link('bad', 50, 0.1),
  link('long', 200, 0),
  link('longlossy', 200, 0.02),
  link('access', 50, 0, 20, 64),
  link('accesslossy', 50, 0.02, 20, 64),
  link('mobile', 80, 0.005, 30, 512),
  link('bloat', 40, 0, 20, 1000),
  link('shallow', 50, 0, 100, 32),
  link('gig', 100, 0.001, 500, 1000),
]
/** Links on which two flows are compared. */
const BESIDE_LINKS = ['access', 'mobile', 'bloat', 'shallow']
const ECHO_LINKS = ['access', 'accesslossy', 'mobile', 'bloat']

/** The links of --grid: bandwidth-delay products of queue, rate in Mbit/s and RTT in ms; policers and CoDel. */
function gridLinks(): Link[] {
  const grid: Link[] = []
  for (const mbits of [20, 100, 500]) {
    for (const rtt of [20, 50, 200]) {
      for (const products of [0.5, 1, 4, 20]) {
        const queue = Math.max(3, (products * mbits * rtt) / 8)
        grid.push(link(`${mbits}/${rtt}/${products}`, rtt, 0, mbits, queue))
      }
    }
  }
  for (const discipline of ['policer', 'codel', 'fq_codel'] as const) {
    for (const mbits of [20, 100]) {
      grid.push({ ...link(`${mbits}/50/${discipline}`, 50, 0, mbits, 10_000), discipline })
    }
  }
  return grid
}

function parseLink(text: string): Link {
  const [rtt, loss, mbits, queue, discipline] = text.split('/')
  const numbers = [rtt, loss, mbits ?? '1', queue ?? '1'].map(Number)
  const known = DISCIPLINES.find((name) => name === discipline)
  if (numbers.some((value) => !(value >= 0)) || (discipline !== undefined && known === undefined)) {
    throw new Error(`--link ${text}: expected RTT/LOSS[/MBITS/QUEUE_KB[/${DISCIPLINES.join('|')}]]`)
  }
  const [ms = 0, share = 0, rate, kilobytes] = numbers
  const shape = mbits === undefined ? link(text, ms, share) : link(text, ms, share, rate, kilobytes)
  return { ...shape, ...(known && { discipline: known }) }
}

const labelOf = ({ delay, loss, rate, queue, discipline }: Link): string => {
  const limit = rate === undefined ? '-' : `${rate / MBIT}, ${Math.round((queue ?? 0) / 1000)} KB`
  return `${delay * 2} / ${loss * 100} % / ${limit}${discipline === undefined ? '' : ` ${discipline}`}`
}

const CUBIC: Column = { name: 'TCP CUBIC', tcp: 'cubic' }
const BBR: Column = { name: 'TCP BBR', tcp: 'bbr' }
const PAIRS: readonly Pair[] = [
  { name: 'Node', client: 'node', server: 'node' },
  { name: 'Bun', client: 'bun', server: 'bun' },
  { name: 'libev', client: 'libev', server: 'libev' },
  { name: 'libev w256', client: 'libev', server: 'libev', clientKcp: tuned(256), serverKcp: tuned(256) },
]

interface Run {
  readonly mbits: number
  /** Share of the sender's packets that the queue dropped. */
  readonly tailDrops: number
  /** CPU of the tunnel's sender and receiver, us per full segment of payload. */
  readonly senderUs: number
  readonly receiverUs: number
  /** Echoes during the transfer, ms. */
  readonly echoes: readonly number[]
  readonly emulatorLoad: number
  readonly emulatorLate: number
  readonly failure?: string
}

/** One flow alone on a link. */
async function alone(
  column: Column,
  shape: Link,
  { direction, connections, seconds, seed, isEcho }: Setting,
): Promise<Run> {
  const network = await Network.open(shape, shape, seed)
  let flow: Flow | undefined
  try {
    flow = await network.flow(column)
    const cpu = network.emulatorCpu
    const began = performance.now()
    const before = await flow.progress()
    await flow.start(direction, connections)
    const echoes: number[] = []
    if (isEcho) {
      // the path is full when the echoes start
      await sleep(seconds * 250)
      echoes.push(...(await flow.echo(ECHO_EVERY_MS, (seconds * 750) / ECHO_EVERY_MS)))
    } else await sleep(seconds * 1000)
    const after = await flow.progress()
    const elapsed = (performance.now() - began) / 1000
    const counters = await network.counters()
    const emulatorLoad = (network.emulatorCpu - cpu) / elapsed
    const failure = await flow.close()
    flow = undefined
    const lane = counters[direction]
    const segments = (after.bytes - before.bytes) / SEGMENT_BYTES
    const clientUs = ((after.clientCpu - before.clientCpu) * 1e6) / segments
    const serverUs = ((after.serverCpu - before.serverCpu) * 1e6) / segments
    return {
      mbits: ((after.bytes - before.bytes) * 8) / elapsed / MBIT,
      tailDrops: lane.packets === 0 ? 0 : lane.overflowed / lane.packets,
      senderUs: direction === 'up' ? clientUs : serverUs,
      receiverUs: direction === 'up' ? serverUs : clientUs,
      echoes,
      emulatorLoad,
      emulatorLate: Math.max(counters.up.late, counters.down.late),
      ...(failure !== undefined && { failure }),
    }
  } finally {
    await flow?.close()
    await network.close()
  }
}

interface Setting {
  readonly direction: Direction
  readonly connections: number
  readonly seconds: number
  readonly seed: number
  readonly isEcho: boolean
}

interface Shares {
  /** Share of the column beside the neighbour, if it started first and if second. */
  readonly first: number
  readonly second: number
  /** Share of the rate that both used. */
  readonly used: number
}

/** One flow beside a kernel TCP flow. */
async function beside(
  column: Column,
  neighbour: Column,
  shape: Link,
  isFirst: boolean,
  { direction, connections, seconds, seed }: Setting,
): Promise<{ share: number; mbits: number; tailDrops: number }> {
  const network = await Network.open(shape, shape, seed)
  const flows: Flow[] = []
  try {
    const own = await network.flow(column)
    flows.push(own)
    const other = await network.flow(neighbour)
    flows.push(other)
    const [first, second] = isFirst ? [own, other] : [other, own]
    await first.start(direction, first === own ? connections : 1)
    await sleep(seconds * SECOND_FLOW * 1000)
    await second.start(direction, second === own ? connections : 1)
    await sleep(seconds * SECOND_FLOW * 1000)
    const read = async (): Promise<readonly number[]> => [
      performance.now(),
      (await own.progress()).bytes,
      (await other.progress()).bytes,
    ]
    const before = await read()
    await sleep(seconds * (1 - 2 * SECOND_FLOW) * 1000)
    const after = await read()
    const [ms = 0, mine = 0, theirs = 0] = after.map((value, i) => value - (before[i] ?? 0))
    const lane = (await network.counters())[direction]
    return {
      share: mine / (mine + theirs),
      mbits: ((mine + theirs) * 8) / ms / 1000,
      tailDrops: lane.packets === 0 ? 0 : lane.overflowed / lane.packets,
    }
  } finally {
    for (const flow of flows) {
      const failure = await flow.close()
      if (failure !== undefined) {
        process.exitCode = 1
        console.error(`FAILED: ${failure}`)
      }
    }
    await network.close()
  }
}

/** Problems of the measurement itself. */
function remarks(run: Run): string {
  const text = emulatorRemarks(run.emulatorLoad, run.emulatorLate)
  if (run.failure !== undefined) text.push(`FAILED: ${run.failure}`)
  return text.join('; ')
}

/** A Markdown table: a row a link, a column a contestant. */
function table(title: string, links: readonly Link[], columns: readonly Column[], cell: Cell): void {
  console.log(`\n${title} (${loadNow()})\n`)
  console.log(`| link | RTT ms / loss / Mbit/s, queue | ${columns.map(({ name }) => name).join(' | ')} |`)
  console.log(`|---|---|${columns.map(() => '---|').join('')}`)
  for (const shape of links) {
    const cells = columns.map((column) => cell(shape, column))
    console.log(`| ${shape.name} | ${labelOf(shape)} | ${cells.join(' | ')} |`)
  }
}

type Cell = (link: Link, column: Column) => string

interface Plan {
  readonly links: readonly Link[]
  readonly columns: readonly Column[]
  readonly runs: number
  readonly setting: Omit<Setting, 'seed'>
  readonly seed: number
}

/** Runs `alone` for every link and column. */
async function runAlone(title: string, { links, columns, runs, setting, seed }: Plan): Promise<object[]> {
  const all: { link: string; column: string; runs: Run[] }[] = []
  for (let run = 0; run < runs; run++) {
    for (const shape of links) {
      for (const column of columns) {
        const result = await alone(column, shape, { ...setting, seed: seed + run })
        if (result.failure !== undefined) process.exitCode = 1
        let row = all.find((one) => one.link === shape.name && one.column === column.name)
        if (row === undefined) {
          row = { link: shape.name, column: column.name, runs: [] }
          all.push(row)
        }
        row.runs.push(result)
        const what = `${shape.name.padEnd(12)}${column.name.padEnd(12)}${setting.direction}`
        console.error(`run ${run + 1}/${runs} ${what} ${show(result.mbits).padStart(7)} Mbit/s  ${remarks(result)}`)
      }
    }
  }
  const of = (shape: Link, column: Column, figure: (run: Run) => number): number =>
    median(all.find((row) => row.link === shape.name && row.column === column.name)?.runs.map(figure) ?? [])
  const tunnels = columns.filter((column) => 'pair' in column)
  if (setting.isEcho) {
    table(`${title}, echo of 64 bytes meanwhile, p50 / p99 ms`, links, columns, (shape, column) => {
      const p50 = of(shape, column, ({ echoes }) => quantile(echoes, 0.5))
      return `${show(p50)} / ${show(of(shape, column, ({ echoes }) => quantile(echoes, 0.99)))}`
    })
    return all
  }
  table(`${title}, Mbit/s (tail drops)`, links, columns, (shape, column) => {
    const drops = of(shape, column, ({ tailDrops }) => tailDrops)
    const rate = show(of(shape, column, ({ mbits }) => mbits))
    return drops === 0 ? rate : `${rate} (${(drops * 100).toFixed(1)} %)`
  })
  table(`${title}, CPU of sender / receiver, us per ${SEGMENT_BYTES} bytes`, links, tunnels, (shape, column) => {
    const us = (figure: (run: Run) => number): string => of(shape, column, figure).toFixed(1)
    return `${us(({ senderUs }) => senderUs)} / ${us(({ receiverUs }) => receiverUs)}`
  })
  return all
}

/** Runs `beside` for every link, neighbour and column, in both start orders. */
async function runBeside(title: string, { links, columns, runs, setting, seed }: Plan): Promise<object[]> {
  const all: { neighbour: string; link: string; column: string; runs: (Shares & { tailDrops: number })[] }[] = []
  for (const neighbour of [CUBIC, BBR]) {
    const compared = columns.filter(({ name }) => name !== CUBIC.name && name !== 'libev')
    for (let run = 0; run < runs; run++) {
      for (const shape of links) {
        for (const column of compared) {
          const options = { ...setting, seed: seed + run }
          const first = await beside(column, neighbour, shape, true, options)
          const second = await beside(column, neighbour, shape, false, options)
          const used = shape.rate === undefined ? Number.NaN : ((first.mbits + second.mbits) * MBIT) / 2 / shape.rate
          const tailDrops = (first.tailDrops + second.tailDrops) / 2
          const result = { first: first.share, second: second.share, used, tailDrops }
          let row = all.find(
            (one) => one.neighbour === neighbour.name && one.link === shape.name && one.column === column.name,
          )
          if (row === undefined) {
            row = { neighbour: neighbour.name, link: shape.name, column: column.name, runs: [] }
            all.push(row)
          }
          row.runs.push(result)
          const shares = `${result.first.toFixed(2)} first, ${result.second.toFixed(2)} second`
          console.error(
            `run ${run + 1}/${runs} ${shape.name.padEnd(16)}${column.name.padEnd(12)}beside ${neighbour.name}: ${shares}`,
          )
        }
      }
    }
    table(
      `${title}, share beside ${neighbour.name}: started first, second (rate used by both; tail drops)`,
      links,
      compared,
      (shape, column) => {
        const row = all.find(
          (one) => one.neighbour === neighbour.name && one.link === shape.name && one.column === column.name,
        )
        const of = (figure: (run: Shares & { tailDrops: number }) => number): number =>
          median(row?.runs.map(figure) ?? [])
        const shares = `${of(({ first }) => first).toFixed(2)}, ${of(({ second }) => second).toFixed(2)}`
        return `${shares} (${of(({ used }) => used).toFixed(2)}; ${(of(({ tailDrops }) => tailDrops) * 100).toFixed(1)} %)`
      },
    )
  }
  return all
}

/** Runs the parts requested by the arguments. */
export async function benchIp(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      parts: { type: 'string', default: 'alone,several,echo,beside' },
      only: { type: 'string' },
      link: { type: 'string', multiple: true },
      grid: { type: 'boolean', default: false },
      match: { type: 'string', default: '' },
      direction: { type: 'string' },
      seconds: { type: 'string' },
      runs: { type: 'string' },
      seed: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  if (netnsProblem !== undefined) {
    console.error(`bench ip cannot run here: ${netnsProblem}`)
    process.exitCode = 1
    return
  }
  const { quick } = values
  const names = values.only?.split(',')
  const named = values.link?.map(parseLink) ?? LINKS.filter(({ name }) => names?.includes(name) ?? true)
  const pattern = new RegExp(values.match)
  const columns: Column[] = [CUBIC, BBR, ...present(PAIRS).map((pair) => ({ name: pair.name, pair }))]
  const plan = (links: readonly Link[], direction: Direction, connections = 1, isEcho = false): Plan => ({
    links,
    columns: columns.filter(({ name }) => pattern.test(name)),
    runs: positive('runs', values.runs, 1),
    seed: positive('seed', values.seed, 1),
    setting: { direction, connections, isEcho, seconds: positive('seconds', values.seconds, quick ? 2 : SECONDS) },
  })
  const limited = (some: readonly string[]): readonly Link[] =>
    values.link === undefined ? named.filter(({ name }) => names !== undefined || some.includes(name)) : named
  const directions = (['up', 'down'] as const).filter(
    (one) => values.direction === undefined || values.direction === one,
  )
  const parts = values.parts.split(',')
  allowControls(['cubic', 'bbr'])
  const on = await machine()
  const calibration = calibrate(METHOD)
  console.log(`${describe(on)}\n${describeCalibration(calibration)}`)
  const results: Record<string, object[]> = {}
  for (const direction of directions) {
    const load = direction === 'up' ? 'upload' : 'download'
    if (parts.includes('alone')) results[`alone ${direction}`] = await runAlone(load, plan(named, direction))
    if (parts.includes('several')) {
      const title = `${load} over ${CONNECTIONS} connections`
      results[`several ${direction}`] = await runAlone(title, plan(named, direction, CONNECTIONS))
    }
    if (parts.includes('echo')) {
      results[`echo ${direction}`] = await runAlone(load, plan(limited(ECHO_LINKS), direction, 1, true))
    }
    if (parts.includes('beside') && (direction === 'up' || values.direction !== undefined)) {
      const shared = values.grid ? gridLinks() : limited(BESIDE_LINKS)
      const wanted = plan(shared, direction)
      const seconds = positive('seconds', values.seconds, quick ? 5 : BESIDE_SECONDS)
      results[`beside ${direction}`] = await runBeside(load, { ...wanted, setting: { ...wanted.setting, seconds } })
    }
  }
  writeJson(values.json, { bench: 'ip', machine: on, calibration, links: named, results })
}
