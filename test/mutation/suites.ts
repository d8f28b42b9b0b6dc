/**
 * The tests that are run against a mutant: those that run the engine or the host in their own process, then a few that
 * start whole processes. Of each kind those first that cost the fewest seconds for a mutant caught, or have a name like
 * the mutated file. Their durations are measured on the unchanged tree, on which all must pass.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import * as esbuild from 'esbuild'
import { commonOptions } from '../../build/bundles.mjs'
import { filesBelow, fingerprint, inProject } from '../../build/files.mjs'
import { core, inputs } from '../../build/plan.mjs'
import type { PrivateTree } from './private-tree.ts'
import type { Mutant } from './sites.ts'

export interface TestFile {
  /** Relative to test/. */
  readonly name: string
  /** Starts programs of dist/. */
  readonly isWhole: boolean
  /** Files that its bundle contains. */
  readonly sources: ReadonlySet<string>
  /** Digest of what it runs. */
  readonly key: string
  seconds: number
  /** Mutants that it caught in this run. */
  caught: number
}

const HOST_ROOMS = ['host', 'library']
const ROOMS = ['core', 'sim', 'vectors', 'fuzz', ...HOST_ROOMS]
/** Tests of the checked build, which is not built from a mutant. */
const LEFT_OUT = new Set(['fuzz/checked.test.ts'])
/** Tests of whole processes, and the path prefix of the sources they cover. */
const WHOLE: Readonly<Record<string, string>> = {
  'e2e/garbage.node.test.ts': '',
  'e2e/half-close.node.test.ts': '',
  'e2e/faults.node.test.ts': '',
  'e2e/matrix.node.test.ts': '',
  'e2e/reload.node.test.ts': '',
  'netns/recovery.node.test.ts': 'host/transport/',
  'netns/rebinding.node.test.ts': 'host/transport/',
  'netns/rendezvous.node.test.ts': 'host/transport/rendezvous',
  'netns/obfs.node.test.ts': 'host/transport/obfs/',
  'netns/obfs-trap.node.test.ts': 'host/transport/obfs/',
}

const CACHE = '.cache/mutation/seconds.json'
const BASELINE_LIMIT_S = 3600

async function describe(name: string): Promise<TestFile> {
  const isWhole = name in WHOLE
  const { outputFiles, metafile } = await esbuild.build({
    ...commonOptions,
    entryPoints: [`test/${name}`],
    outfile: 'test.mjs',
    platform: 'node',
    write: false,
    metafile: true,
  })
  const hash = createHash('sha256').update(outputFiles[0]?.contents ?? '')
  if (isWhole) hash.update(fingerprint([...inputs.bundles, 'assembly']))
  return {
    name,
    isWhole,
    sources: new Set(Object.keys(metafile.inputs)),
    key: hash.digest('hex'),
    seconds: 0,
    caught: 0,
  }
}

/** @param filters parts of names; none: all */
export async function findSuites(filters: readonly string[] = []): Promise<TestFile[]> {
  const names = [
    ...ROOMS.flatMap((room) => filesBelow(`test/${room}`)).map((path) => path.slice(5)),
    ...Object.keys(WHOLE),
  ].filter((name) => name.endsWith('.test.ts') && !name.endsWith('.bun.test.ts') && !LEFT_OUT.has(name))
  const chosen = names.filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  return Promise.all(chosen.map(describe))
}

/** @returns whether a test can detect a mutant: its bundle or the programs it starts contain the mutated file */
export function concerns({ name, sources }: TestFile, { file }: Mutant): boolean {
  const part = WHOLE[name]
  return part === undefined ? sources.has(file.startsWith('assembly/') ? core.inlined : file) : file.startsWith(part)
}

const command = (names: readonly string[], ...more: string[]): string[] => [
  'test/run.mjs',
  '--no-build',
  ...['--runtime', 'node', '--jobs', '1'],
  ...more,
  ...names,
]

const LINE = /^(FAIL|ok {2}) node (\S+) .* ([\d.]+) s$/gm

/** @returns state and seconds of the files in the output of test/run.mjs */
function results(output: string): { name: string; isGood: boolean; seconds: number }[] {
  return [...output.matchAll(LINE)].map(([, state, name, seconds]) => ({
    name: `${name}.test.ts`,
    isGood: state !== 'FAIL',
    seconds: Number(seconds),
  }))
}

