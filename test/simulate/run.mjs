// npm run simulate -- [--seeds N] [--first N] [--jobs N] [--roles PREFIX] | --show SEED | --shrink SEED
//
// Builds what is stale, bundles test/simulate/main.ts with the checked build of the engine and runs seeds in several
// processes. Fails if one of them violates an invariant, or if a long run leaves a fault, a pair of faults, a reloadable key,
// a role or a session state unreached. With --roles, only the seeds whose role begins so run, and nothing more is required.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { inProject } from '../../build/files.mjs'

/** Runs of at least this many seeds must reach everything. */
const COVERING_SEEDS = 300
/** What every seed carries at least, unless it fails. */
const STREAMS = 20
const BYTES = 1_000_000
/** A seed takes a fraction of a second: a process that reports none for this long hangs. */
const PATIENCE_MS = 120_000

/** Makes the bundle use the checked build. @type {esbuild.Plugin} */
const checkedCore = {
  name: 'checked-core',
  setup(plugin) {
    plugin.onResolve({ filter: /^kcptun-core-wasm$/ }, ({ path }) => ({ path, namespace: 'checked-core' }))
    plugin.onLoad({ filter: /.*/, namespace: 'checked-core' }, () => {
      const wasm = readFileSync(inProject('dist/core.checked.wasm')).toString('base64')
      return { contents: `export default ${JSON.stringify(wasm)}` }
    })
  },
}

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '300' },
    first: { type: 'string', default: '0' },
    jobs: { type: 'string', default: '2' },
    roles: { type: 'string', default: '' },
    show: { type: 'string' },
    shrink: { type: 'string' },
  },
})
const outfile = inProject(`.cache/simulate/${process.pid}/main.mjs`)
const coverageFile = inProject(`.cache/simulate/${process.pid}/coverage.mjs`)

/** @param {string} entry @param {string} out */
async function bundle(entry, out) {
  const plugins = [checkedCore, ...(commonOptions.plugins ?? [])]
  const entryPoints = [entry]
  await esbuild.build({ ...commonOptions, entryPoints, outfile: out, platform: 'node', sourcemap: 'inline', plugins })
}

/**
 * Runs a share of the seeds.
 * @param {number} first @param {number} count @param {number} step @param {(report: any) => void} onReport
 * @returns {Promise<boolean>} whether all of them were reported
 */
function runShare(first, count, step, onReport) {
  const args = ['--enable-source-maps', outfile, String(first), String(count), String(step), values.roles ?? '']
  const child = spawn(process.execPath, args, { cwd: inProject('.'), stdio: ['ignore', 'pipe', 'inherit'] })
  let seen = 0
  let timer = setTimeout(() => {}, 0)
  const watch = () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      console.log(
        `FAILED: no end of seed ${first + seen * step}; again: npm run simulate -- --show ${first + seen * step}`,
      )
      child.kill('SIGKILL')
    }, PATIENCE_MS)
  }
  watch()
  createInterface({ input: child.stdout }).on('line', (line) => {
    seen++
    watch()
    onReport(JSON.parse(line))
  })
  return new Promise((resolve) => {
    child.on('close', () => {
      clearTimeout(timer)
      resolve(seen === count)
    })
  })
}

async function simulate() {
  const [seeds = 0, first = 0, jobs = 0] = [values.seeds, values.first, values.jobs].map(Number)
  if (![seeds, first, jobs].every((value) => Number.isInteger(value) && value >= 0) || !seeds || !jobs) {
    console.error(
      `simulate: --seeds ${values.seeds} --first ${values.first} --jobs ${values.jobs}: integers are wanted`,
    )
    return 2
  }
  await bundle('testkit/world/coverage.ts', coverageFile)
  const { Coverage } = await import(coverageFile)
  const coverage = new Coverage()
  const started = performance.now()
  const total = { seeds: 0, failed: 0, streams: 0, bytes: 0, events: 0 }
  /** @param {any} report */
  const onReport = (report) => {
    const { seed, violations, streams, bytes, events, topology, isSkipped } = report
    if (isSkipped) return
    coverage.add(report)
    const problems = [...violations]
    if (problems.length === 0 && (streams < STREAMS || bytes < BYTES))
      problems.push(`${streams} streams, ${bytes} bytes`)
    total.seeds++
    total.streams += streams
    total.bytes += bytes
    total.events += events
    if (problems.length === 0) return
    total.failed++
    console.log(`FAILED seed ${seed} (${topology}): ${problems[0]}`)
    console.log(`  again: npm run simulate -- --show ${seed}   smaller: npm run simulate -- --shrink ${seed}`)
  }
  const shares = Array.from({ length: Math.min(jobs, seeds) }, (_, i) =>
    runShare(first + i, Math.ceil((seeds - i) / jobs), jobs, onReport),
  )
  const isComplete = (await Promise.all(shares)).every(Boolean)
  const seconds = (performance.now() - started) / 1000
  console.log(
    `${total.seeds} seeds in ${seconds.toFixed(0)} s: ${total.streams} streams, ${(total.bytes / 1e6).toFixed(0)} MB, ${total.events} events, ${total.failed} failed`,
  )
  const missing = seeds >= COVERING_SEEDS && !values.roles ? coverage.missing() : []
  for (const what of missing) console.log(`FAILED: no seed reached ${what}`)
  return isComplete && total.failed === 0 && missing.length === 0 ? 0 : 1
}

async function main() {
  if (!(await build({ ifStale: true, only: ['core', 'checked', 'bundles'] }))) return 1
  await bundle('test/simulate/main.ts', outfile)
  const one = values.show === undefined ? ['--shrink', values.shrink] : ['--show', values.show]
  if (one[1] === undefined) return simulate()
  const args = ['--enable-source-maps', outfile, one[0] ?? '', one[1]]
  const child = spawn(process.execPath, args, { cwd: inProject('.'), stdio: 'inherit' })
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)))
}

process.exitCode = await main()
