/**
 * `bench loopback`: goodput of uploads and downloads, and CPU seconds per GiB at each endpoint, without a link between
 * them. `bench latency`: echo over loopback, startup time until the listener accepts, resident memory of idle
 * endpoints. All implementations found, interleaved in one run.
 *
 *   --runs N         medians of N interleaved runs (default 3)    --match REGEX   columns whose name matches
 *   --seconds N      of an upload (default 5)                     --json FILE     all figures as JSON
 *   --method NAME    encryption (default xchacha20poly1305_ietf; the Go kcptun keeps its own)
 *   --messages N     of an echo (default 1000)                    --quick         one short run
 *   --only NAME      upload or download alone (loopback)
 */
import { parseArgs } from 'node:util'
import { describeCalibration } from '../testkit/calibration.ts'
import { download, echo, openTarget, pour, type Target } from '../testkit/flow.ts'
import { commandOf, freePort } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'
import { calibrate, loadNow } from './calibration.ts'
import {
  type Contestant,
  describe,
  type Ends,
  METHOD,
  machine,
  median,
  missing,
  type Pair,
  present,
  quantile,
  residentBytes,
  socketDrops,
  startPair,
  timeToServe,
} from './peers.ts'
import { startPlainHop } from './plain-hop.ts'
import { interleaved, middle, positive, type Series, writeJson } from './series.ts'
import { measure, type Transfer, table } from './transfer.ts'

const MIB = 2 ** 20
const SECONDS = 5
const RUNS = 3
const MESSAGES = 1000
const ECHO_EVERY_MS = 5
const ECHO_WARM_UP = 300
/** Time without traffic after which an endpoint counts as idle. */
const SETTLE_MS = 2000
const STARTS = 7

/** kcptun-libev at its fastest on loopback, and kcptun-wasm with the same keys. */
const KCP = { sndwnd: 256, rcvwnd: 256, flush: 2 }
const REFERENCE = 'libev w256'
/** Without the search for larger packets. */
const MTU = { mtu: 1400 }
const PAIRS: readonly Pair[] = [
  { name: 'node', client: 'node', server: 'node' },
  { name: 'bun', client: 'bun', server: 'bun' },
  { name: 'deno', client: 'deno', server: 'deno' },
  { name: 'node mtu 1400', client: 'node', server: 'node', clientKcp: MTU, serverKcp: MTU },
  { name: 'bun mtu 1400', client: 'bun', server: 'bun', clientKcp: MTU, serverKcp: MTU },
  { name: 'node portable', client: 'node', server: 'node', udpMode: 'portable' },
  { name: 'deno portable', client: 'deno', server: 'deno', udpMode: 'portable' },
  { name: 'node sodium-native', client: 'node sodium-native', server: 'node sodium-native' },
  { name: 'bun sodium-native', client: 'bun sodium-native', server: 'bun sodium-native' },
  { name: 'node wrappers', client: 'node wrappers', server: 'node wrappers' },
  { name: 'bun wrappers', client: 'bun wrappers', server: 'bun wrappers' },
  { name: 'native', client: 'native', server: 'native' },
  { name: 'node w256', client: 'node', server: 'node', clientKcp: KCP, serverKcp: KCP },
  { name: 'bun w256', client: 'bun', server: 'bun', clientKcp: KCP, serverKcp: KCP },
  { name: REFERENCE, client: 'libev', server: 'libev', clientKcp: KCP, serverKcp: KCP },
  { name: 'go', client: 'go', server: 'go' },
]
const CONTESTANTS: readonly Contestant[] = ['node', 'bun', 'deno', 'native', 'libev', 'go']

const DIRECTIONS = ['upload', 'download'] as const
type Direction = (typeof DIRECTIONS)[number]

interface Options {
  readonly runs: number
  readonly seconds: number
  readonly messages: number
  readonly method: string
  readonly pairs: readonly Pair[]
  readonly directions: readonly Direction[]
  readonly quick: boolean
  readonly pattern: RegExp
  readonly json: string | undefined
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      seconds: { type: 'string' },
      messages: { type: 'string' },
      method: { type: 'string', default: METHOD },
      match: { type: 'string', default: '' },
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const { quick } = values
  const pattern = new RegExp(values.match)
  return {
    runs: positive('runs', values.runs, quick ? 1 : RUNS),
    seconds: positive('seconds', values.seconds, quick ? 1 : SECONDS),
    messages: positive('messages', values.messages, quick ? 200 : MESSAGES),
    method: values.method,
    directions: DIRECTIONS.filter((name) => values.only === undefined || values.only === name),
    pairs: present(PAIRS).filter(({ name }) => pattern.test(name)),
    quick,
    pattern,
    json: values.json,
  }
}

async function between<T>(
  pair: Pair,
  target: Target,
  method: string,
  body: (ends: Ends, udpPort: number) => Promise<T>,
): Promise<T> {
  const udpPort = await freePort()
  const ends = await startPair(pair, { target: target.port, udpPort, method })
  try {
    return await body(ends, udpPort)
  } finally {
    await ends.close()
  }
}

function transfer(pair: Pair, direction: Direction, target: Target, options: Options): Promise<Transfer> {
  return between(pair, target, options.method, (ends, udpPort) => {
    const makers = [process.pid]
    if (direction === 'upload') {
      const flow = pour(ends.port)
      const stop = (): string | undefined => {
        flow.stop()
        return flow.failed()
      }
      const drops = (): number => socketDrops(udpPort)
      return measure(ends, { bytes: () => target.discarded, stop, makers, drops }, options.seconds)
    }
    const flow = download(ends.port)
    const stop = (): string | undefined => {
      flow.stop()
      return flow.failed()
    }
    const drops = (): number => socketDrops(udpPort, true)
    return measure(ends, { bytes: () => flow.received(), stop, makers, drops }, options.seconds)
  })
}

