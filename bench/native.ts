/**
 * `bench native`: the native host beside kcptun-libev, for machines with little memory. Size of the program; resident
 * memory idle, after a transfer in each direction, and of a server with idle sessions that has received 10^6 datagrams;
 * CPU seconds per GiB over loopback. Columns take turns within one run.
 *
 *   --runs N       medians of N interleaved runs (default 3)     --match REGEX   columns whose name matches
 *   --gib N        of each transfer (default 1)                  --json FILE     all figures as JSON
 *   --sessions N   idle ones (default 1000)                      --quick         one short run
 *   --method NAME  encryption
 */
import { readFileSync, statSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { download, openCrowd, openTarget, pour, type Target } from '../testkit/flow.ts'
import { commandOf, freePort, libevPath } from '../testkit/process.ts'
import { sleep } from '../testkit/wait.ts'
import {
  cpuSeconds,
  describe,
  type Ends,
  METHOD,
  machine,
  type Pair,
  present,
  residentBytes,
  startPair,
} from './peers.ts'
import { interleaved, middle, positive, ratio, writeJson } from './series.ts'

const GIB = 2 ** 30
const MIB = 2 ** 20
const KIB = 2 ** 10
const DATAGRAMS = 1e6
/** Payload of a datagram at most, so that this many bytes take at least DATAGRAMS. */
const PAYLOAD_BYTES = 1400
const SETTLE_MS = 2000
const POLL_MS = 2
const LIMIT_MS = 300_000
const KCP = { sndwnd: 256, rcvwnd: 256, flush: 2 }
/** Windows of a machine with little memory. */
const SMALL = { sndwnd: 1024, rcvwnd: 1024 }
const REFERENCE = 'libev w256'
const PAIRS: readonly Pair[] = [
  { name: 'native', client: 'native', server: 'native' },
  { name: 'native w1024', client: 'native', server: 'native', clientKcp: SMALL, serverKcp: SMALL },
  { name: REFERENCE, client: 'libev', server: 'libev', clientKcp: KCP, serverKcp: KCP },
  { name: 'node', client: 'node', server: 'node' },
]

interface Options {
  readonly runs: number
  readonly bytes: number
  readonly datagrams: number
  readonly sessions: number
  readonly method: string
}

type Both = readonly [client: number, server: number]

interface Figures {
  /** Resident bytes: idle, after the transfers, with idle sessions after DATAGRAMS (server), and the largest ever. */
  readonly idle: Both
  readonly used: Both
  readonly sessions: number
  readonly peak: Both
  readonly up: Transfer
  readonly down: Transfer
}

interface Transfer {
  readonly mbits: number
  /** CPU seconds per GiB. */
  readonly cpu: Both
}

const both = (ends: Ends, of: (pid: number) => number): Both => [of(ends.clientPid), of(ends.serverPid)]

const peakBytes = (pid: number): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN) * KIB

/** Waits until `bytes` have passed; measures from the first byte on. */
async function passed(
  ends: Ends,
  received: () => number,
  failed: () => string | undefined,
  bytes: number,
): Promise<Transfer> {
  const end = performance.now() + LIMIT_MS
  const wait = async (wanted: number): Promise<void> => {
    while (received() < wanted) {
      const failure = failed() ?? ends.failure()
      if (failure !== undefined || performance.now() > end) throw new Error(failure ?? 'the transfer takes too long')
      await sleep(POLL_MS)
    }
  }
  await wait(1)
  const before = { at: performance.now(), bytes: received(), cpu: both(ends, cpuSeconds) }
  await wait(before.bytes + bytes)
  const moved = received() - before.bytes
  const cpu = both(ends, cpuSeconds)
  return {
    mbits: (moved * 8) / (performance.now() - before.at) / 1000,
    cpu: [((cpu[0] - before.cpu[0]) * GIB) / moved, ((cpu[1] - before.cpu[1]) * GIB) / moved],
  }
}

async function upload(ends: Ends, target: Target, bytes: number): Promise<Transfer> {
  const base = target.discarded
  const flow = pour(ends.port)
  const result = await passed(ends, () => target.discarded - base, flow.failed, bytes)
  flow.stop()
  return result
}

