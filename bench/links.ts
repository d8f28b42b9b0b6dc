/**
 * `bench links`: real processes over emulated links: kcptun-wasm, and kcptun-libev and the Go kcptun if available,
 * interleaved in one run.
 *
 *   --only NAMES    links by name, separated by commas        --quick         2 s uploads (sat 8 s), 4 s echoes
 *   --match REGEX   columns whose name matches                --runs N        medians of N interleaved runs (default 1)
 *   --full          kcptun-libev with tuned windows of 1024   --mixed         Node to Bun and Bun to Node
 *                   and 4096 too, and its best of three       --seconds N     length of an upload
 *   --skip PARTS    of upload, echo, open                     --seed N        for the losses of the links
 *   --json FILE     all figures as JSON                       --trace         rate of an upload in each second, and
 *                                                             the load of the emulator
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { type Emulator, startEmulator } from '../testkit/emulator.ts'
import type { EmulatedShape, LaneCounters } from '../testkit/fast-link.ts'
import { echo, openAndFirstByte, openTarget, pour, type Target } from '../testkit/flow.ts'
import { freePort } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'
import {
  cpuSeconds,
  describe,
  type Ends,
  machine,
  median,
  type Pair,
  present,
  quantile,
  socketDrops,
  startPair,
  tuned,
} from './peers.ts'
import { emulatorRemarks, show } from './series.ts'

const MBIT = 1e6
const UPLOAD_SECONDS = 8
const LONG_UPLOAD_SECONDS = 30
const QUICK_SECONDS = 2
const QUICK_LONG_SECONDS = 8
const ECHO_EVERY_MS = 20
const ECHO_SECONDS = 16
const QUICK_ECHO_SECONDS = 4
/** Messages that establish the path before echoes count. */
const ECHO_WARM_UP = 50
const OPENS = 10

interface Link extends EmulatedShape {
  readonly name: string
  /** Minimum rate of untuned kcptun-wasm, Mbit/s. */
  readonly target: number
  readonly long?: boolean
  /** Description for the table. */
  readonly label: string
}

const access = { rate: 20 * MBIT, queue: 64_000 }

/** The links of the table: RTT, loss in each direction, bottleneck. */
const LINKS: readonly Link[] = [
  { name: 'wan', delay: 25, loss: 0, target: 300, label: '50 / 0 / -' },
  { name: 'lossy', delay: 25, loss: 0.02, target: 200, label: '50 / 2 % / -' },
  { name: 'bad', delay: 25, loss: 0.1, target: 100, label: '50 / 10 % / -' },
  { name: 'long', delay: 100, loss: 0, target: 100, label: '200 / 0 / -' },
  { name: 'longlossy', delay: 100, loss: 0.02, target: 60, label: '200 / 2 % / -' },
  { name: 'access', delay: 25, loss: 0, ...access, target: 18, label: '50 / 0 / 20 Mbit/s, 64 KB' },
  { name: 'accesslossy', delay: 25, loss: 0.02, ...access, target: 17.5, label: '50 / 2 % / 20 Mbit/s, 64 KB' },
  {
    name: 'sat',
    delay: 300,
    loss: 0.01,
    rate: 50 * MBIT,
    queue: 512_000,
    target: 36,
    long: true,
    label: '600 / 1 % / 50 Mbit/s, 512 KB',
  },
]
const ECHO_LINKS = ['lossy', 'bad']
const OPEN_LINKS = ['wan', 'long']

const WINDOW_256 = { sndwnd: 256, rcvwnd: 256 }
const tunedPair = (window: number): Pair => ({
  name: `libev w${window}`,
  client: 'libev',
  server: 'libev',
  clientKcp: tuned(window),
  serverKcp: tuned(window),
})
/** kcptun-libev at its default and with the commonly recommended window: the references of ratios. */
const DEFAULT = 'libev'
const TUNED = 'libev w256'
const BEST_OF = ['libev w256', 'libev w1024', 'libev w4096']

function pairsOf(full: boolean, mixed: boolean): Pair[] {
  return [
    { name: 'node', client: 'node', server: 'node' },
    { name: 'bun', client: 'bun', server: 'bun' },
    ...(mixed
      ? ([
          { name: 'node>bun', client: 'node', server: 'bun' },
          { name: 'bun>node', client: 'bun', server: 'node' },
        ] as const)
      : []),
    { name: 'node w256', client: 'node', server: 'node', clientKcp: WINDOW_256, serverKcp: WINDOW_256 },
    { name: DEFAULT, client: 'libev', server: 'libev' },
    tunedPair(256),
    ...(full ? [tunedPair(1024), tunedPair(4096)] : []),
    { name: 'node>libev', client: 'node', server: 'libev' },
    { name: 'libev>node', client: 'libev', server: 'node' },
    { name: 'go', client: 'go', server: 'go' },
  ]
}

