// npm run soak -- [--minutes 30] [--runtime node|bun|both] [--seed N] [--rate R] [--samples FILE]
//
// Builds what is stale, bundles test/soak/main.ts and runs it: a client and a server of each runtime carry R new connections
// per second over a bad link. Fails if descriptors or engine memory are not what they were, bytes are wrong, or the RSS does
// not keep its level. --samples writes all figures as JSON.

import { spawn } from 'node:child_process'
import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { inProject } from '../../build/files.mjs'

if (!(await build({ ifStale: true, only: ['core', 'bundles'] }))) process.exit(1)
const outfile = inProject(`.cache/soak/${process.pid}/main.mjs`)
await esbuild.build({
  ...commonOptions,
  entryPoints: ['test/soak/main.ts'],
  outfile,
  platform: 'node',
  sourcemap: 'inline',
})
const child = spawn(process.execPath, ['--enable-source-maps', outfile, ...process.argv.slice(2)], {
  cwd: inProject('.'),
  stdio: 'inherit',
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill('SIGTERM'))
child.on('close', (code) => {
  process.exitCode = code ?? 1
})
