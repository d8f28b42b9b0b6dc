// node build/build.mjs [--if-stale] [--no-types]: builds everything in dist/ from the sources.
// --if-stale skips steps whose sources have not changed since the step last succeeded.

import { mkdirSync, readFileSync } from 'node:fs'
import { HEADER, WASM_TYPES, writeInterfaces } from './abi.mjs'
import { buildBundle, buildEntries, copyFile } from './bundles.mjs'
import { buildChecked, buildCore } from './core.mjs'
import { exists, fingerprint, inProject, replaceFile, withLock } from './files.mjs'
import { buildDashboard, buildExamplePage } from './pages.mjs'
import * as plan from './plan.mjs'
import { buildTypes } from './types.mjs'

const STAMPS = 'dist/.stamps.json'

/** @param {string} text */
const say = (text) => process.stderr.write(`build: ${text}\n`)

/** @returns {Record<string, string>} */
function readStamps() {
  try {
    return JSON.parse(readFileSync(inProject(STAMPS), 'utf8'))
  } catch {
    return {}
  }
}

/**
 * Builds one product.
 * @param {{ source: string, out: string }} product
 * @param {() => Promise<string | void>} make
 */
async function product({ source, out }, make) {
  if (!exists(source)) throw new Error(`${source} is missing, required for ${out}`)
  const note = await make()
  say(note || out)
}

/** @typedef {'core' | 'checked' | 'bundles' | 'types'} StepName */

/** @type {Record<StepName, { outputs: () => string[], run: () => Promise<void> }>} */
const steps = {
  core: {
    outputs: () => [plan.core.release, plan.core.debug, plan.core.inlined, HEADER, WASM_TYPES],
    async run() {
      writeInterfaces()
      await product({ ...plan.core, out: plan.core.release }, buildCore)
    },
  },
  checked: {
    outputs: () => [plan.checked.out],
    run: () => product(plan.checked, buildChecked),
  },
  bundles: {
    outputs: () =>
      [plan.dashboard, plan.page, ...plan.entries.bundles, ...plan.bundles, ...plan.copies].map((item) => item.out),
    async run() {
      // the bundles include it
      await product(plan.dashboard, buildDashboard)
      const results = await Promise.allSettled([
        product({ source: 'host', out: plan.entries.parts }, () => buildEntries(plan.entries)),
        ...plan.bundles.map((bundle) => product(bundle, () => buildBundle(bundle))),
        ...plan.copies.map((copy) => product(copy, () => copyFile(copy))),
      ])
      const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
      if (errors.length > 0) throw new AggregateError(errors, errors.map((error) => error.message).join('\n'))
      // it includes the bundle for browsers
      await product(plan.page, buildExamplePage)
    },
  },
  types: {
    outputs: () => [plan.types.out],
    run: () => product({ source: 'host', out: plan.types.out }, buildTypes),
  },
}

/**
 * Runs the named steps in order; a failed step does not prevent later ones.
 * @param {{ ifStale?: boolean, only?: readonly StepName[] }} [options]
 * @returns {Promise<boolean>} whether all steps succeeded
 */
export function build({ ifStale = false, only = ['core', 'checked', 'bundles', 'types'] } = {}) {
  return withLock(async () => {
    mkdirSync(inProject('dist'), { recursive: true })
    let good = true
    for (const name of only) {
      const step = steps[name]
      const print = fingerprint(plan.inputs[name])
      const stamp = JSON.stringify([print, step.outputs().map(exists)])
      if (ifStale && readStamps()[name] === stamp) continue
      try {
        await step.run()
        // a source that changed meanwhile changes the next fingerprint, so the step is stale again
        const made = JSON.stringify([print, step.outputs().map(exists)])
        replaceFile(STAMPS, `${JSON.stringify({ ...readStamps(), [name]: made }, null, 2)}\n`)
      } catch (error) {
        good = false
        say(`FAILED ${name}: ${error instanceof Error ? error.message : error}`)
      }
    }
    return good
  })
}

if (process.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const args = process.argv.slice(2)
  const unknown = args.find((arg) => arg !== '--if-stale' && arg !== '--no-types')
  if (unknown) {
    say(`unknown argument ${unknown}`)
    process.exit(2)
  }
  const good = await build({
    ifStale: args.includes('--if-stale'),
    ...(args.includes('--no-types') ? { only: /** @type {const} */ (['core', 'checked', 'bundles']) } : {}),
  })
  process.exitCode = good ? 0 : 1
}
