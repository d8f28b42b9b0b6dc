/** Each example does what its first line says. native-c and browser have tests of their own. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { generatePsk } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { projectRoot } from '../../testkit/process.ts'

const test = suite('examples')
const run = promisify(execFile)
const PSK = generatePsk()
const options = { cwd: projectRoot, env: { ...process.env, PSK }, timeout: 30_000 }

test('echo-stream: a client gets back what it sends', async () => {
  const server = spawn('node', ['examples/echo-stream/server.mjs', '0'], { ...options, stdio: 'pipe' })
  try {
    const [line] = await once(server.stdout, 'data')
    const address = /UDP (.*)\n/.exec(String(line))?.[1] ?? ''
    const { stdout } = await run('node', ['examples/echo-stream/client.mjs', address, 'some text'], options)
    assert.match(stdout, /^stream: some text\npair: some text\nround trip: [\d.]+ ms\n$/)
  } finally {
    server.kill()
  }
})

test('raw-core: a sealed message and its answer', async () => {
  const { stdout } = await run('node', ['examples/raw-core/main.mjs'], options)
  assert.is(stdout, 'the server answers: HELLO\n')
})

test('tunnel-in-process: a request passes through the tunnel', async () => {
  const { stdout } = await run('node', ['examples/tunnel-in-process/main.mjs'], options)
  assert.is(stdout, 'you asked for /through/the/tunnel\n')
})

test('custom-transport: everything arrives although datagrams are lost', async () => {
  const { stdout } = await run('node', ['examples/custom-transport/main.mjs'], options)
  assert.match(stdout, /^1000000 bytes came back .*; [1-9]\d* segments were sent again\n$/)
})

test('deno: a server and a client in Deno', async () => {
  const permissions = ['--allow-net', '--allow-read', '--allow-env']
  const args = ['run', ...permissions, 'examples/deno/main.ts']
  const { stdout } = await run('node_modules/.bin/deno', args, { ...options, env: { ...options.env, NO_COLOR: '1' } })
  assert.is(stdout, 'hello from Deno\n')
})

test.run()
