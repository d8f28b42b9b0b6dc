/** `npm run mutation`: test/mutation/run.mjs bundles and starts it. */
import { readFileSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { parseArgs } from 'node:util'
import { inProject } from '../../build/files.mjs'
import { draw } from './draw.ts'
import { type Evaluation, evaluate } from './evaluate.ts'
import { cleanUp, PrivateTree } from './private-tree.ts'
import { type Equivalent, findEquivalent, mutantLine, type Result, resultLine, shareCaught, summary } from './report.ts'
import { findMutants, type Mutant } from './sites.ts'
import { findSuites, measure } from './suites.ts'

const NICE = 5
/** At most two at once, to leave processor time for other work. */
const MAX_JOBS = 2

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    /** Numbers of the sample, separated by commas. */
    only: { type: 'string' },
    /** Parts of names of test files, separated by commas. */
    tests: { type: 'string', default: '' },
    /** Test files that need more seconds on the unchanged tree are left out. */
    longest: { type: 'string', default: '300' },
    limit: { type: 'string', default: '1200' },
    /** The exit status is 1 when fewer percent are caught. */
    target: { type: 'string', default: '95' },
    jobs: { type: 'string', default: String(MAX_JOBS) },
    /** Part of the paths of the files to mutate. */
    room: { type: 'string', default: '' },
    /** Every mutant of these lines, FILE:LINE separated by commas, instead of a sample. */
    at: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
})

const list = (text: string): string[] => text.split(',').filter((part) => part !== '')
const log = (text: string): boolean => process.stderr.write(`mutation: ${text}\n`)

const isEngine = ({ file }: Mutant): boolean => file.startsWith('assembly/')

async function prepare(mutants: readonly Mutant[], base: PrivateTree): Promise<Evaluation> {
  const limit = Number(values.limit)
  const suites = await findSuites(list(values.tests))
  const engine = mutants.some(isEngine) ? await base.compileEngine() : Buffer.alloc(0)
  const hasPrograms = !suites.some(({ isWhole }) => isWhole) || (await base.bundle(limit))
  if (engine === undefined || !hasPrograms) throw new Error('the unchanged tree does not compile')
  const passed = await measure(suites, base, log)
  const slow = passed.filter(({ seconds }) => seconds > Number(values.longest))
  for (const { name, seconds } of slow) log(`left out, since it needs ${seconds} s: ${name}`)
  return { base, suites: passed.filter((suite) => !slow.includes(suite)), engine, limit }
}

/** Runs the first mutant of a group that compiles. */
async function runFirst(
  group: readonly Mutant[],
  evaluation: Evaluation,
  equivalents: readonly Equivalent[],
): Promise<Result | undefined> {
  for (const mutant of group) {
    if (findEquivalent(equivalents, mutant)) return { mutant, finding: 'equivalent' }
    const verdict = await evaluate(mutant, evaluation)
    if (typeof verdict !== 'string') return { mutant, finding: verdict }
    log(`${verdict}: ${mutantLine(mutant)}`)
  }
  return undefined
}

function select(mutants: readonly Mutant[]): Mutant[][] {
  if (values.at === undefined) return draw(mutants, Number(values.seed), Number(values.count))
  const sites = list(values.at)
  return mutants.filter(({ file, line }) => sites.includes(`${file}:${line}`)).map((mutant) => [mutant])
}

async function main(): Promise<void> {
  setPriority(Math.max(NICE, getPriority()))
  const equivalents: Equivalent[] = JSON.parse(readFileSync(inProject('test/mutation/equivalent.json'), 'utf8'))
  const mutants = findMutants().filter(({ file }) => file.includes(values.room))
  const groups = select(mutants)
  const wanted =
    values.only === undefined ? groups.map((_, index) => index) : list(values.only).map((n) => Number(n) - 1)
  if (values.list) {
    for (const index of wanted) console.log(`${index + 1}  ${groups[index]?.[0] ? mutantLine(groups[index][0]) : ''}`)
    return
  }
  console.log(`${groups.length} of ${mutants.length} mutants${values.at ? '' : `, seed ${values.seed}`}`)
  const base = new PrivateTree()
  const evaluation = await prepare(
    wanted.flatMap((index) => groups[index] ?? []),
    base,
  )
  const results: Result[] = []
  const missed: number[] = []
  const queue = [...wanted]
  const work = async (): Promise<void> => {
    for (let index = queue.shift(); index !== undefined; index = queue.shift()) {
      const start = performance.now()
      const result = await runFirst(groups[index] ?? [], evaluation, equivalents)
      if (result === undefined) continue
      results.push(result)
      if (result.finding !== 'equivalent' && result.finding.by === undefined) missed.push(index + 1)
      console.log(`${index + 1}  ${resultLine(result)}  ${Math.round((performance.now() - start) / 1000)} s`)
    }
  }
  await Promise.all(Array.from({ length: Math.min(MAX_JOBS, Number(values.jobs)) }, work))
  base.remove()
  for (const line of summary(results)) console.log(line)
  if (missed.length > 0) {
    const numbers = missed.sort((a, b) => a - b).join(',')
    const room = values.room && ` --room ${values.room}`
    const draws = values.at ? `--at ${values.at}` : `--count ${values.count} --seed ${values.seed}${room}`
    console.log(`missed; again: npm run mutation -- ${draws} --only ${numbers}`)
  }
  if (shareCaught(results) < Number(values.target)) process.exitCode = 1
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    cleanUp()
    process.exit(1)
  })
}
try {
  await main()
} finally {
  cleanUp()
}
