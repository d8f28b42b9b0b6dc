// node test/run.mjs [--jobs N] [--runtime node|bun|deno] [--root DIR] [--no-build] [--bail] [--long] [--coverage] [filter...]
//
// Bundles every *.test.ts below the test root whose path contains a filter, and runs each file in a separate process,
// in the project's root, under Node and under Bun. *.node.test.ts, *.bun.test.ts and *.deno.test.ts run only under that
// runtime; `--runtime deno` runs the files without such a name under Deno.
// Directories named `fixtures` are ignored.
//
// --jobs files run at once (default 2), and beside them two whose first line ends in `waits`: `// time limit: 300 s,
// waits`. That is for files that need less than a quarter of a core, because they wait for timeouts.
//
// A file fails if a test fails, if it has no test, if its exit status is not 0, if it is still running after its time
// limit (60 s, or as in a first line `// time limit: 300 s` or `// time limit: 300 s, long 7200 s`), or if it skips a
// test without a reason. The reason is an output line `skip: NAME: REASON` per skipped test (see test/skip.ts). Output
// lines `note: FIGURE` are printed.
//
// --bail ends the run at the first failed file, and runs files in the order of the filters.
//
// --long runs the long form of tests that have one: TEST_LONG=1 is set, and the second time limit applies.
//
// --coverage prints the share of TypeScript lines that test/host and test/runtime execute under Node. It includes only
// those test processes: not the programs that other tests start, not Bun, not the engine.

import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import * as esbuild from 'esbuild'
import { build } from '../build/build.mjs'
import { commonOptions } from '../build/bundles.mjs'
import { inProject, root } from '../build/files.mjs'

const DEFAULT_JOBS = 2
/** Files named `waits` that run at once beside the jobs. */
const WAITING_JOBS = 2
const DEFAULT_LIMIT_S = 60
/** The checked build of the engine is slower (testkit/checked-core.ts). */
const LIMIT_FACTOR = process.env['ENGINE_BUILD'] === 'checked' ? 5 : 1
/** Characters kept of the end of a file's output. */
const MAX_OUTPUT = 1 << 20

/** @typedef {'node' | 'bun' | 'deno'} RuntimeName */
/** @typedef {{ path: string, name: string, limit: number, waits: boolean, runtimes: RuntimeName[] }} TestFile */
/** @typedef {{ output: string, status: number | null, signal: string | null, timedOut: boolean }} Outcome */
/**
 * @typedef {{
 *   passed: number, failed: number, skipped: number, total: number, reasons: string[], notes: string[], problem: string
 * }} Verdict
 */

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: 'string', default: String(DEFAULT_JOBS) },
    runtime: { type: 'string' },
    root: { type: 'string', default: 'test' },
    'no-build': { type: 'boolean', default: false },
    bail: { type: 'boolean', default: false },
    long: { type: 'boolean', default: false },
    coverage: { type: 'boolean', default: false },
  },
})

/** @type {readonly RuntimeName[]} */
const runtimes = ['node', 'bun', 'deno']
/** Those that run a file whose name has no runtime. @type {readonly RuntimeName[]} */
const usual = ['node', 'bun']

const testRoot = resolve(root, options.root)
const jobs = Number(options.jobs)
if (!Number.isInteger(jobs) || jobs < 1) fail(`--jobs ${options.jobs}: a positive integer is wanted`)
if (options.runtime !== undefined && !runtimes.some((name) => name === options.runtime)) {
  fail(`--runtime ${options.runtime}: node, bun or deno is wanted`)
}

/**
 * @param {string} message
 * @returns {never}
 */
function fail(message) {
  process.stderr.write(`test/run.mjs: ${message}\n`)
  process.exit(2)
}

/**
 * @param {string} directory
 * @returns {string[]} full paths of test files, sorted
 */
function findTests(directory) {
  return readdirSync(directory, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(directory, entry.name)
      if (entry.isDirectory()) return entry.name === 'fixtures' || entry.name === 'node_modules' ? [] : findTests(path)
      return entry.name.endsWith('.test.ts') ? [path] : []
    })
}

/**
 * @param {string} path
 * @returns {TestFile}
 */
function describe(path) {
  const firstLine = readFileSync(path, 'utf8').split('\n', 1)[0] ?? ''
  const [, short = DEFAULT_LIMIT_S, long = short, waits] =
    /^\/\/ time limit: (\d+) s\b(?:, long (\d+) s\b)?(, waits\b)?/.exec(firstLine) ?? []
  const limit = LIMIT_FACTOR * Number(options.long ? long : short)
  const only = runtimes.filter((name) => path.endsWith(`.${name}.test.ts`))
  const named = only.length > 0 ? only : options.runtime === 'deno' ? [...runtimes] : [...usual]
  return {
    path,
    name: relative(testRoot, path)
      .replaceAll('\\', '/')
      .replace(/\.test\.ts$/, ''),
    limit,
    // alone means alone
    waits: waits !== undefined && jobs > 1 && !options.bail,
    runtimes: options.runtime === undefined ? named : named.filter((name) => name === options.runtime),
  }
}

