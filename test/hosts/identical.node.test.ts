// time limit: 180 s
/**
 * The same calls with the same time and entropy give the same bytes on every host: results, datagrams, events, bytes of
 * streams, and at the end the whole memory of the engine.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as esbuild from 'esbuild'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { instantiate } from '../../host/engine/core.ts'
import { buildNative } from '../../testkit/native.ts'
import { Recorder } from '../../testkit/recorder.ts'
import { replay } from '../../testkit/replay.ts'
import { Pair, type Side } from '../../testkit/sim/pair.ts'
import { browserProblem, launch } from '../browser/browser.ts'
import { skip } from '../skip.ts'

const BYTES = 150_000
const OUTPUT_MAX = 1 << 28
const LINK = {
  delay: 20,
  jitter: 3,
  loss: 0.05,
  duplicate: 0.01,
  reorder: 0.02,
  corrupt: 0.005,
  rate: 1000,
  queue: 32_768,
}

/** A transfer both ways over links with loss, recorded at both ends. */
function record(): Readonly<Record<Side, string>> {
  const recorders = { client: new Recorder(instantiate()), server: new Recorder(instantiate()) }
  const pair = new Pair({
    seed: 2026,
    sealing: 'random',
    up: LINK,
    down: LINK,
    clientClock: 0xffff_f000,
    // the engine asks for more while it works
    entropyChunk: 1024,
    wrap: (_calls, side) => recorders[side].exports,
  })
  const connection = pair.connect({
    client: { bytes: BYTES, stream: 1 },
    server: { bytes: BYTES / 2, stream: 2, fin: 'last' },
  })
  assert.ok(pair.finish(60) && connection.clean, connection.describe())
  return { client: recorders.client.script, server: recorders.server.script }
}

const test = suite('identical on every host')
const folder = mkdtempSync(join(tmpdir(), 'kcptun-hosts-'))
const scripts = record()
const expected = { client: replay(scripts.client, instantiate()), server: replay(scripts.server, instantiate()) }
test.after(() => rmSync(folder, { recursive: true, force: true }))

async function bundle(name: string, options: esbuild.BuildOptions): Promise<string> {
  const outfile = join(folder, `${name}.mjs`)
  await esbuild.build({
    entryPoints: [`test/hosts/${name}.ts`],
    outfile,
    bundle: true,
    format: 'esm',
    alias: { 'kcptun-core-wasm': './dist/core-wasm.js' },
    ...options,
  })
  return outfile
}

/** Fails with the first step that differs: the outputs have megabytes. */
function same(side: Side, output: string): void {
  if (output === expected[side]) return
  const steps = scripts[side].split('\n')
  const printed = output.split('\n')
  const at = expected[side].split('\n').findIndex((line, i) => line !== printed[i])
  assert.unreachable(`${side}, step ${at + 1}, ${steps[at]?.slice(0, 80)}: ${printed[at]?.slice(0, 80)}`)
}

test('what is recorded has losses, retransmissions and requests for entropy', () => {
  for (const side of ['client', 'server'] as const) {
    const calls = [...scripts[side].matchAll(/^call (\w+)/gm)].map(([, name]) => name)
    for (const name of ['configure', 'handle_datagrams', 'poll_transmit', 'stream_commit', 'stream_consume']) {
      assert.ok(calls.includes(name), `${side}: ${name}`)
    }
    assert.ok(calls.filter((name) => name === 'entropy_filled').length > 2)
    assert.ok(expected[side].length > 2 * BYTES)
  }
})

for (const [name, path, args] of [
  ['Node', process.execPath, []],
  ['Bun', 'node_modules/bun/bin/bun.exe', []],
  ['Deno', 'node_modules/deno/deno', ['run', '-A']],
] as const) {
  const title = `${name} gives the same bytes`
  if (!existsSync(path)) skip(test, title, `there is no ${path}`)
  else {
    test(title, async () => {
      const program = await bundle('program', { platform: 'node' })
      for (const side of ['client', 'server'] as const) {
        const [script, output] = [join(folder, 'script'), join(folder, 'output')]
        writeFileSync(script, scripts[side])
        execFileSync(path, [...args, program, script, output])
        same(side, readFileSync(output, 'utf8'))
      }
    })
  }
}

const inChromium = 'Chromium gives the same bytes'
if (browserProblem !== undefined) skip(test, inChromium, browserProblem)
else {
  test(inChromium, async () => {
    const browser = await launch()
    try {
      const page = await browser.newPage()
      await page.addScriptTag({ path: await bundle('page', { platform: 'browser', format: 'iife' }) })
      for (const side of ['client', 'server'] as const) {
        same(side, await page.evaluate((script) => Reflect.get(globalThis, 'replayScript')(script), scripts[side]))
      }
    } finally {
      await browser.close()
    }
  })
}

const inC = 'the engine compiled to C gives the same bytes'
const native = buildNative()
if ('reason' in native) skip(test, inC, native.reason)
else {
  test(inC, () => {
    for (const side of ['client', 'server'] as const) {
      const options = { input: scripts[side], encoding: 'utf8', maxBuffer: OUTPUT_MAX } as const
      same(side, execFileSync(join(native.folder, 'kcptun-wasm-replay'), options))
    }
  })
}

test.run()
