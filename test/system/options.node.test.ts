// time limit: 120 s
/** Socket options of the configuration: ports shared by two processes, an interface, buffers (protocol.md 10.2). */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, run, start, writeConfig } from '../../testkit/process.ts'
import { echoTarget, patternDigest } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { skip } from '../skip.ts'

/** Largest value of the buffer keys, bytes. */
const BUFFER_MAX = 33_554_432
const PAYLOAD_BYTES = 200_000

const test = suite('socket options')
const linux = process.platform === 'linux'

for (const program of [...RUNTIMES, 'deno'] as const) {
  const names = {
    reuseport: `MUST 69: two processes share a port only when both have reuseport: ${program}`,
    netdev: `an unknown netdev yields one warning and the program serves: ${program}`,
    buffers: `each buffer that the kernel truncates yields one warning with the sysctl: ${program}`,
  }
  if (!linux) {
    for (const name of Object.values(names)) skip(test, name, 'not Linux')
    continue
  }

  test(names.reuseport, async () => {
    const port = await freePort()
    const server = { kcp_bind: `127.0.0.1:${port}`, connect: '127.0.0.1:9' }
    const client = { listen: `127.0.0.1:${port}`, kcp_connect: '127.0.0.1:9' }
    for (const [config, section] of [
      [server, 'udp'],
      [client, 'tcp'],
    ] as const) {
      const shared = { ...config, [section]: { reuseport: true } }
      const first = await start(program, shared)
      try {
        const second = await start(program, shared)
        assert.is((await second.stop()).code, 0)
        assert.not.match(first.log(), /reuseport/)
        const file = writeConfig(config)
        const third = await run(program, ['-c', file.path]).finally(() => file.remove())
        assert.is(third.code, 1, `${section}: ${third.stdout}`)
        assert.match(third.stdout, /EADDRINUSE/)
      } finally {
        await first.stop()
      }
    }
  })

  test(names.netdev, async () => {
    const server = { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9', netdev: 'nosuchdev0' }
    const running = await start(program, server)
    await running.stop()
    const warnings = running
      .log()
      .split('\n')
      .filter((line) => line.includes('netdev'))
    assert.is(warnings.length, 1, running.log())
    assert.match(warnings[0] ?? '', /^W .*config key netdev = "nosuchdev0": not bound: no such interface$/)
  })

  const limit = (name: string): number => Number(readFileSync(`/proc/sys/net/core/${name}`, 'utf8'))
  if (limit('rmem_max') >= BUFFER_MAX || limit('wmem_max') >= BUFFER_MAX) {
    skip(test, names.buffers, 'this kernel grants every buffer that can be asked for')
    continue
  }
  test(names.buffers, async () => {
    const sizes = { sndbuf: BUFFER_MAX, rcvbuf: BUFFER_MAX }
    const client = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9', tcp: sizes, udp: sizes }
    const running = await start(program, client)
    await running.stop()
    const lines = running.log().split('\n')
    for (const kind of ['tcp', 'udp']) {
      for (const [option, name] of [
        ['sndbuf', 'wmem_max'],
        ['rcvbuf', 'rmem_max'],
      ] as const) {
        const text = `config key ${kind}.${option} = ${BUFFER_MAX}: the kernel granted only ${limit(name)} bytes; `
        const found = lines.filter((line) => line.startsWith('W ') && line.includes(text))
        assert.is(found.length, 1, `${text}\n${running.log()}`)
        assert.ok(found[0]?.endsWith(`sysctl -w net.core.${name}=${BUFFER_MAX}`), found[0])
      }
    }
  })
}

for (const { server, client } of MIXED_PAIRS) {
  const name = `a tunnel with every socket option transfers data correctly: ${server} server, ${client} client`
  if (!linux) {
    skip(test, name, 'not Linux')
    continue
  }
  test(name, async () => {
    const target = await echoTarget()
    const options = { reuseport: true, sndbuf: 65_536, rcvbuf: 65_536 }
    const config = { netdev: 'lo', tcp: options, udp: options }
    await withTunnel({ server, client, target: target.address, config }, async (tunnel) => {
      const end = await tunnel.dial()
      await end.pour(PAYLOAD_BYTES, 1)
      end.finish()
      const { kind, bytes, sha256 } = await end.ending
      assert.equal([kind, bytes, sha256], ['fin', PAYLOAD_BYTES, patternDigest(PAYLOAD_BYTES, 1)])
      for (const running of [tunnel.server, tunnel.client]) {
        assert.not.match(running.log(), /config key/, 'no option was refused')
      }
    })
    await target.close()
  })
}

test.run()
