/**
 * Measures one transfer through a running tunnel: goodput, CPU seconds per GiB at each endpoint, load of the traffic
 * generator. Also formats a table of transfers.
 */
import { sleep } from '../testkit/wait.ts'
import { cpuSeconds, type Ends } from './peers.ts'
import { middle, ratio, type Series } from './series.ts'

const GIB = 2 ** 30
const MBIT = 1e6
/** Warm-up that is not measured, for just-in-time compilers and windows. */
const WARM_UP_MS = 1500

export interface Transfer {
  readonly mbits: number
  /** CPU seconds per GiB of the client and of the server. */
  readonly clientCpu: number
  readonly serverCpu: number
  /** Cores used by the traffic generator: near 1 for one of its processes, it was the bottleneck. */
  readonly ownLoad: number
  readonly drops: number
  readonly failure?: string
}

export interface Flow {
  /** Bytes received so far. */
  bytes(): number | Promise<number>
  /**
   * Ends the flow.
   * @returns its failure, if any
   */
  stop(): string | undefined | Promise<string | undefined>
  /** Datagrams dropped at the receiver's socket, if known. */
  drops?(): number
  /** Processes of the traffic generator. */
  readonly makers: readonly number[]
}

/** Measures a flow that has just started, and ends it. */
export async function measure(ends: Ends, flow: Flow, seconds: number): Promise<Transfer> {
  await sleep(WARM_UP_MS)
  const read = async (): Promise<readonly number[]> => [
    performance.now(),
    await flow.bytes(),
    cpuSeconds(ends.clientPid),
    cpuSeconds(ends.serverPid),
    flow.makers.reduce((sum, pid) => sum + cpuSeconds(pid), 0),
  ]
  const before = await read()
  await sleep(seconds * 1000)
  const after = await read()
  const drops = flow.drops?.() ?? 0
  const failure = (await flow.stop()) ?? ends.failure()
  if (failure !== undefined) process.exitCode = 1
  const [ms = 0, bytes = 0, client = 0, server = 0, own = 0] = after.map((value, i) => value - (before[i] ?? 0))
  const gib = bytes / GIB
  return {
    mbits: (bytes * 8) / (ms / 1000) / MBIT,
    clientCpu: client / gib,
    serverCpu: server / gib,
    ownLoad: own / (ms / 1000),
    drops,
    ...(failure !== undefined && { failure }),
  }
}

/** Placeholder for a failed run. */
export const failed = (failure: string): Transfer => {
  const none = Number.NaN
  return { mbits: none, clientCpu: none, serverCpu: none, ownLoad: none, drops: 0, failure }
}

/** A Markdown table of medians, in parentheses the ratio to the column `reference`. */
export function table(all: readonly Series<Transfer>[], reference: string): string {
  const base = all.find(({ column }) => column === reference)
  const lines = [
    `| | Mbit/s | CPU-s/GiB client | CPU-s/GiB server | datagrams dropped at the receiver | generator load |`,
    '|---|---|---|---|---|---|',
  ]
  for (const series of all) {
    const cell = (of: (run: Transfer) => number, digits: number): string => {
      const value = middle(series, of)
      if (Number.isNaN(value)) return '-'
      return `${value.toFixed(digits)} (${ratio(value, base ? middle(base, of) : 0)})`
    }
    const failure = series.runs.find((run) => run.failure !== undefined)?.failure
    const cells = [
      series.column,
      cell((run) => run.mbits, 0),
      cell((run) => run.clientCpu, 2),
      cell((run) => run.serverCpu, 2),
      middle(series, (run) => run.drops),
      middle(series, (run) => run.ownLoad).toFixed(2),
    ]
    lines.push(`| ${cells.join(' | ')} |${failure === undefined ? '' : ` FAILED: ${failure}`}`)
  }
  return lines.join('\n')
}
