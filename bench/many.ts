/**
 * `bench open`: many concurrent connections, from connect to the first byte back, and consecutive ones. `bench memory`:
 * resident memory of both endpoints with idle sessions, the time to open them, and the memory that remains after they
 * are closed. All implementations found, interleaved in one run.
 *
 *   --runs N         medians of N interleaved runs (open 5, memory 1)    --match REGEX   columns whose name matches
 *   --connections N  concurrent ones (open, default 1000)                --json FILE     all figures as JSON
 *   --sessions N     idle ones (memory, default 5000)                    --quick         one short run
 *   --method NAME    encryption (default xchacha20poly1305_ietf; the Go kcptun keeps its own)
 */
import { parseArgs } from 'node:util'
import { Agent } from '../testkit/agent.ts'
import { type Crowd, openAndFirstByte, openCrowd } from '../testkit/flow.ts'
import { freePort } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'
import { describe, type Ends, METHOD, machine, median, type Pair, present, residentBytes, startPair } from './peers.ts'
import { interleaved, middle, positive, ratio, type Series, writeJson } from './series.ts'

const KIB = 1024
const MIB = 2 ** 20
const CONNECTIONS = 1000
const SESSIONS = 5000
const QUICK_COUNT = 200
const OPEN_RUNS = 5
/** Connections that warm up both endpoints before the measurement. */
const WARM_UP = 100
/** Number of consecutive connections. */
const IN_TURN = 50
/** Concurrent connection attempts when many are opened only to measure memory. */
const UNDER_WAY = 256
/** Resident memory is read after it was steady for this time, ms, at the latest after STEADY_LONGEST_MS. */
const STEADY_MS = 3000
const STEADY_LONGEST_MS = 20_000
const STEADY_BYTES = 256 * KIB
/** Time limit for all connections to get an answer, ms. */
const LIMIT_MS = 120_000

const KCP = { sndwnd: 256, rcvwnd: 256, flush: 2 }
const DEFAULT = 'libev'
const PAIRS: readonly Pair[] = [
  { name: 'node', client: 'node', server: 'node' },
  { name: 'bun', client: 'bun', server: 'bun' },
  { name: 'native', client: 'native', server: 'native' },
  { name: DEFAULT, client: 'libev', server: 'libev' },
  { name: 'libev w256', client: 'libev', server: 'libev', clientKcp: KCP, serverKcp: KCP },
  { name: 'go', client: 'go', server: 'go' },
]

interface Options {
  readonly runs: number
  readonly connections: number
  readonly sessions: number
  readonly method: string
  readonly pairs: readonly Pair[]
  readonly json: string | undefined
}

function optionsOf(args: readonly string[], runs: number): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      connections: { type: 'string' },
      sessions: { type: 'string' },
      method: { type: 'string', default: METHOD },
      match: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const { quick } = values
  const pattern = new RegExp(values.match)
  return {
    runs: positive('runs', values.runs, quick ? 1 : runs),
    connections: positive('connections', values.connections, quick ? QUICK_COUNT : CONNECTIONS),
    sessions: positive('sessions', values.sessions, quick ? QUICK_COUNT : SESSIONS),
    method: values.method,
    pairs: present(PAIRS).filter(({ name }) => pattern.test(name)),
    json: values.json,
  }
}

/** Measures all pairs in turn, each run with new processes. */
async function measureAll<T>(
  options: Options,
  target: number,
  body: (ends: Ends, pair: Pair) => Promise<T>,
): Promise<Series<T>[]> {
  const pairOf = new Map(options.pairs.map((pair) => [pair.name, pair]))
  return interleaved([...pairOf.keys()], options.runs, async (column) => {
    const pair = pairOf.get(column)
    if (pair === undefined) throw new Error(column)
    const ends = await startPair(pair, { target, udpPort: await freePort(), method: options.method })
    try {
      return await body(ends, pair)
    } finally {
      await ends.close()
    }
  })
}

interface Opening {
  /** Connections answered in time, and ms until the last of them was. */
  readonly answered: number
  readonly all: number
  /** Median ms from connect to the answer of one connection: concurrent, and consecutive. */
  readonly each: number
  readonly inTurn: number
}

async function opening(port: number, count: number): Promise<Opening> {
  const first = await openCrowd(port, WARM_UP, WARM_UP, LIMIT_MS)
  first.close()
  const turns: number[] = []
  for (let i = 0; i < IN_TURN; i++) turns.push(await openAndFirstByte(port))
  const crowd = await openCrowd(port, count, count, LIMIT_MS)
  crowd.close()
  return { answered: crowd.times.length, all: crowd.ms, each: median(crowd.times), inTurn: median(turns) }
}

