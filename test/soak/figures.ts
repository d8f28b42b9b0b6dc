/** What is measured of the processes of a soak, and what has to hold of it. */
import { readdirSync, readFileSync } from 'node:fs'
import { httpGet, type Running } from '../../testkit/process.ts'

/** Difference allowed between the median RSS of the last third and that of the middle third. */
const RSS_TOLERANCE = 0.03

/** The figures of one process at one moment. */
export interface Figures {
  /** Seconds since the load began. */
  readonly at: number
  readonly rssKiB: number
  readonly descriptors: number
  /** Of the engine, in bytes. */
  readonly memory: number
  /** In any state, TIME_WAIT included. */
  readonly sessions: number
  readonly cpuMs: number
}

interface Stats {
  readonly cpu_ms: number
  readonly gauges: Readonly<Record<string, number>>
}

/** Open file descriptors of a process. */
export const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

/** Measures a process. @param since start of the load, ms as of performance.now() */
export async function measure(end: Running, since: number): Promise<Figures> {
  // before the request, whose connection is a descriptor too
  const descriptors = descriptorsOf(end.pid)
  const stats: Stats = JSON.parse(await httpGet(`http://${end.config['http_listen']}/stats.json?sessions=none`))
  const { gauges } = stats
  const sessions = Object.keys(gauges).filter((name) => name.startsWith('sessions_'))
  return {
    at: (performance.now() - since) / 1000,
    rssKiB: Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${end.pid}/status`, 'utf8'))?.[1]),
    descriptors,
    memory: gauges['memory_used'] ?? Number.NaN,
    sessions: sessions.reduce((sum, name) => sum + (gauges[name] ?? 0), 0),
    cpuMs: stats.cpu_ms,
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? Number.NaN
}

/** Median RSS of each third of the load, in KiB. */
export function thirds(samples: readonly Figures[], seconds: number): readonly [number, number, number] {
  const third = (index: number): number =>
    median(samples.filter(({ at }) => Math.floor((3 * at) / seconds) === index).map(({ rssKiB }) => rssKiB))
  return [third(0), third(1), third(2)]
}

/** Growth from the middle third to the last one, as a share. */
export function growth(samples: readonly Figures[], seconds: number): number {
  const [, middle, last] = thirds(samples, seconds)
  return last / middle - 1
}

/** What is not as it was before the load. */
export function differences(base: Figures, end: Figures): string[] {
  const problems: string[] = []
  if (end.sessions !== base.sessions) problems.push(`sessions: ${end.sessions}, base ${base.sessions}`)
  if (end.descriptors !== base.descriptors) problems.push(`descriptors: ${end.descriptors}, base ${base.descriptors}`)
  if (end.memory !== base.memory) problems.push(`engine memory: ${end.memory} bytes, base ${base.memory}`)
  return problems
}

/** Whether the RSS kept its level. */
export const isLevel = (share: number): boolean => Math.abs(share) <= RSS_TOLERANCE