async function downloadBytes(ends: Ends, bytes: number): Promise<Transfer> {
  const flow = download(ends.port)
  const result = await passed(ends, flow.received, flow.failed, bytes)
  flow.stop()
  return result
}

async function measure(pair: Pair, target: Target, options: Options): Promise<Figures> {
  const { bytes, datagrams, sessions, method } = options
  const ends = await startPair(pair, { target: target.port, udpPort: await freePort(), method })
  try {
    await sleep(SETTLE_MS)
    const idle = both(ends, residentBytes)
    const up = await upload(ends, target, bytes)
    const down = await downloadBytes(ends, bytes)
    await sleep(SETTLE_MS)
    const used = both(ends, residentBytes)
    const crowd = await openCrowd(ends.port, sessions, 256, LIMIT_MS)
    if (crowd.times.length < sessions) throw new Error(`${crowd.times.length} of ${sessions} connections were answered`)
    const rest = datagrams * PAYLOAD_BYTES - bytes
    if (rest > 0) await upload(ends, target, rest)
    await sleep(SETTLE_MS)
    const full = residentBytes(ends.serverPid)
    crowd.close()
    return { idle, used, sessions: full, peak: both(ends, peakBytes), up, down }
  } finally {
    await ends.close()
  }
}

/** `bench native`. */
export async function benchNative(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      gib: { type: 'string' },
      sessions: { type: 'string' },
      method: { type: 'string', default: METHOD },
      match: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const options: Options = {
    runs: positive('runs', values.runs, values.quick ? 1 : 3),
    bytes: positive('gib', values.gib, values.quick ? 0.1 : 1) * GIB,
    datagrams: values.quick ? DATAGRAMS / 10 : DATAGRAMS,
    sessions: positive('sessions', values.sessions, values.quick ? 100 : 1000),
    method: values.method,
  }
  const pattern = new RegExp(values.match)
  const pairs = new Map(present(PAIRS).flatMap((pair) => (pattern.test(pair.name) ? [[pair.name, pair]] : [])))
  const on = await machine()
  console.log(describe(on))
  const target = await openTarget()
  const all = await interleaved([...pairs.keys()], options.runs, (column) => {
    const pair = pairs.get(column)
    if (pair === undefined) throw new Error(column)
    return measure(pair, target, options)
  })
  await target.close()
  for (const [name, path] of [
    ['native', commandOf('native')[0]],
    ['kcptun-libev', libevPath],
  ] as const) {
    if (path !== undefined) console.log(`${name}: ${(statSync(path).size / KIB).toFixed(0)} KiB on disk`)
  }
  const reference = all.find(({ column }) => column === REFERENCE)
  console.log(`\n${options.method}, loopback, medians of ${options.runs} runs; ${values.gib ?? 1} GiB each way`)
  console.log(`resident MiB, client / server; sessions: the server with ${options.sessions} idle sessions after`)
  console.log(`${options.datagrams} received datagrams; in parentheses: CPU in ratio to ${REFERENCE}`)
  console.log('\n| | idle | after transfers | sessions | peak | CPU-s/GiB up | CPU-s/GiB down | Mbit/s up, down |')
  console.log('|---|---|---|---|---|---|---|---|')
  for (const series of all) {
    const mib = (of: (run: Figures) => Both): string =>
      [0, 1].map((end) => (middle(series, (run) => of(run)[end] ?? 0) / MIB).toFixed(1)).join(' / ')
    const cpu = (of: (run: Figures) => Both): string =>
      [0, 1]
        .map((end) => {
          const value = middle(series, (run) => of(run)[end] ?? 0)
          const base = reference ? middle(reference, (run) => of(run)[end] ?? 0) : 0
          return `${value.toFixed(2)} (${ratio(value, base)})`
        })
        .join(' / ')
    const cells = [
      series.column,
      mib((run) => run.idle),
      mib((run) => run.used),
      (middle(series, (run) => run.sessions) / MIB).toFixed(1),
      mib((run) => run.peak),
      cpu((run) => run.up.cpu),
      cpu((run) => run.down.cpu),
      `${middle(series, (run) => run.up.mbits).toFixed(0)}, ${middle(series, (run) => run.down.mbits).toFixed(0)}`,
    ]
    console.log(`| ${cells.join(' | ')} |`)
  }
  writeJson(values.json, { bench: 'native', machine: on, options, results: all })
}