/**
 * @param {RuntimeName} runtime
 * @param {string} bundle
 * @returns {[string, string[]]}
 */
function command(runtime, bundle) {
  if (runtime === 'node') return [process.execPath, ['--enable-source-maps', bundle]]
  if (runtime === 'bun') return [inProject('node_modules/bun/bin/bun.exe'), [bundle]]
  return [inProject('node_modules/deno/deno'), ['run', '-A', bundle]]
}

/** Running process groups. @type {Set<number>} */
const groups = new Set()

/** @param {number} pid */
function killGroup(pid) {
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL')
  } catch {
    // the group has exited
  }
}

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => {
    for (const pid of groups) killGroup(pid)
    cleanUp()
    process.exit(1)
  })
}

/**
 * Runs a test process as the leader of a process group; its remaining children are killed when it exits.
 * @param {RuntimeName} runtime
 * @param {string} bundle
 * @param {number} limit seconds
 * @param {boolean} isCovered whether the process counts for --coverage
 * @returns {Promise<Outcome>}
 */
function execute(runtime, bundle, limit, isCovered) {
  return new Promise((resolve) => {
    const [program, args] = command(runtime, bundle)
    const env = {
      ...process.env,
      ...(isCovered && { NODE_V8_COVERAGE: coverageDirectory }),
      ...(options.long && { TEST_LONG: '1' }),
    }
    const child = spawn(program, args, { cwd: root, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    let timedOut = false
    const collect = (/** @type {string} */ text) => {
      output = (output + text).slice(-MAX_OUTPUT)
    }
    child.stdout.setEncoding('utf8').on('data', collect)
    child.stderr.setEncoding('utf8').on('data', collect)
    const { pid } = child
    if (pid !== undefined) groups.add(pid)
    const timer = setTimeout(() => {
      timedOut = true
      if (pid !== undefined) killGroup(pid)
    }, limit * 1000)
    child.on('error', (error) => collect(`${error.message}\n`))
    // remaining children hold its pipes open: `close` is emitted only after they have exited
    child.on('exit', () => pid !== undefined && killGroup(pid))
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      if (pid !== undefined) groups.delete(pid)
      resolve({ output, status, signal, timedOut })
    })
  })
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: colours of a terminal
const COLOURS = /\x1b\[[0-9;]*m/g
const SUMMARY = /^\s*Total:\s+(\d+)\n\s*Passed:\s+(\d+)\n\s*Skipped:\s+(\d+)\n/gm
const REASON = /^[\s•✘]*skip: (.+)$/gm
const NOTE = /^[\s•✘]*note: (.+)$/gm

/**
 * Combines uvu's totals and the exit of the process.
 * @param {Outcome} outcome
 * @param {number} limit seconds
 * @returns {Verdict}
 */
function judge({ output, status, signal, timedOut }, limit) {
  const text = output.replace(COLOURS, '')
  const [, total = 0, passed = 0, skipped = 0] = ([...text.matchAll(SUMMARY)].at(-1) ?? []).map(Number)
  const reasons = [...text.matchAll(REASON)].map((match) => match[1] ?? '')
  const notes = [...text.matchAll(NOTE)].map((match) => match[1] ?? '')
  const problems = []
  if (timedOut) problems.push(`still running after ${limit} s`)
  else if (signal) problems.push(`killed by ${signal}`)
  else if (status !== 0) problems.push(`exit status ${status}`)
  if (total + skipped === 0) problems.push('no test ran')
  if (passed < total) problems.push(`${total - passed} of ${total} tests failed`)
  if (reasons.length < skipped) problems.push(`${skipped} skipped, but ${reasons.length} reasons given`)
  const failed = problems.length > 0 ? Math.max(1, total - passed) : 0
  return { passed, failed, skipped, total, reasons, notes, problem: problems.join(', ') }
}

const bundleDirectory = join(inProject('.cache/test'), String(process.pid))
const coverageDirectory = join(bundleDirectory, 'coverage')
/** Tests that run the TypeScript in their own process. */
const COVERED = /^(host|runtime)\//

function cleanUp() {
  rmSync(bundleDirectory, { recursive: true, force: true })
}

/**
 * @param {TestFile} file
 * @returns {Promise<string>} path of the bundle
 */
async function bundleTest(file) {
  const outfile = join(bundleDirectory, `${file.name}.mjs`)
  await esbuild.build({
    ...commonOptions,
    entryPoints: [file.path],
    outfile,
    platform: 'node',
    sourcemap: 'inline',
    logLevel: 'silent',
  })
  return outfile
}

const totals = { passed: 0, failed: 0, skipped: 0 }

/**
 * @param {TestFile} file
 * @param {RuntimeName} runtime
 * @param {string | Error} bundle
 */
async function runFile(file, runtime, bundle) {
  const start = performance.now()
  const outcome =
    bundle instanceof Error
      ? { output: `${bundle.message}\n`, status: 1, signal: null, timedOut: false }
      : await execute(runtime, bundle, file.limit, options.coverage && runtime === 'node' && COVERED.test(file.name))
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  const verdict = judge(outcome, file.limit)
  totals.passed += verdict.passed
  totals.failed += verdict.failed
  totals.skipped += verdict.skipped
  const mark = verdict.failed > 0 ? 'FAIL' : 'ok  '
  const skipNote = verdict.skipped > 0 ? `, ${verdict.skipped} skipped` : ''
  const lines = [
    `${mark} ${runtime.padEnd(4)} ${file.name.padEnd(40)} ${verdict.passed}/${verdict.total}${skipNote}  ${seconds} s`,
    ...verdict.reasons.map((reason) => `       skip: ${reason}`),
    ...verdict.notes.map((note) => `       ${note}`),
  ]
  if (verdict.failed > 0) {
    lines.push(`  ${basename(file.path)} under ${runtime}: ${verdict.problem}`)
    lines.push(
      ...outcome.output
        .trimEnd()
        .split('\n')
        .map((line) => `  | ${line}`),
    )
  }
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** The share of program lines that the covered tests executed. */
function coverageLine() {
  const reports = join(bundleDirectory, 'report')
  const { stderr, status } = spawnSync(
    process.execPath,
    [
      inProject('node_modules/c8/bin/c8.js'),
      'report',
      ...['--temp-directory', coverageDirectory, '--reports-dir', reports, '--reporter', 'json-summary'],
      // coverage is measured on the bundles
      ...['--include', '.cache/test/**', '--exclude', 'none'],
    ],
    { cwd: root, encoding: 'utf8' },
  )
  if (status !== 0) return `coverage of the TypeScript: unknown: ${stderr.trim()}`
  /** @type {Record<string, { lines: { total: number, covered: number } }>} */
  const summary = JSON.parse(readFileSync(join(reports, 'coverage-summary.json'), 'utf8'))
  let total = 0
  let covered = 0
  for (const [path, { lines }] of Object.entries(summary)) {
    if (!/^(host\/(?!dashboard)|runtime-shared\/|runtime-node\/)/.test(relative(root, path))) continue
    total += lines.total
    covered += lines.covered
  }
  const share = ((100 * covered) / total).toFixed(1)
  return `coverage of the TypeScript by test/host and test/runtime under Node: ${share} % of lines (${covered} of ${total})`
}

if (!options['no-build']) {
  const good = await build({ ifStale: true, only: ['core', 'checked', 'bundles'] })
  // a filtered run may not depend on the part that does not build
  if (!good && filters.length === 0) fail('the build failed')
  if (!good) process.stderr.write('test/run.mjs: THE BUILD FAILED, tests that use dist/ use an old build\n')
}

/**
 * @param {TestFile} file
 * @returns {number} index of the first filter that a file matches; -1 when it matches none
 */
const rank = (file) => filters.findIndex((filter) => `${file.name}.test.ts`.includes(filter.replace(/^test\//, '')))

const files = findTests(testRoot)
  .map(describe)
  .filter((file) => filters.length === 0 || rank(file) >= 0)
  .filter((file) => file.runtimes.length > 0)
if (options.bail) files.sort((a, b) => rank(a) - rank(b))
if (files.length === 0) fail(`no test file matches ${filters.join(' ')}`)

mkdirSync(bundleDirectory, { recursive: true })

/** @param {readonly TestFile[]} some */
const tasksOf = (some) =>
  some.flatMap((file) => {
    /** @type {Promise<string | Error> | undefined} */
    let bundle
    return file.runtimes.map((runtime) => async () => {
      bundle ??= bundleTest(file).catch((/** @type {Error} */ error) => error)
      await runFile(file, runtime, await bundle)
    })
  })

/**
 * @param {(() => Promise<void>)[]} queue
 * @param {number} lanes
 */
const drain = (queue, lanes) =>
  Array.from({ length: lanes }, async () => {
    for (let task = queue.shift(); task; task = queue.shift()) {
      await task()
      if (options.bail && totals.failed > 0) queue.length = 0
    }
  })

await Promise.all([
  ...drain(tasksOf(files.filter((file) => !file.waits)), jobs),
  ...drain(tasksOf(files.filter((file) => file.waits)), WAITING_JOBS),
])
if (options.coverage) process.stdout.write(`${coverageLine()}\n`)
cleanUp()
await esbuild.stop()

const skipNote = totals.skipped > 0 ? `, ${totals.skipped} skipped` : ''
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed${skipNote}\n`)
process.exitCode = totals.failed > 0 ? 1 : 0
