// npm run check:long [-- --only NAME]: checks that take too long for .ci/run. Each prints its seconds; all of them run, and
// the exit status says whether all passed.

import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { root } from '../build/files.mjs'

const { values } = parseArgs({ options: { only: { type: 'string' } } })

/** @type {Record<string, string[]>} */
const checks = {
  // as much as a release needs
  fuzz: ['test/fuzz/run.mjs', '--inputs', '10000000'],
  // with every access to the engine's memory checked
  'fuzz, checked': ['test/fuzz/run.mjs', '--inputs', '3000000', '--checked'],
  'fuzz, guided': ['test/fuzz/run.mjs', '--guided', '--inputs', '1000000'],
  'simulations, checked': ['test/run.mjs', 'sim/', 'core/', '--runtime', 'node'],
  // whole endpoints, every one on the checked build
  simulate: ['test/simulate/run.mjs', '--seeds', '10000'],
  'fuzz under Bun': ['test/fuzz/run.mjs', '--inputs', '1000000', '--runtime', 'bun'],
  // all states of a session's life, at the bounds of docs/reliability.md
  model: ['test/model/run.mjs'],
  // without the short cut that states which are known to end well are not followed again
  'model, thorough': ['test/model/run.mjs', '--quick', '--thorough'],
  // real processes: all moments, pauses, paths and mixtures of programs; with KCPTUN_LIBEV those of kcptun-libev too
  faults: ['test/run.mjs', 'faults/', '--long', '--jobs', '1'],
  // tests must pass on a loaded machine: four files at once on two cores
  'tests under load': ['test/run.mjs', '--jobs', '4'],
  // deliberate breakages of the engine and the host. 95 % are the aim for a draw whose missed ones got a test; of one that
  // nobody has looked at, the tests caught 83 % when this was written
  mutation: ['test/mutation/run.mjs', '--count', '100', '--seed', '1', '--target', '80'],
  // half an hour on both runtimes: handles, engine memory, RSS
  soak: ['test/soak/run.mjs'],
  // every table of the simulator instead of the short one of the snapshot
  simulator: ['dist/bench.js', 'sim'],
  // every artefact, those for other systems too: Bun's runtimes for these come from the registry
  release: ['build/release.mjs'],
  // with KCPTUN_LIBEV: both programs in each place
  interop: ['test/run.mjs', 'interop/', 'e2e/raw-core'],
}

let failed = 0
for (const [name, args] of Object.entries(checks)) {
  if (values.only !== undefined && values.only !== name) continue
  const start = performance.now()
  const { status } = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: 'inherit',
    env: name.endsWith('checked') ? { ...process.env, ENGINE_BUILD: 'checked' } : process.env,
  })
  const seconds = Math.round((performance.now() - start) / 1000)
  process.stdout.write(`check:long: ${name} ${status === 0 ? 'passed' : 'FAILED'} in ${seconds} s\n`)
  if (status !== 0) failed++
}
process.exitCode = failed === 0 ? 0 : 1
