// time limit: 240 s
/**
 * testkit/raw-host.mjs, a host written from docs/abi.md alone, transfers TCP as client and as server with every method.
 * Its peer is itself, our command line, or kcptun-libev.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config } from '../../testkit/process.ts'
import { freePort, libevPath, projectRoot, start, writeConfig } from '../../testkit/process.ts'
import { dial } from '../../testkit/tcp.ts'
import { answerAfterEnd, download, echo, scriptedTarget, type Tunnel, upload } from '../../testkit/traffic.ts'
import { METHODS } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TRANSFER_BYTES = 300_000
const PROGRAM = join(projectRoot, 'testkit/raw-host.mjs')

const test = suite('raw-core')

interface End {
  readonly program: 'raw' | 'node' | 'libev'
  stop(): Promise<unknown>
}

/** Starts the example as described in its first line. */
async function startRaw(config: Config): Promise<End> {
  const file = writeConfig(config)
  const child: ChildProcess = spawn('node', [PROGRAM, file.path], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  child.stdout?.on('data', (chunk) => (text += String(chunk)))
  child.stderr?.on('data', (chunk) => (text += String(chunk)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
    file.remove()
  }
  try {
    await waitFor('the example serves', () => {
      if (child.exitCode !== null) throw new Error(text)
      return /^(listen|bind) /m.test(text)
    })
  } catch (error) {
    await stop()
    throw error
  }
  return { program: 'raw', stop }
}

const startEnd = (program: End['program'], config: Config): Promise<End> =>
  program === 'raw' ? startRaw(config) : (start(program, config) as Promise<End>)

for (const [server, client] of [
  ['raw', 'raw'],
  ['node', 'raw'],
  ['raw', 'node'],
  ['libev', 'raw'],
  ['raw', 'libev'],
] as const) {
  for (const method of METHODS) {
    const name = `transfers succeed: ${server} server, ${client} client, ${method}`
    if (libevPath === undefined && (server === 'libev' || client === 'libev')) {
      skip(test, name, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
      continue
    }
    test(name, async () => {
      const target = await scriptedTarget()
      const udp = `127.0.0.1:${await freePort()}`
      const port = await freePort()
      // one method with a password, from which both endpoints derive the same key
      const secret = method === METHODS[1] ? { password: 'a password' } : { psk: randomBytes(32).toString('base64') }
      const shared: Config = method === 'none' ? {} : { method, ...secret }
      const ends: End[] = []
      try {
        ends.push(await startEnd(server, { kcp_bind: udp, connect: target.address, ...shared }))
        ends.push(await startEnd(client, { listen: `127.0.0.1:${port}`, kcp_connect: udp, ...shared }))
        const [far, near] = ends
        assert.ok(far && near)
        const tunnel = { server: far, client: near, dial: (options = {}) => dial('127.0.0.1', port, options) }
        const transfers = tunnel as unknown as Tunnel
        await upload(transfers, target, TRANSFER_BYTES, 1)
        await download(transfers, target, TRANSFER_BYTES, 2)
        await echo(transfers, target, TRANSFER_BYTES, 3)
        // kcptun-libev ends a session at the first EOF
        if (server !== 'libev' && client !== 'libev') await answerAfterEnd(transfers, target, TRANSFER_BYTES, 4)
      } finally {
        await Promise.all(ends.map((end) => end.stop()))
        await target.close()
      }
    })
  }
}

for (const [server, client] of [
  ['raw', 'node'],
  ['node', 'raw'],
] as const) {
  test(`a target that refuses ends the connection: ${server} server, ${client} client`, async () => {
    const udp = `127.0.0.1:${await freePort()}`
    const port = await freePort()
    const shared = { method: METHODS[1], psk: randomBytes(32).toString('base64') }
    const ends: End[] = []
    try {
      ends.push(await startEnd(server, { kcp_bind: udp, connect: `127.0.0.1:${await freePort()}`, ...shared }))
      ends.push(await startEnd(client, { listen: `127.0.0.1:${port}`, kcp_connect: udp, ...shared }))
      const socket = connect({ port, host: '127.0.0.1' })
      let received = 0
      socket.on('data', (data) => (received += data.length))
      socket.on('error', () => {})
      await new Promise<void>((resolve) => {
        socket.once('end', resolve)
        socket.once('close', resolve)
      })
      socket.destroy()
      assert.is(received, 0)
    } finally {
      await Promise.all(ends.map((end) => end.stop()))
    }
  })
}

test('an unsupported configuration is rejected with a message', () => {
  const client = { listen: '127.0.0.1:1', kcp_connect: '127.0.0.1:1' }
  const psk = randomBytes(32).toString('base64')
  for (const [config, message] of [
    [{ ...client, method: 'rot13', psk }, /unknown method rot13/],
    [{ ...client, method: 'aes256gcm' }, /needs either psk or password/],
    [{ ...client, method: 'aes256gcm', psk, password: 'x' }, /needs either psk or password/],
    [{ ...client, method: 'aes256gcm', psk: 'AAAA' }, /psk must be 32 bytes/],
  ] as const) {
    const file = writeConfig(config)
    const { status, stderr } = spawnSync('node', [PROGRAM, file.path], { encoding: 'utf8', timeout: 20_000 })
    file.remove()
    assert.is(status, 1)
    assert.match(stderr, message)
  }
})

test.run()
