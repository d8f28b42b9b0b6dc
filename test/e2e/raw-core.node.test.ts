// time limit: 240 s
/**
 * examples/raw-core, a host written from docs/abi.md alone, carries TCP as client and as server, sealed by every method: at
 * the other end our command line, itself, and kcptun-libev.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
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

const test = suite('raw-core')

interface End {
  readonly program: 'raw' | 'node' | 'libev'
  stop(): Promise<unknown>
}

/** Starts the example, as a reader of its first line would. */
async function startRaw(config: Config): Promise<End> {
  const file = writeConfig(config)
  const child: ChildProcess = spawn('node', [join(projectRoot, 'examples/raw-core/host.mjs'), file.path], {
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
    const name = `${server} server, ${client} client, ${method}`
    if (libevPath === undefined && (server === 'libev' || client === 'libev')) {
      skip(test, name, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
      continue
    }
    test(name, async () => {
      const target = await scriptedTarget()
      const udp = `127.0.0.1:${await freePort()}`
      const port = await freePort()
      // a password at one end, the key it leads to at the other, would need its derivation here: psk and password in turn
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

test.run()
