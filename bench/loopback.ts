/**
 * `bench loopback`: goodput, and CPU seconds per GiB at each end, without a link between the ends. `bench latency`: echo over loopback, time from
 * the start of a process to a listener that accepts, resident memory of idle ends. All implementations found, interleaved in one run.
 *
 *   --runs N         medians of N interleaved runs (default 3)    --match REGEX   columns whose name matches
 *   --seconds N      of an upload (default 5)                     --json FILE     all figures for programs
 *   --method NAME    encryption (default xchacha20poly1305_ietf; the Go kcptun keeps its own)
 *   --messages N     of an echo (default 1000)                    --quick         one short run
 */
import { parseArgs } from 'node:util'
import { freePort } from '../test/tools/process.ts'
import { sleep } from '../test/tools/wait.ts'
import { echo, openTarget, pour, type Target } from './flow.ts'
import {
  type Contestant,
  cpuSeconds,
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
import { interleaved, middle, positive, ratio, writeJson } from './series.ts'

const GIB = 2 ** 30
const MIB = 2 ** 20
const MBIT = 1e6
/** Not measured: just-in-time compilers and windows are still finding their form. */
const WARM_UP_MS = 1500
const SECONDS = 5
const RUNS = 3
const MESSAGES = 1000
const ECHO_EVERY_MS = 5
const ECHO_WARM_UP = 300
/** After this time an end without traffic is idle. */
const SETTLE_MS = 2000
const STARTS = 7

/** The original at its fastest on loopback, and ours with the same keys. */
const KCP = { sndwnd: 256, rcvwnd: 256, flush: 2 }
const REFERENCE = 'libev w256'
const PAIRS: readonly Pair[] = [
  { name: 'node', client: 'node', server: 'node' },
  { name: 'bun', client: 'bun', server: 'bun' },
  { name: 'node w256', client: 'node', server: 'node', clientKcp: KCP, serverKcp: KCP },
  { name: 'bun w256', client: 'bun', server: 'bun', clientKcp: KCP, serverKcp: KCP },
  { name: REFERENCE, client: 'libev', server: 'libev', clientKcp: KCP, serverKcp: KCP },
  { name: 'go', client: 'go', server: 'go' },
]
const CONTESTANTS: readonly Contestant[] = ['node', 'bun', 'libev', 'go']

interface Options {
  readonly runs: number
  readonly seconds: number
  readonly messages: number
  readonly method: string
  readonly pairs: readonly Pair[]
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

interface Run {
  readonly mbits: number
  /** CPU seconds per GiB of the client, which sends, and of the server. */
  readonly clientCpu: number
  readonly serverCpu: number
  /** CPU share of the traffic generator: near 1 it was the limit. */
  readonly ownLoad: number
  readonly drops: number
  readonly failure?: string
}

function upload(pair: Pair, target: Target, options: Options): Promise<Run> {
  return between(pair, target, options.method, async (ends, udpPort) => {
    const flow = pour(ends.port)
    await sleep(WARM_UP_MS)
    const read = (): readonly [number, number, number, number, number] => [
      performance.now(),
      target.swallowed,
      cpuSeconds(ends.clientPid),
      cpuSeconds(ends.serverPid),
      cpuSeconds(process.pid),
    ]
    const before = read()
    await sleep(options.seconds * 1000)
    const after = read()
    const failure = flow.failed() ?? ends.failure()
    const drops = socketDrops(udpPort)
    flow.stop()
    if (failure !== undefined) process.exitCode = 1
    const [ms, bytes, client, server, own] = [0, 1, 2, 3, 4].map((i) => (after[i] ?? 0) - (before[i] ?? 0))
    const elapsed = (ms ?? 0) / 1000
    const gib = (bytes ?? 0) / GIB
    return {
      mbits: ((bytes ?? 0) * 8) / elapsed / MBIT,
      clientCpu: (client ?? 0) / gib,
      serverCpu: (server ?? 0) / gib,
      ownLoad: (own ?? 0) / elapsed,
      drops,
      ...(failure !== undefined && { failure }),
    }
  })
}

/** `bench loopback`. */
export async function benchLoopback(args: readonly string[]): Promise<void> {
  const options = optionsOf(args)
  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const pairOf = new Map(options.pairs.map((pair) => [pair.name, pair]))
  const all = await interleaved([...pairOf.keys()], options.runs, (column) => {
    const pair = pairOf.get(column)
    if (pair === undefined) throw new Error(column)
    return upload(pair, target, options)
  })
  await target.close()
  const reference = all.find(({ column }) => column === REFERENCE)
  const to = (of: (run: Run) => number): number => (reference ? middle(reference, of) : 0)
  console.log(`\nupload over loopback, ${options.method}, medians of ${options.runs} runs of ${options.seconds} s`)
  console.log(`(w256: sndwnd and rcvwnd 256, flush 2; in parentheses: times ${REFERENCE}; client sends)`)
  console.log('\n| | Mbit/s | CPU-s/GiB client | CPU-s/GiB server | datagrams dropped at the server | generator load |')
  console.log('|---|---|---|---|---|---|')
  for (const series of all) {
    const cell = (of: (run: Run) => number, digits: number): string =>
      `${middle(series, of).toFixed(digits)} (${ratio(middle(series, of), to(of))})`
    const failure = series.runs.find((run) => run.failure !== undefined)?.failure
    console.log(
      `| ${[
        series.column,
        cell((run) => run.mbits, 0),
        cell((run) => run.clientCpu, 2),
        cell((run) => run.serverCpu, 2),
        middle(series, (run) => run.drops),
        middle(series, (run) => run.ownLoad).toFixed(2),
      ].join(' | ')} |${failure === undefined ? '' : ` FAILED: ${failure}`}`,
    )
  }
  writeJson(options.json, { bench: 'loopback', machine: on, options: { ...options, pattern: undefined }, results: all })
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

/** `bench latency`. */
export async function benchLatency(args: readonly string[]): Promise<void> {
  const options = optionsOf(args)
  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const direct = 'no tunnel'
  const pairOf = new Map(options.pairs.map((pair) => [pair.name, pair]))
  const all = await interleaved([direct, ...pairOf.keys()], options.runs, async (column): Promise<Latency> => {
    const pair = pairOf.get(column)
    if (pair !== undefined) return latency(pair, target, options)
    const { times, lost } = await echo(target.port, ECHO_EVERY_MS, options.messages, ECHO_WARM_UP)
    const none = [Number.NaN, Number.NaN] as const
    return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), lost, idle: none, used: none }
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
  console.log(`\nstart of a client to a listener that accepts, ms, median of ${options.quick ? 1 : STARTS} (all)`)
  for (const { column, runs } of starts) {
    console.log(
      `  ${column.padEnd(8)}${median(runs).toFixed(0).padStart(6)}   (${runs.map((ms) => ms.toFixed(0)).join(' ')})`,
    )
  }
  const { pattern: _, ...rest } = options
  writeJson(options.json, { bench: 'latency', machine: on, options: rest, results: all, starts })
}
