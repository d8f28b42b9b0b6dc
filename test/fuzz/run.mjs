// npm run fuzz -- [--inputs N] [--seconds S] [--seed N] [--episode N] [--log LINES] [--outputs] [--debug | --checked] [--wasm FILE] [--runtime node|bun]
//
// Builds what is stale, bundles test/fuzz/main.ts and runs it in a process of its own. One that no longer reports a new
// episode hangs in the engine: it is ended, and the command that shows it again is printed.

import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { inProject } from '../../build/files.mjs'

/** An episode takes a fraction of a second. */
const PATIENCE_MS = 120_000

/** @param {string} name */
function take(name) {
  const at = args.indexOf(name)
  return at < 0 ? undefined : args.splice(at, 2)[1]
}

const args = process.argv.slice(2)
const runtime = take('--runtime') ?? 'node'
const seed = take('--seed') ?? String(randomInt(1 << 30))

if (!(await build({ ifStale: true, only: ['core', 'checked', 'bundles'] }))) process.exit(1)
const outfile = inProject('.cache/fuzz/main.mjs')
await esbuild.build({
  ...commonOptions,
  entryPoints: ['test/fuzz/main.ts'],
  outfile,
  platform: 'node',
  sourcemap: 'inline',
})

const program = runtime === 'bun' ? inProject('node_modules/bun/bin/bun.exe') : process.execPath
const options = runtime === 'bun' ? [] : ['--enable-source-maps']
const child = spawn(program, [...options, outfile, '--seed', seed, ...args], {
  cwd: inProject('.'),
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
})
let episode = 0
/** @type {NodeJS.Timeout | undefined} */
let timer
function watch() {
  clearTimeout(timer)
  timer = setTimeout(() => {
    const build = args.filter((arg) => arg === '--debug' || arg === '--checked').join(' ')
    console.log(`FAILED: no end of an input; again: npm run fuzz -- --seed ${seed} --episode ${episode} ${build}`)
    child.kill('SIGKILL')
  }, PATIENCE_MS)
}
watch()
child.on('message', (message) => {
  episode = Number(message)
  watch()
})
child.on('exit', (code) => {
  clearTimeout(timer)
  process.exitCode = code ?? 1
})
