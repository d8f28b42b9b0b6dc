/** The loop of guided fuzzing: an input that reaches something new joins the corpus, from which further inputs are made. */
import { Random } from '../../../testkit/sim/random.ts'
import { toHex } from '../../../testkit/sim/wire.ts'
import { Coverage } from './coverage.ts'
import { Mutator } from './mutate.ts'

/** What inputs are given to. */
export interface Subject {
  /** Counters of edges, one byte each. */
  counters(): Uint8Array | Uint8ClampedArray
  /** @throws an Error when an oracle is violated or the code under test fails */
  run(input: Uint8Array): void | Promise<void>
}

export interface Target {
  readonly name: string
  readonly seeds: readonly Uint8Array[]
  readonly dictionary: readonly Uint8Array[]
  readonly bytesMax: number
  /** Inputs of one subject, whose state they share; a failure is that of all of them. */
  readonly inputsEach: number
  make(): Subject | Promise<Subject>
}

export interface Options {
  readonly seed: number
  readonly inputs: number
  readonly seconds: number
  /** false: inputs are made from the seeds alone. */
  readonly isGuided: boolean
  onProgress?(inputs: number): void
}

export interface Failure {
  readonly reason: string
  /** In order, on one subject. */
  readonly inputs: readonly Uint8Array[]
}

export interface Result {
  readonly inputs: number
  readonly seconds: number
  readonly edges: number
  readonly corpus: number
  readonly failure?: Failure
}

/** Replays of a failure that make it smaller. */
const REPLAYS_MAX = 300
const PROGRESS_INPUTS = 256

/** Gives inputs to a fresh subject. @returns the failure's text; undefined if there is none */
export async function replay(target: Target, inputs: readonly Uint8Array[]): Promise<string | undefined> {
  try {
    const subject = await target.make()
    for (const input of inputs) await subject.run(input)
    return undefined
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error)
  }
}

/** Leaves out inputs, and then parts of the last one, while the failure remains. */
async function shrink(target: Target, failure: Failure): Promise<Failure> {
  const kindOf = (reason: string | undefined): string | undefined => reason?.split('\n')[0]?.replace(/\d+/g, '#')
  const kind = kindOf(failure.reason)
  let replays = 0
  const fails = async (inputs: readonly Uint8Array[]): Promise<boolean> =>
    replays++ < REPLAYS_MAX && kindOf(await replay(target, inputs)) === kind
  let inputs = failure.inputs
  for (let size = inputs.length - 1; size >= 1; size = Math.min(size >> 1, inputs.length - 1)) {
    for (let at = inputs.length - 1 - size; at >= 0; at -= size) {
      const fewer = [...inputs.slice(0, at), ...inputs.slice(at + size)]
      if (await fails(fewer)) inputs = fewer
    }
  }
  let last = inputs.at(-1) ?? new Uint8Array(0)
  for (let size = last.length >> 1; size >= 1; size >>= 1) {
    for (let at = last.length - size; at >= 0; at -= size) {
      const shorter = new Uint8Array([...last.subarray(0, at), ...last.subarray(at + size)])
      if (await fails([...inputs.slice(0, -1), shorter])) last = shorter
    }
  }
  return { reason: failure.reason, inputs: [...inputs.slice(0, -1), last] }
}

/** Fuzzes one target. */
export async function fuzz(target: Target, options: Options): Promise<Result> {
  const start = performance.now()
  const random = new Random(options.seed)
  const mutator = new Mutator(random, target.dictionary, target.bytesMax)
  const corpus = [...target.seeds]
  const pick = (): Uint8Array => {
    // half of them from the newest quarter
    const from = random.chance(0.5) ? Math.floor(corpus.length * 0.75) : 0
    return corpus[from + random.below(corpus.length - from)] ?? new Uint8Array(0)
  }
  let coverage: Coverage | undefined
  let subject: Subject | undefined
  let history: Uint8Array[] = []
  let inputs = 0
  const elapsed = (): number => (performance.now() - start) / 1000
  const result = () => ({ inputs, seconds: elapsed(), edges: coverage?.edges ?? 0, corpus: corpus.length })
  for (; inputs < options.inputs; inputs++) {
    if (inputs % PROGRESS_INPUTS === 0) {
      if (elapsed() > options.seconds) break
      options.onProgress?.(inputs)
    }
    if (subject === undefined || history.length >= target.inputsEach) {
      if (subject === undefined || target.inputsEach > 1) subject = await target.make()
      history = []
    }
    const counters = subject.counters()
    coverage ??= new Coverage(counters.length)
    const input = target.seeds[inputs]?.slice() ?? mutator.mutate(pick(), pick)
    history.push(input)
    counters.fill(0)
    try {
      const ended = subject.run(input)
      if (ended) await ended
    } catch (error) {
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error)
      const figures = result()
      return { ...figures, inputs: inputs + 1, failure: await shrink(target, { reason, inputs: history }) }
    }
    // memory may have grown: the counters are looked up again
    if (coverage.add(subject.counters()) && options.isGuided && inputs >= target.seeds.length) corpus.push(input)
  }
  return result()
}

/** The inputs of a failure as an argument of --input. */
export const textOf = (inputs: readonly Uint8Array[]): string => inputs.map((input) => toHex(input)).join(',')
