// time limit: 120 s
/** `native` and KCPTUN_NATIVE keep native code out of the process; what then has no effect is named. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, type Running, run, start, writeConfig } from '../../testkit/process.ts'
import { dial, listen } from '../../testkit/tcp.ts'
import { skip } from '../skip.ts'

const KEY: Config = { method: 'chacha20poly1305_ietf', psk: Buffer.alloc(32, 9).toString('base64') }
/** What no runtime does by itself. */
const OPTIONS: Config = { netdev: 'lo', tcp: { sndbuf: 65536, rcvbuf: 65536 }, log: 'syslog', native: false }
const NATIVE = /(koffi|sodium)[^\n]*\.(node|bare)|libcrypto/

const test = suite('native code')

const mapped = (running: Running): string => readFileSync(`/proc/${running.pid}/maps`, 'utf8')

for (const program of RUNTIMES) {
  const names = {
    off: `native = false and KCPTUN_NATIVE=0 load no native code, and the tunnel works: ${program}`,
    named: `without native code each option that needs it is named: ${program}`,
    refused: `without native code obfs, workers and udp.path fast are refused: ${program}`,
    portable: `udp.path portable loads no native code for UDP: ${program}`,
  }
  if (process.platform !== 'linux') {
    for (const name of Object.values(names)) skip(test, name, 'not Linux')
    continue
  }

  test(names.off, async () => {
    const target = await listen((end) => end.socket.pipe(end.socket))
    for (const [more, wrapper] of [
      [{ native: false }, []],
      [{}, ['env', 'KCPTUN_NATIVE=0']],
    ] as const) {
      const [udp, tcp] = [await freePort(), await freePort()]
      const own: Config = { ...KEY, ...more }
      const server = await start(
        program,
        { ...own, kcp_bind: `127.0.0.1:${udp}`, connect: target.address },
        { wrapper },
      )
      const client = await start(program, { ...KEY, kcp_connect: `127.0.0.1:${udp}`, listen: `127.0.0.1:${tcp}` })
      try {
        const end = await dial('127.0.0.1', tcp, { keep: 100 })
        end.socket.end('hello')
        assert.is((await end.ending).bytes, 5)
        assert.not.match(mapped(server), NATIVE)
        assert.match(server.log(), /udp path: portable \(fast: not available: (native is false|KCPTUN_NATIVE=0)\)/)
        assert.match(mapped(client), NATIVE, 'what is looked for is otherwise there')
      } finally {
        assert.is((await server.stop()).code, 0)
        assert.is((await client.stop()).code, 0)
      }
    }
    await target.close()
  })

  test(names.named, async () => {
    const running = await start(program, { ...OPTIONS, listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' })
    try {
      const warnings = running
        .log()
        .split('\n')
        .filter((line) => /^W .*native is false/.test(line))
      for (const option of ['netdev', 'tcp.sndbuf', 'tcp.rcvbuf', 'no system log'])
        assert.is(warnings.filter((line) => line.includes(option)).length, 1, `${option}: ${running.log()}`)
    } finally {
      assert.is((await running.stop()).code, 0)
    }
  })

  test(names.refused, async () => {
    for (const more of [{ obfs: 'dpi/tcp' }, { workers: 2 }, { udp: { path: 'fast' } }]) {
      const file = writeConfig({ ...KEY, ...more, native: false, listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' })
      const { code, stdout, stderr } = await run(program, ['-c', file.path]).finally(() => file.remove())
      assert.is(code, 1)
      assert.match(stdout + stderr, /F .*native is false/)
    }
  })

  test(names.portable, async () => {
    const config = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9', udp: { path: 'portable' } }
    const running = await start(program, config)
    try {
      assert.not.match(mapped(running), NATIVE)
    } finally {
      assert.is((await running.stop()).code, 0)
    }
  })
}

test.run()
