// npm run fuzz -- [--inputs N] [--seconds S] [--seed N] [--episode N] [--log LINES] [--outputs] [--debug | --checked] [--wasm FILE] [--runtime node|bun]
// npm run fuzz -- --guided [--target NAME,...] [--inputs N] [--seconds S] [--seed N] [--input HEX,...|@FILE] [--unguided]
//
// Builds what is stale, bundles test/fuzz/main.ts or test/fuzz/guided/main.ts and runs it in a child process. A child that
// reports no new episode for PATIENCE_MS hangs in the engine: it is killed, and the command that reproduces it is printed.

import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import * as esbuild from 'esbuild'
import { build } from '../../build/build.mjs'
import { commonOptions } from '../../build/bundles.mjs'
import { filesBelow, inProject } from '../../build/files.mjs'
import { countEdges } from './guided/instrument.mjs'

/** An episode takes a fraction of a second. */
const PATIENCE_MS = 120_000

/** Files of the host whose edges guide the inputs. */
function parsers() {
  const folders = ['host/config', 'host/monitoring', 'host/net']
    .flatMap(filesBelow)
    .filter((file) => file.endsWith('.ts'))
  const files = ['cli/args', 'cli/options', 'linux/sockaddr', 'log/json', 'service/identity', 'transport/obfs/cover']
  return [...folders, ...files.map((file) => `host/${file}.ts`), 'test/fuzz/guided/planted.ts']
}

/** @param {string} name */
function take(name) {
  const at = args.indexOf(name)
  return at < 0 ? undefined : args.splice(at, 2)[1]
}

const args = process.argv.slice(2)
const guided = args.indexOf('--guided')
const isGuided = guided >= 0
if (isGuided) args.splice(guided, 1)
const runtime = take('--runtime') ?? 'node'
const seed = take('--seed') ?? String(randomInt(1 << 30))

if (!(await build({ ifStale: true, only: ['core', 'checked', 'bundles'] }))) process.exit(1)
const outfile = inProject(`.cache/fuzz/${isGuided ? 'guided' : 'main'}.mjs`)
await esbuild.build({
  ...commonOptions,
  entryPoints: [isGuided ? 'test/fuzz/guided/main.ts' : 'test/fuzz/main.ts'],
  plugins: [...(commonOptions.plugins ?? []), ...(isGuided ? [countEdges(parsers())] : [])],
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
/** The last that the process began: an episode, or a target and its inputs. */
let last = '0'
/** @type {NodeJS.Timeout | undefined} */
let timer
function watch() {
  clearTimeout(timer)
  timer = setTimeout(() => {
    const again = isGuided ? `--guided --target ${last}` : `--episode ${last}`
    const build = args.filter((arg) => arg === '--debug' || arg === '--checked').join(' ')
    console.log(`FAILED: no end of an input; again: npm run fuzz -- --seed ${seed} ${again} ${build}`)
    child.kill('SIGKILL')
  }, PATIENCE_MS)
}
watch()
child.on('message', (message) => {
  last = String(message)
  watch()
})
child.on('exit', (code) => {
  clearTimeout(timer)
  process.exitCode = code ?? 1
})
