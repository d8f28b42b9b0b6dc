/** What the library does to its process: unref(), ref(), nothing on the terminal. */
import { spawn } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('library/process')

/** Runs a program that imports the library. @returns its output and exit status; a number instead: killed after ms */
function run(body: string, limit = 30_000): Promise<{ readonly output: string; readonly status: number | null }> {
  const program = `import { createClient, createServer, createTunnel, generatePsk } from 'kcptun-wasm'\n${body}`
  const args = 'bun' in process.versions ? ['-e', program] : ['--input-type=module', '-e', program]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: limit })
  let output = ''
  const add = (part: Buffer): void => {
    output += part
  }
  child.stdout.on('data', add)
  child.stderr.on('data', add)
  return new Promise((resolve) => child.on('close', (status) => resolve({ output, status })))
}

const start = (path: string): string => `
  const psk = generatePsk()
  const udp = { path: '${path}' }
  const server = await createServer({ bind: '127.0.0.1:0', psk, udp }, (stream) => stream.pipe(stream))
  const client = await createClient({ server: server.address, psk, udp })
  const stream = await client.connect()
  stream.write('x')
  await new Promise((resolve) => stream.once('data', resolve))
`

for (const path of ['fast', 'portable']) {
  test(`unref() lets the process end, and nothing was printed (${path} UDP)`, async () => {
    assert.equal(await run(`${start(path)} server.unref(); client.unref()`), { output: '', status: 0 })
  })

  test(`ref() after unref() keeps it (${path} UDP)`, async () => {
    const result = await run(`${start(path)} server.unref(); client.unref().ref(); console.log('kept')`, 3000)
    assert.is(result.output, 'kept\n')
    assert.is(result.status, null, 'it was still running')
  })
}

test('close() lets the process end, also after unref()', async () => {
  const body = `${start('auto')} server.unref(); client.unref(); await client.close(); await server.close(); console.log('closed')`
  assert.equal(await run(body), { output: 'closed\n', status: 0 })
})

test('a stream that waits for its answer, and timers, do not keep an unreferenced client', async () => {
  const body = `
    const client = await createClient({ server: '127.0.0.1:9', psk: generatePsk(), keepalive: 1 })
    client.connect().catch(() => {})
    client.unref()`
  assert.equal(await run(body), { output: '', status: 0 })
})

test('an unreferenced tunnel and monitoring server', async () => {
  const body = `
    const psk = generatePsk()
    const config = { kcp_connect: '127.0.0.1:9', listen: '127.0.0.1:0', method: 'aes256gcm', psk, http_listen: '127.0.0.1:0' }
    const tunnel = await createTunnel({ config })
    await fetch('http://' + tunnel.monitoring + '/healthy', { headers: { connection: 'close' } }).then((answer) => answer.text())
    tunnel.unref()`
  assert.equal(await run(body), { output: '', status: 0 })
})

test.run()
