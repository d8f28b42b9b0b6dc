// time limit: 120 s
/** The files written by `init` also work unchanged with kcptun-libev at either endpoint. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config } from '../../testkit/process.ts'
import { freePort, libevPath, run, start } from '../../testkit/process.ts'
import { dial } from '../../testkit/tcp.ts'
import { download, scriptedTarget, upload } from '../../testkit/traffic.ts'
import { METHODS } from '../../testkit/tunnel.ts'
import { skip } from '../skip.ts'

const TRANSFER_BYTES = 200_000

const test = suite('interop: init')

for (const method of METHODS) {
  if (method === 'none') continue
  const name = `kcptun-libev accepts the files of init, ${method}`
  if (libevPath === undefined) {
    skip(test, name, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
    continue
  }
  test(name, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const target = await scriptedTarget()
    const port = await freePort()
    const words = ['--server', `127.0.0.1:${await freePort()}`, '--listen', String(port), '--connect', target.address]
    try {
      const { code, stderr } = await run('node', ['init', ...words, '--method', method, '--dir', dir])
      assert.is(code, 0, stderr)
      const read = (end: string): Config => JSON.parse(readFileSync(join(dir, `${end}.json`), 'utf8'))
      for (const [first, second] of [
        ['libev', 'node'],
        ['node', 'libev'],
      ] as const) {
        const server = await start(first, read('server'))
        const client = await start(second, read('client')).catch(async (error) => {
          await server.stop('SIGKILL')
          throw error
        })
        try {
          const tunnel = { server, client, dial: () => dial('127.0.0.1', port) }
          await upload(tunnel, target, TRANSFER_BYTES, 1)
          await download(tunnel, target, TRANSFER_BYTES, 2)
        } finally {
          await Promise.all([server.stop(), client.stop()])
        }
      }
    } finally {
      await target.close()
      rmSync(dir, { recursive: true })
    }
  })
}

const triple = 'kcptun-libev accepts the three files of init --rendezvous'
if (libevPath === undefined) skip(test, triple, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
else {
  test(triple, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const meeting = ['--rendezvous', `127.0.0.1:${await freePort()}`]
    const words = [...meeting, '--listen', String(await freePort()), '--connect', '9', '--dir', dir]
    try {
      assert.is((await run('node', ['init', ...words])).code, 0)
      for (const role of ['rendezvous', 'server', 'client']) {
        const running = await start('libev', JSON.parse(readFileSync(join(dir, `${role}.json`), 'utf8')))
        assert.is((await running.stop()).code, 0, running.log())
      }
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
}

test.run()
