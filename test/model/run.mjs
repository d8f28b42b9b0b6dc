// npm run model -- [--quick] [--only NAME] [--seconds S] [--states N] [--plant N]
//
// Builds the engines of the model, bundles test/model/main.ts and runs it.

import { spawnSync } from 'node:child_process'
import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { inProject } from '../../build/files.mjs'
import { buildModel } from './build.mjs'

if (!(await build({ ifStale: true, only: ['core'] }))) process.exit(1)
await buildModel()
const outfile = inProject('.cache/model/main.mjs')
await esbuild.build({
  ...commonOptions,
  entryPoints: ['test/model/main.ts'],
  outfile,
  platform: 'node',
  sourcemap: 'inline',
})
const options = ['--enable-source-maps', '--max-old-space-size=6144']
const { status } = spawnSync(process.execPath, [...options, outfile, ...process.argv.slice(2)], {
  cwd: inProject('.'),
  stdio: 'inherit',
})
process.exitCode = status ?? 1
