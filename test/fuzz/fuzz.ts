/**
 * Runs episodes until the number of inputs or the time limit is reached.
 */
import { COUNTERS, type CoreExports, type CounterName, instantiate } from '../../host/engine/core.ts'
import { faultText } from '../../testkit/checked-core.ts'
import { runEpisode } from './episode.ts'
import type { World } from './world.ts'

export interface FuzzOptions {
  readonly seed: number
  /** Minimum number of inputs, unless `seconds` pass first. */
  readonly inputs: number
  readonly seconds: number
  /** Creates an engine; default: the one built into host/engine/core.ts. */
  readonly make?: () => CoreExports
  /** Additional options of the command that reproduces a failure. */
  readonly words?: string
  readonly onEpisode?: (episode: number, inputs: number) => void
}

export interface FuzzResult {
  readonly inputs: number
  readonly episodes: number
  readonly seconds: number
  /** Sums of the engines' counters, which show what the inputs reached. */
  readonly counters: ReadonlyMap<CounterName, number>
  /** Description of the failure, with the command that reproduces it. */
  readonly failure?: string
}

/** Number of log lines shown with a failure, and their maximum length. */
const LOG_LINES = 30
const LINE_LENGTH = 200

/** Seed of an episode. */
export function seedOf(seed: number, episode: number): number {
  return (Math.imul(seed, 0x9e3779b1) + Math.imul(episode + 1, 0x85ebca6b)) >>> 0
}

/**
 * Runs an episode with a log.
 * @returns its last inputs and the failure; with `outputs` also the engine's datagrams
 */
export function replay(
  seed: number,
  episode: number,
  make: () => CoreExports = instantiate,
  lines = LOG_LINES,
  outputs = false,
): string {
  const log: string[] = []
  let end = 'the episode passes'
  const calls = make()
  try {
    runEpisode(seedOf(seed, episode), calls, (text) => {
      // output of the engine is indented
      if (outputs || !text.startsWith(' ')) log.push(text)
      if (log.length > 4 * lines) log.splice(1, log.length - 2 * lines)
    })
  } catch (error) {
    end = error instanceof Error ? (error.stack ?? error.message) : String(error)
    const found = faultText(calls)
    if (found !== undefined) end = `${found}\n${end}`
  }
  return [log[0] ?? '', ...log.slice(1).slice(-lines), end].join('\n')
}

function short(text: string): string {
  return text
    .split('\n')
    .map((line) => (line.length > LINE_LENGTH ? `${line.slice(0, LINE_LENGTH)}...` : line))
    .join('\n')
}

/** The engine's counters at the end of an episode. */
export function countersOf(world: World): Map<CounterName, number> {
  return new Map(COUNTERS.map((name) => [name, world.subject.gauge(name)]))
}

/** Runs episodes; the first failure ends it. */
export function fuzz(options: FuzzOptions): FuzzResult {
  const { seed, make = instantiate } = options
  const start = performance.now()
  const elapsed = (): number => (performance.now() - start) / 1000
  const counters = new Map<CounterName, number>()
  let inputs = 0
  let episode = 0
  for (; inputs < options.inputs && elapsed() < options.seconds; episode++) {
    options.onEpisode?.(episode, inputs)
    try {
      const world = runEpisode(seedOf(seed, episode), make())
      inputs += world.inputs
      for (const [name, value] of countersOf(world)) counters.set(name, (counters.get(name) ?? 0) + value)
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error)
      const command = `npm run fuzz -- --seed ${seed} --episode ${episode}${options.words ?? ''}`
      const failure = `${text}\nafter ${inputs} inputs; again: ${command}\n${short(replay(seed, episode, make))}`
      return { inputs, episodes: episode, seconds: elapsed(), counters, failure }
    }
  }
  return { inputs, episodes: episode, seconds: elapsed(), counters }
}

/** Returns a factory of engines for the bytes of a module. */
export function maker(bytes: Uint8Array<ArrayBuffer>): () => CoreExports {
  // the debug module is large, so it is compiled once
  const module = new WebAssembly.Module(bytes)
  return () => new WebAssembly.Instance(module, {}).exports as unknown as CoreExports
}