interface Upload {
  readonly mbits: number
  /** Payload received per byte that the sender put on the link. */
  readonly efficiency: number
  /** Share of the sender's datagrams that the queue dropped. */
  readonly tailDrops: number
  /** Datagrams that the kernel dropped at full UDP sockets of the endpoints and of the emulator. */
  readonly clientDrops: number
  readonly serverDrops: number
  readonly emulatorDrops: number
  /** Load of the emulator as a share of a core, and its longest delay beyond the due time, ms. */
  readonly emulatorLoad: number
  readonly emulatorLate: number
  readonly emulator: Emulator['kind']
  readonly perSecond: readonly number[]
  readonly failure?: string
}

interface Setting {
  readonly target: Target
  readonly seed: number
}

/** Runs `body` with a pair connected over a link. */
async function over<T>(
  pair: Pair,
  link: EmulatedShape,
  { target, seed }: Setting,
  body: (ends: Ends, emulator: Emulator, udpPort: number) => Promise<T>,
): Promise<T> {
  const udpPort = await freePort()
  const { delay, loss, rate, queue } = link
  const limit = rate === undefined || queue === undefined ? {} : { rate, queue }
  const emulator = await startEmulator({ delay, loss, ...limit, target: udpPort, seed })
  try {
    const ends = await startPair(pair, { target: target.port, udpPort, via: emulator.port })
    try {
      return await body(ends, emulator, udpPort)
    } finally {
      await ends.close()
    }
  } finally {
    await emulator.close()
  }
}

function upload(pair: Pair, link: EmulatedShape, seconds: number, setting: Setting): Promise<Upload> {
  return over(pair, link, setting, async (ends, emulator, udpPort) => {
    const { target } = setting
    const before = target.discarded
    const cpu = cpuSeconds(emulator.pid)
    const began = performance.now()
    const flow = pour(ends.port)
    const perSecond: number[] = []
    let last = before
    for (let second = 1; second <= Math.ceil(seconds); second++) {
      await sleep(Math.max(0, began + Math.min(second, seconds) * 1000 - performance.now()))
      perSecond.push(((target.discarded - last) * 8) / MBIT)
      last = target.discarded
    }
    // read together: bytes received, time, and bytes sent for them
    const arrived = target.discarded - before
    const elapsed = (performance.now() - began) / 1000
    const counters = await emulator.counters()
    const load = (cpuSeconds(emulator.pid) - cpu) / elapsed
    const clientDrops = socketDrops(counters.clientPort)
    const serverDrops = socketDrops(udpPort)
    const emulatorDrops = socketDrops(emulator.port) + socketDrops(emulator.upstreamPort)
    const failure = flow.failed() ?? ends.failure()
    flow.stop()
    const share = (lane: LaneCounters): number => (lane.packets === 0 ? 0 : lane.overflowed / lane.packets)
    return {
      mbits: (arrived * 8) / elapsed / MBIT,
      efficiency: counters.up.bytes === 0 ? Number.NaN : arrived / counters.up.bytes,
      tailDrops: share(counters.up),
      clientDrops,
      serverDrops,
      emulator: emulator.kind,
      emulatorDrops,
      emulatorLoad: load,
      emulatorLate: Math.max(counters.up.late, counters.down.late),
      perSecond,
      ...(failure !== undefined && { failure }),
    }
  })
}

interface Row {
  readonly link: string
  readonly column: string
  readonly runs: Upload[]
}

const middle = (row: Row, of: (run: Upload) => number): number => median(row.runs.map(of))
const mbitsOf = (row: Row | undefined): number => (row === undefined ? Number.NaN : middle(row, (run) => run.mbits))

const ratio = (value: number, to: number): string => (to > 0 ? `${show(value / to, 2)}x` : '-')

const emulation = ({ emulatorLoad, emulatorLate }: Upload): string =>
  `emulator ${Math.round(emulatorLoad * 100)} % of a core, up to ${emulatorLate.toFixed(1)} ms late`

