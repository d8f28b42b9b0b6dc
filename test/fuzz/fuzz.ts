/**
 * Episodes one after the other, until enough inputs were made or the time is over.
 */
import { COUNTERS, type CounterName } from '../../host/core.ts'
import { EPISODE_INPUTS, runEpisode } from './episode.ts'
import type { World } from './world.ts'

export interface FuzzOptions {
  readonly seed: number
  /** Inputs at least, unless `seconds` pass before. */
  readonly inputs: number
  readonly seconds: number
  /** First episode. */
  readonly episode?: number
  /** Instead of the module that is built into host/core.ts. */
  readonly module?: WebAssembly.Module
  readonly onEpisode?: (episode: number, inputs: number) => void
}

export interface FuzzResult {
  readonly inputs: number
  readonly episodes: number
  readonly seconds: number
  /** Sums of the engines' counters: how far the inputs reached. */
  readonly counters: ReadonlyMap<CounterName, number>
  /** What went wrong, with the command that shows it again. */
  readonly failure?: string
}

/** Lines of the log that a failure shows, and their length. */
const LOG_LINES = 30
const LINE_LENGTH = 200

/** Seed of an episode. */
function seedOf(seed: number, episode: number): number {
  return (Math.imul(seed, 0x9e3779b1) + Math.imul(episode + 1, 0x85ebca6b)) >>> 0
}

/** The last inputs of an episode that fails: it is run again, with a log. */
export function replay(
  seed: number,
  episode: number,
  module: WebAssembly.Module | undefined,
  lines = LOG_LINES,
): string {
  const log: string[] = []
  try {
    runEpisode(seedOf(seed, episode), EPISODE_INPUTS, module, (text) => {
      log.push(text)
      if (log.length > 4 * lines) log.splice(1, log.length - 2 * lines)
    })
  } catch (error) {
    const first = log[0] ?? ''
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return [first, ...log.slice(1).slice(-lines), text].join('\n')
  }
  return [...log.slice(-2), 'the episode passes when it is run again'].join('\n')
}

function short(text: string): string {
  return text
    .split('\n')
    .map((line) => (line.length > LINE_LENGTH ? `${line.slice(0, LINE_LENGTH)}...` : line))
    .join('\n')
}

function addCounters(sums: Map<CounterName, number>, world: World): void {
  for (const name of COUNTERS) sums.set(name, (sums.get(name) ?? 0) + world.subject.gauge(name))
}

/** Runs episodes; the first failure ends it. */
export function fuzz(options: FuzzOptions): FuzzResult {
  const { seed, module } = options
  const start = performance.now()
  const elapsed = (): number => (performance.now() - start) / 1000
  let inputs = 0
  let episode = options.episode ?? 0
  const first = episode
  const counters = new Map<CounterName, number>()
  for (; inputs < options.inputs && elapsed() < options.seconds; episode++) {
    options.onEpisode?.(episode, inputs)
    try {
      const world = runEpisode(seedOf(seed, episode), EPISODE_INPUTS, module)
      inputs += world.inputs
      addCounters(counters, world)
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error)
      const command = `npm run fuzz -- --seed ${seed} --episode ${episode}${module ? ' --debug' : ''}`
      const failure = `${text}\nafter ${inputs} inputs; again: ${command}\n${short(replay(seed, episode, module))}`
      return { inputs, episodes: episode - first, seconds: elapsed(), counters, failure }
    }
  }
  return { inputs, episodes: episode - first, seconds: elapsed(), counters }
}