/** `bench loopback`. */
export async function benchLoopback(args: readonly string[]): Promise<void> {
  const options = optionsOf(args)
  const on = await machine()
  const calibration = calibrate(options.method)
  console.log(`${describe(on)}\n${describeCalibration(calibration)}`)
  const target = await openTarget()
  const pairOf = new Map(options.pairs.map((pair) => [pair.name, pair]))
  const results: { readonly direction: Direction; readonly series: readonly Series<Transfer>[] }[] = []
  for (const direction of options.directions) {
    const series = await interleaved([...pairOf.keys()], options.runs, (column) => {
      const pair = pairOf.get(column)
      if (pair === undefined) throw new Error(column)
      return transfer(pair, direction, target, options)
    })
    results.push({ direction, series })
    const sends = direction === 'upload' ? 'client' : 'server'
    console.log(
      `\n${direction} over loopback (the ${sends} sends), ${options.method}, medians of ${options.runs} runs of`,
    )
    console.log(`${options.seconds} s (w256: sndwnd and rcvwnd 256, flush 2; in parentheses: ratio to ${REFERENCE})\n`)
    console.log(table(series, REFERENCE))
    console.log(`\n${loadNow()}`)
  }
  await target.close()
  writeJson(options.json, {
    bench: 'loopback',
    machine: on,
    calibration,
    options: { ...options, pattern: undefined },
    results,
  })
}

interface Latency {
  readonly p50: number
  readonly p99: number
  readonly lost: number
  /** Resident MiB: before the first session, and after the echo. */
  readonly idle: readonly [number, number]
  readonly used: readonly [number, number]
}

function latency(pair: Pair, target: Target, options: Options): Promise<Latency> {
  return between(pair, target, options.method, async (ends) => {
    await sleep(SETTLE_MS)
    const resident = (): [number, number] => [residentBytes(ends.clientPid) / MIB, residentBytes(ends.serverPid) / MIB]
    const idle = resident()
    const { times, lost } = await echo(ends.port, ECHO_EVERY_MS, options.messages, ECHO_WARM_UP)
    return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), lost, idle, used: resident() }
  })
}

async function echoOnly(port: number, options: Options): Promise<Latency> {
  const { times, lost } = await echo(port, ECHO_EVERY_MS, options.messages, ECHO_WARM_UP)
  const none = [Number.NaN, Number.NaN] as const
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), lost, idle: none, used: none }
}

async function plainHop(command: string, target: number, options: Options): Promise<Latency> {
  const hop = await startPlainHop(command, target)
  try {
    await sleep(SETTLE_MS)
    return await echoOnly(hop.port, options)
  } finally {
    hop.close()
  }
}

/** `bench latency`. */
export async function benchLatency(args: readonly string[]): Promise<void> {
  const options = optionsOf(args)
  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const pairOf = new Map(options.pairs.map((pair) => [pair.name, pair]))
  // What the runtimes cost without a tunnel of ours: one TCP connection, and the same through two plain forwarders.
  const hops = (['node', 'bun'] as const).map((name) => [`${name}, plain hop`, name] as const)
  const hopOf = new Map<string, 'node' | 'bun'>(hops.filter(([, name]) => pairOf.has(name)))
  const columns = ['no tunnel', ...hopOf.keys(), ...pairOf.keys()]
  const all = await interleaved(columns, options.runs, (column): Promise<Latency> => {
    const pair = pairOf.get(column)
    if (pair !== undefined) return latency(pair, target, options)
    const runtime = hopOf.get(column)
    return runtime === undefined
      ? echoOnly(target.port, options)
      : plainHop(commandOf(runtime)[0], target.port, options)
  })
  await target.close()
  console.log(`\necho of 64 bytes every ${ECHO_EVERY_MS} ms over loopback, ${options.messages} messages, medians of`)
  console.log(
    `${options.runs} runs, ms; resident memory in MiB, client / server, idle from the start and after the echo`,
  )
  console.log('\n| | p50 | p99 | idle | after echo |')
  console.log('|---|---|---|---|---|')
  for (const series of all) {
    const sizes = (of: (run: Latency) => readonly [number, number]): string => {
      const [client, server] = [0, 1].map((end) => middle(series, (run) => of(run)[end] ?? Number.NaN))
      return Number.isNaN(client) ? '' : `${client?.toFixed(1)} / ${server?.toFixed(1)}`
    }
    const lost = series.runs.reduce((sum, run) => sum + run.lost, 0)
    console.log(
      `| ${[
        series.column,
        middle(series, (run) => run.p50).toFixed(2),
        middle(series, (run) => run.p99).toFixed(2),
        sizes((run) => run.idle),
        sizes((run) => run.used),
      ].join(' | ')} |${lost > 0 ? ` ${lost} WITHOUT ANSWER` : ''}`,
    )
  }
  const contestants = CONTESTANTS.filter((name) => missing(name) === undefined && options.pattern.test(name))
  const starts = await interleaved(contestants, options.quick ? 1 : STARTS, async (name) => {
    const program = contestants.find((one) => one === name)
    return program === undefined ? Number.NaN : timeToServe(program)
  })
  console.log(`\nstart of a client until its listener accepts, ms, median of ${options.quick ? 1 : STARTS} (all)`)
  for (const { column, runs } of starts) {
    console.log(
      `  ${column.padEnd(8)}${median(runs).toFixed(0).padStart(6)}   (${runs.map((ms) => ms.toFixed(0)).join(' ')})`,
    )
  }
  const { pattern: _, ...rest } = options
  writeJson(options.json, { bench: 'latency', machine: on, options: rest, results: all, starts })
}