function readCache(): Record<string, number> {
  try {
    return JSON.parse(readFileSync(inProject(CACHE), 'utf8'))
  } catch {
    return {}
  }
}

/**
 * Runs the tests on the unchanged tree and records their durations. They are cached by the digest of the bundle.
 * @returns the tests that passed; one that fails without a mutant would appear to catch every mutant
 */
export async function measure(
  suites: readonly TestFile[],
  tree: PrivateTree,
  log: (text: string) => void,
): Promise<TestFile[]> {
  const cache = readCache()
  const unknown = suites.filter(({ key }) => cache[key] === undefined).map(({ name }) => name)
  if (unknown.length > 0) {
    log(`${unknown.length} test files on the unchanged tree`)
    for (const { name, isGood, seconds } of results((await tree.run(command(unknown), BASELINE_LIMIT_S)).output)) {
      const key = suites.find((suite) => suite.name === name)?.key
      if (isGood && key !== undefined) cache[key] = seconds
    }
    mkdirSync(dirname(inProject(CACHE)), { recursive: true })
    writeFileSync(inProject(CACHE), JSON.stringify(cache))
  }
  const passed = suites.filter(({ key }) => cache[key] !== undefined)
  for (const suite of suites) {
    suite.seconds = cache[suite.key] ?? 0
    if (!passed.includes(suite)) log(`left out, since it fails on the unchanged tree: ${suite.name}`)
  }
  return passed
}

/** How much sooner a test runs for each word that its name and the path of the mutated file have in common. */
const NAMESAKE = 8
/** How much later a test of the host runs for a mutant of the engine. */
const INDIRECT = 8

/** @returns the words of a path, plurals as singulars */
const wordsOf = (path: string): string[] => path.split(/[/._-]/).map((word) => word.replace(/s$/, ''))

/** @returns the tests that cost least for a mutant caught first; those named after the mutated file count as cheap */
export function inOrder(suites: readonly TestFile[], { file }: Mutant): TestFile[] {
  const subject = new Set(wordsOf(file.replace(/\.ts$/, '')))
  const isEngine = file.startsWith('assembly/')
  const shared = (name: string): number =>
    wordsOf(basename(name, '.test.ts')).filter((word) => subject.has(word)).length
  const isIndirect = (name: string): boolean => isEngine && HOST_ROOMS.some((room) => name.startsWith(`${room}/`))
  const cost = ({ name, seconds, caught }: TestFile): number =>
    ((isIndirect(name) ? INDIRECT : 1) * seconds) / (1 + caught) / (1 + NAMESAKE * shared(name))
  return suites.toSorted((a, b) => cost(a) - cost(b))
}

export interface Finding {
  /** The test that failed twice, or was ended by its time limit. */
  readonly by: string | undefined
  /** Flaky tests: they failed once and then passed. */
  readonly unsteady: readonly string[]
}

const HANG = /under node: still running after/

/**
 * Runs tests in order until one fails. A failure is repeated, unless it was a hang.
 * @param seconds for all of them
 */
export async function firstFailure(suites: readonly TestFile[], tree: PrivateTree, seconds: number): Promise<Finding> {
  const unsteady: string[] = []
  let rest = suites.map(({ name }) => name)
  const deadline = performance.now() + seconds * 1000
  const left = (): number => Math.max(1, (deadline - performance.now()) / 1000)
  while (rest.length > 0) {
    const { output, timedOut, status } = await tree.run(command(rest, '--bail'), left())
    if (timedOut) return { by: 'the time limit', unsteady }
    const failed = results(output).find(({ isGood }) => !isGood)
    if (failed === undefined) {
      // an empty run must not count as passed
      if (status !== 0 || results(output).length < rest.length) throw new Error(`the tests did not run:\n${output}`)
      break
    }
    const isCertain = HANG.test(output) || (await tree.run(command([failed.name]), left())).status !== 0
    if (isCertain) {
      for (const suite of suites) if (suite.name === failed.name) suite.caught++
      return { by: failed.name, unsteady }
    }
    unsteady.push(failed.name)
    rest = rest.slice(rest.indexOf(failed.name) + 1)
  }
  return { by: undefined, unsteady }
}
