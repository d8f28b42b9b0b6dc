/**
 * `bench paths`: real processes on links that misbehave otherwise than by independent loss: every datagram twice, reordering
 * with jitter, loss in bursts, and a slow line of different rates that is full in both directions. The fast and the
 * portable UDP path of both runtimes beside kcptun-libev, in one run.
 *
 *   --only NAMES   links by name, separated by commas     --seconds N   length of a transfer (default 12)
 *   --match REGEX  columns whose name matches             --runs N      medians of N interleaved runs (default 1)
 */
import { parseArgs } from 'node:util'
import { download, openTarget, pour, type Target } from '../testkit/flow.ts'
import { type Link, type LinkShape, openLink } from '../testkit/link.ts'
import { type Config, freePort } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'
import { describe, machine, median, type Pair, present, startPair, tuned } from './peers.ts'

const MBIT = 1e6
/** The flows find their rate before they count, ms. */
const WARM_UP_MS = 3000

interface Case {
  readonly name: string
  readonly label: string
  readonly up: LinkShape
  readonly down: LinkShape
  /** Upload and download at once, instead of one after the other. */
  readonly isBoth?: boolean
}

const both = (name: string, label: string, shape: LinkShape): Case => ({ name, label, up: shape, down: shape })
const line = { delay: 20, rate: 50 * MBIT, queue: 256_000 }

const CASES: readonly Case[] = [
  both('twice', 'every datagram twice', { ...line, duplicate: 1 }),
  both('reorder', '10 % overtaken, jitter 10 ms', { ...line, jitter: 10, reorder: 0.1, reorderDelay: 15 }),
  both('bursts', '10 % lost, in bursts of 8', { ...line, loss: 0.1, burst: 8 }),
  {
    ...{ name: 'line', label: '5 up, 100 down Mbit/s, both full', isBoth: true },
    up: { delay: 15, rate: 5 * MBIT, queue: 64_000 },
    down: { delay: 15, rate: 100 * MBIT, queue: 512_000 },
  },
]

interface Column extends Pair {
  readonly config?: Config
}

const ours = (program: 'node' | 'bun', path: 'fast' | 'portable'): Column => ({
  ...{ name: `${program} ${path}`, client: program, server: program },
  config: { udp: { path } },
})
const COLUMNS: readonly Column[] = [
  ours('node', 'fast'),
  ours('node', 'portable'),
  ours('bun', 'fast'),
  ours('bun', 'portable'),
  { name: 'libev', client: 'libev', server: 'libev' },
  { name: 'libev w256', client: 'libev', server: 'libev', clientKcp: tuned(256), serverKcp: tuned(256) },
]

/** Goodput in Mbit/s; NaN with a failure. */
interface Figures {
  readonly up: number
  readonly down: number
  readonly failure?: string
}

/** Rate of a growing count over `seconds`, after the warm-up. */
async function rateOf(count: () => number, seconds: number): Promise<number> {
  await sleep(WARM_UP_MS)
  const [from, began] = [count(), performance.now()]
  await sleep(seconds * 1000)
  return ((count() - from) * 8) / ((performance.now() - began) / 1000) / MBIT
}

async function transfer(port: number, target: Target, seconds: number, isBoth: boolean): Promise<Figures> {
  const failures: string[] = []
  const upload = async (): Promise<number> => {
    const flow = pour(port)
    const rate = await rateOf(() => target.discarded, seconds)
    failures.push(flow.failed() ?? '')
    flow.stop()
    return rate
  }
  const fetch = async (): Promise<number> => {
    const flow = download(port)
    const rate = await rateOf(() => flow.received(), seconds)
    failures.push(flow.failed() ?? '')
    flow.stop()
    return rate
  }
  const [up, down] = isBoth ? await Promise.all([upload(), fetch()]) : [await upload(), await fetch()]
  const failure = failures.find((text) => text !== '')
  return { up, down, ...(failure !== undefined && { failure }) }
}

async function measure(column: Column, one: Case, seconds: number): Promise<Figures> {
  const target = await openTarget()
  const udpPort = await freePort()
  const link: Link = await openLink({ up: one.up, down: one.down, target: { host: '127.0.0.1', port: udpPort } })
  try {
    const { config = {} } = column
    const ends = await startPair(column, { target: target.port, udpPort, via: link.port, config })
    try {
      const figures = await transfer(ends.port, target, seconds, one.isBoth ?? false)
      const failure = figures.failure ?? ends.failure()
      return failure === undefined ? figures : { ...figures, failure }
    } finally {
      await ends.close()
    }
  } finally {
    await link.close()
    await target.close()
  }
}

/** Runs the parts requested by the arguments. */
export async function benchPaths(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      match: { type: 'string', default: '' },
      seconds: { type: 'string', default: '12' },
      runs: { type: 'string', default: '1' },
    },
  })
  const [seconds, runs] = [Number(values.seconds), Number(values.runs)]
  const names = values.only?.split(',')
  const columns = present(COLUMNS).filter(({ name }) => new RegExp(values.match).test(name))
  console.log(`paths: ${describe(await machine())}; ${seconds} s, goodput up / down in Mbit/s, median of ${runs}`)
  for (const one of CASES.filter(({ name }) => names?.includes(name) ?? true)) {
    console.log(`\n${one.label}`)
    const results = columns.map((): Figures[] => [])
    for (let run = 0; run < runs; run++) {
      for (const [i, column] of columns.entries()) results[i]?.push(await measure(column as Column, one, seconds))
    }
    for (const [i, { name }] of columns.entries()) {
      const figures = results[i] ?? []
      const of = (key: 'up' | 'down'): string => median(figures.map((run) => run[key])).toFixed(1)
      const failure = figures.find((run) => run.failure !== undefined)?.failure
      const text = `  ${name.padEnd(14)} ${of('up').padStart(7)} / ${of('down').padStart(6)}`
      console.log(failure === undefined ? text : `${text}  FAILED: ${failure}`)
    }
  }
}