/** `bench open`. */
export async function benchOpen(args: readonly string[]): Promise<void> {
  const options = optionsOf(args, OPEN_RUNS)
  const on = await machine()
  console.log(describe(on))
  const target = new Agent()
  const port = await target.target()
  const direct: Series<Opening> = { column: 'no tunnel', runs: [] }
  const all = await measureAll(options, port, async (ends, pair) => {
    if (pair === options.pairs[0]) direct.runs.push(await opening(port, options.connections))
    return opening(ends.port, options.connections)
  })
  await target.close()
  const reference = all.find(({ column }) => column === DEFAULT)
  const to = (of: (run: Opening) => number): number => (reference ? middle(reference, of) : 0)
  console.log(
    `\nfrom connect to the first byte back, ms, medians of ${options.runs} runs; in parentheses: ratio to ${DEFAULT}`,
  )
  console.log(`\n| | ${options.connections} at once: all | each | consecutive | unanswered |`)
  console.log('|---|---|---|---|---|')
  for (const series of [direct, ...all]) {
    const cell = (of: (run: Opening) => number, digits: number): string =>
      `${middle(series, of).toFixed(digits)} (${ratio(middle(series, of), to(of))})`
    const missed = series.runs.reduce((sum, { answered }) => sum + options.connections - answered, 0)
    console.log(
      `| ${[
        series.column,
        cell((run) => run.all, 0),
        cell((run) => run.each, 0),
        cell((run) => run.inTurn, 2),
        missed,
      ].join(' | ')} |`,
    )
    if (missed > 0) process.exitCode = 1
  }
  writeJson(options.json, { bench: 'open', machine: on, options, results: [direct, ...all] })
}

type Bytes = readonly [client: number, server: number]

interface Memory {
  readonly answered: number
  /** ms until all sessions were open and answered. */
  readonly opened: number
  /** Resident bytes: before the first session, with a few, with all, and after all are closed and removed. */
  readonly idle: Bytes
  readonly few: Bytes
  readonly full: Bytes
  readonly after: Bytes
}

const residents = (ends: Ends): Bytes => [residentBytes(ends.clientPid), residentBytes(ends.serverPid)]

/** Resident memory after it has become steady. */
async function steady(ends: Ends): Promise<Bytes> {
  const end = performance.now() + STEADY_LONGEST_MS
  let last = residents(ends)
  let since = performance.now()
  while (performance.now() < end && performance.now() - since < STEADY_MS) {
    await sleep(STEADY_MS / 10)
    const now = residents(ends)
    if (now.some((bytes, i) => Math.abs(bytes - (last[i] ?? 0)) > STEADY_BYTES)) {
      last = now
      since = performance.now()
    }
  }
  return residents(ends)
}

async function memory(ends: Ends, count: number): Promise<Memory> {
  const idle = await steady(ends)
  const warm: Crowd = await openCrowd(ends.port, WARM_UP, WARM_UP, LIMIT_MS)
  const few = await steady(ends)
  const crowd = await openCrowd(ends.port, count, UNDER_WAY, LIMIT_MS)
  const full = await steady(ends)
  crowd.close()
  warm.close()
  const after = await steady(ends)
  return { answered: crowd.times.length, opened: crowd.ms, idle, few, full, after }
}

/** `bench memory`. */
export async function benchMemory(args: readonly string[]): Promise<void> {
  const options = optionsOf(args, 1)
  const on = await machine()
  console.log(describe(on))
  const target = new Agent()
  const all = await measureAll(options, await target.target(), (ends) => memory(ends, options.sessions))
  await target.close()
  const reference = all.find(({ column }) => column === DEFAULT)
  const perSession = (of: number) => (run: Memory) =>
    ((run.full[of] ?? 0) - (run.few[of] ?? 0)) / options.sessions / KIB
  console.log(
    `\n${options.sessions} idle sessions, each after an echo of 64 bytes; resident memory, client / server, medians of`,
  )
  console.log(
    `${options.runs} runs; in parentheses: ratio to ${DEFAULT}. Closed: 1 s or more after the end of all connections`,
  )
  console.log('\n| | KiB per session | before, MiB | with all, MiB | closed, MiB | opened in s | unanswered |')
  console.log('|---|---|---|---|---|---|---|')
  for (const series of all) {
    const each = [0, 1].map((of) => {
      const value = middle(series, perSession(of))
      return `${value.toFixed(1)} (${ratio(value, reference ? middle(reference, perSession(of)) : 0)})`
    })
    const sizes = (of: (run: Memory) => Bytes): string =>
      [0, 1].map((i) => (middle(series, (run) => of(run)[i] ?? 0) / MIB).toFixed(1)).join(' / ')
    const missed = series.runs.reduce((sum, { answered }) => sum + options.sessions - answered, 0)
    console.log(
      `| ${[
        series.column,
        each.join(' / '),
        sizes((run) => run.idle),
        sizes((run) => run.full),
        sizes((run) => run.after),
        (middle(series, (run) => run.opened) / 1000).toFixed(2),
        missed,
      ].join(' | ')} |`,
    )
    if (missed > 0) process.exitCode = 1
  }
  writeJson(options.json, { bench: 'memory', machine: on, options, results: all })
}
