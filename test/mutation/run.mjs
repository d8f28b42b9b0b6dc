// npm run mutation -- [--count N] [--seed N] [--only N,N] [--tests PART,PART] [--longest SECONDS] [--limit SECONDS]
//                     [--target PERCENT]
//                     [--room PART] [--at FILE:LINE,FILE:LINE] [--jobs N] [--list]
//
// Draws mutants of the engine and of the host, and reports which of them the tests catch: docs/reliability.md.
// Builds what is stale, bundles test/mutation/main.ts and runs it.

import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { inProject } from '../../build/files.mjs'

if (!(await build({ ifStale: true, only: ['core', 'bundles'] }))) process.exit(1)
const outfile = inProject('.cache/mutation/main.mjs')
await esbuild.build({
  ...commonOptions,
  entryPoints: ['test/mutation/main.ts'],
  // build/ locates the project root relative to its own files
  external: ['../../build/*'],
  outfile,
  platform: 'node',
  sourcemap: 'inline',
})
await import(outfile)