/** Problems of the measurement itself. */
function remarks(row: Row): string {
  const text: string[] = []
  const worst = (of: (run: Upload) => number): number => Math.max(...row.runs.map(of))
  const drops = worst((run) => run.emulatorDrops)
  const load = worst((run) => run.emulatorLoad)
  const late = worst((run) => run.emulatorLate)
  if (row.runs.some((run) => run.emulator === 'dgram')) text.push('portable emulator')
  if (drops > 0) text.push(`EMULATOR LIMIT: lost ${drops} datagrams itself`)
  text.push(...emulatorRemarks(load, late))
  const [client, server] = [middle(row, (run) => run.clientDrops), middle(row, (run) => run.serverDrops)]
  if (client + server > 0) text.push(`full UDP sockets: client lost ${client}, server ${server} datagrams`)
  const failure = row.runs.find((run) => run.failure !== undefined)?.failure
  if (failure !== undefined) text.push(`FAILED: ${failure}`)
  return text.join('; ')
}

/** Runs the parts requested by the arguments. */
export async function benchLinks(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      match: { type: 'string' },
      quick: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      mixed: { type: 'boolean', default: false },
      trace: { type: 'boolean', default: false },
      runs: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      seconds: { type: 'string' },
      skip: { type: 'string', default: '' },
      json: { type: 'string' },
    },
  })
  const runs = positive('--runs', values.runs)
  const seed = positive('--seed', values.seed)
  const names = values.only?.split(',')
  const unknown = names?.find((name) => !LINKS.some((link) => link.name === name))
  if (unknown !== undefined) throw new Error(`--only ${unknown}: expected ${LINKS.map(({ name }) => name).join(', ')}`)
  const links = LINKS.filter(({ name }) => names?.includes(name) ?? true)
  const pattern = new RegExp(values.match ?? '')
  const pairs = present(pairsOf(values.full, values.mixed)).filter(({ name }) => pattern.test(name))
  const skipped = values.skip.split(',')
  const secondsOf = (link: Link): number => {
    if (values.seconds !== undefined) return positive('--seconds', values.seconds)
    if (values.quick) return link.long ? QUICK_LONG_SECONDS : QUICK_SECONDS
    return link.long ? LONG_UPLOAD_SECONDS : UPLOAD_SECONDS
  }

  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const rows: Row[] = []
  if (!skipped.includes('upload')) {
    for (let run = 0; run < runs; run++) {
      for (const link of links) {
        for (const pair of pairs) {
          const result = await upload(pair, link, secondsOf(link), { target, seed: seed + run })
          let row = rows.find((other) => other.link === link.name && other.column === pair.name)
          if (row === undefined) {
            row = { link: link.name, column: pair.name, runs: [] }
            rows.push(row)
          }
          row.runs.push(result)
          if (result.failure !== undefined) process.exitCode = 1
          const what = `run ${run + 1}/${runs} ${link.name.padEnd(12)}${pair.name.padEnd(12)}`
          console.error(`${what}${show(result.mbits).padStart(7)} Mbit/s  ${remarks({ ...row, runs: [result] })}`)
          if (values.trace)
            console.error(`    ${result.perSecond.map((rate) => show(rate)).join(' ')}; ${emulation(result)}`)
        }
      }
    }
    showUploads(links, rows, secondsOf)
    showTable(links, rows, pairs)
  }
  const only = (some: readonly string[]): Link[] => links.filter(({ name }) => some.includes(name))
  const echoSeconds = values.quick ? QUICK_ECHO_SECONDS : ECHO_SECONDS
  const echoes = skipped.includes('echo')
    ? []
    : await echoTable(only(ECHO_LINKS), pairs, runs, echoSeconds, { target, seed })
  const opens = skipped.includes('open') ? [] : await openTable(only(OPEN_LINKS), pairs, { target, seed })
  await target.close()
  if (values.json !== undefined) {
    const shapes = links.map((link) => ({ ...link, seconds: secondsOf(link) }))
    const all = { bench: 'links', machine: on, runs, seed, links: shapes, pairs, uploads: rows, echoes, opens }
    writeFileSync(values.json, `${JSON.stringify(all, undefined, 1)}\n`)
  }
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${name} ${text}: expected a number above 0`)
  return value
}

/** Prints every figure, one line each. */
function showUploads(links: readonly Link[], rows: readonly Row[], secondsOf: (link: Link) => number): void {
  console.log(
    '\nupload; * = untuned kcptun-wasm missed the target; x default, x w256, x best: ratio to kcptun-libev in this run',
  )
  for (const link of links) {
    const own = rows.filter((row) => row.link === link.name)
    const of = (column: string): number => mbitsOf(own.find((row) => row.column === column))
    const best = Math.max(...BEST_OF.map(of).filter((rate) => !Number.isNaN(rate)), 0)
    console.log(`\n${link.name}: ${link.label}, ${secondsOf(link)} s, target ${link.target} Mbit/s untuned`)
    console.log('              Mbit/s  payload/sent  tail drops  x default   x w256   x best')
    for (const row of own) {
      const rate = mbitsOf(row)
      const missed = (row.column === 'node' || row.column === 'bun') && rate < link.target ? '*' : ' '
      console.log(
        [
          `  ${row.column.padEnd(11)}`,
          `${show(rate)}${missed}`.padStart(8),
          middle(row, (run) => run.efficiency)
            .toFixed(2)
            .padStart(13),
          `${(middle(row, (run) => run.tailDrops) * 100).toFixed(1)} %`.padStart(11),
          ratio(rate, of(DEFAULT)).padStart(10),
          ratio(rate, of(TUNED)).padStart(8),
          ratio(rate, best).padStart(8),
          `  ${remarks(row)}`,
        ].join(' '),
      )
    }
  }
}

/** Prints the rates as a Markdown table for docs/performance.md. */
function showTable(links: readonly Link[], rows: readonly Row[], pairs: readonly Pair[]): void {
  console.log(`\n| link | RTT ms / loss / bottleneck | ${pairs.map(({ name }) => name).join(' | ')} |`)
  console.log(`|---|---|${pairs.map(() => '---|').join('')}`)
  for (const link of links) {
    const cells = pairs.map((pair) => {
      const row = rows.find((other) => other.link === link.name && other.column === pair.name)
      if (row === undefined) return ''
      return `${show(mbitsOf(row))} (${middle(row, (run) => run.efficiency).toFixed(2)})`
    })
    console.log(`| ${link.name} | ${link.label} | ${cells.join(' | ')} |`)
  }
  console.log('\nMbit/s (payload/sent)')
}

interface Echoes {
  readonly link: string
  readonly column: string
  p50: number
  p99: number
  lost: number
}

/** Echo of 64 bytes every 20 ms; medians of the runs' quantiles. */
async function echoTable(
  links: readonly Link[],
  pairs: readonly Pair[],
  runs: number,
  seconds: number,
  setting: Setting,
): Promise<Echoes[]> {
  if (links.length === 0) return []
  const figures = new Map<string, { p50: number[]; p99: number[]; lost: number }>()
  for (let run = 0; run < runs; run++) {
    for (const link of links) {
      for (const pair of pairs) {
        const { times, lost } = await over(pair, link, { ...setting, seed: setting.seed + run }, (ends) =>
          echo(ends.port, ECHO_EVERY_MS, (seconds * 1000) / ECHO_EVERY_MS, ECHO_WARM_UP),
        )
        const key = `${link.name}|${pair.name}`
        const entry = figures.get(key) ?? { p50: [], p99: [], lost: 0 }
        entry.p50.push(quantile(times, 0.5))
        entry.p99.push(quantile(times, 0.99))
        entry.lost += lost
        figures.set(key, entry)
      }
    }
  }
  console.log(`\necho of 64 bytes every ${ECHO_EVERY_MS} ms for ${seconds} s, ms`)
  console.log('                              p50      p99')
  return [...figures].map(([key, { p50, p99, lost }]) => {
    const [link = '', column = ''] = key.split('|')
    const result = { link, column, p50: median(p50), p99: median(p99), lost }
    const gone = lost > 0 ? `  ${lost} WITHOUT ANSWER` : ''
    const name = `  ${link.padEnd(13)}${column.padEnd(12)}`
    console.log(`${name}${result.p50.toFixed(1).padStart(7)}${result.p99.toFixed(1).padStart(9)}${gone}`)
    return result
  })
}

interface Opens {
  readonly link: string
  readonly column: string
  readonly median: number
  readonly max: number
}

/** Time to connect and echo 64 bytes, minus the round trip. */
async function openTable(links: readonly Link[], pairs: readonly Pair[], setting: Setting): Promise<Opens[]> {
  if (links.length === 0) return []
  console.log(`\nopen + first byte minus RTT, ms, of ${OPENS} consecutive connections`)
  console.log('                           median      max')
  const results: Opens[] = []
  for (const link of links) {
    for (const pair of pairs) {
      const extra = await over(pair, link, setting, async (ends) => {
        const times: number[] = []
        // the first connection also resolves and finds the server
        if (Number.isNaN(await openAndFirstByte(ends.port))) return [Number.NaN]
        for (let i = 0; i < OPENS; i++) times.push((await openAndFirstByte(ends.port)) - 2 * link.delay)
        return times
      })
      const result = { link: link.name, column: pair.name, median: median(extra), max: Math.max(...extra) }
      results.push(result)
      const name = `  ${link.name.padEnd(13)}${pair.name.padEnd(12)}`
      console.log(`${name}${result.median.toFixed(1).padStart(7)}${result.max.toFixed(1).padStart(9)}`)
    }
  }
  return results
}
