// time limit: 120 s
/** Several tunnels in one process, some of whose peers are kcptun-libev: a client of its server, a server of its client. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, libevPath, type Running, start } from '../../testkit/process.ts'
import { dial, echoTarget } from '../../testkit/tcp.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const BYTES = 1_000_000

const test = suite('interop: several tunnels')

const local = async (): Promise<string> => `127.0.0.1:${await freePort()}`

for (const program of RUNTIMES) {
  const name = `tunnels to kcptun-libev and of our own pass data at once: ${program}`
  if (libevPath === undefined) {
    skip(test, name, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
    continue
  }
  test(name, async () => {
    const target = await echoTarget()
    const [theirs, ours, first, second, third] = [
      await local(),
      await local(),
      await local(),
      await local(),
      await local(),
    ]
    const keys = { method: 'xchacha20poly1305_ietf', password: 'interop' }
    const other = { method: 'chacha20poly1305_ietf', password: 'another' }
    const tunnels: Config[] = [
      { ...other, listen: first, kcp_connect: theirs },
      { kcp_bind: ours, connect: target.address },
      { listen: second, kcp_connect: ours },
    ]
    const ends: Running[] = []
    try {
      ends.push(await start('libev', { ...other, kcp_bind: theirs, connect: target.address }))
      ends.push(await start(program, { ...keys, tunnels }))
      ends.push(await start('libev', { ...keys, listen: third, kcp_connect: ours }))
      const ports = [first, second, third].map((address) => Number(address.split(':')[1]))
      const apps = await Promise.all(ports.map((port) => dial('127.0.0.1', port)))
      const poured = Promise.all(apps.map((app, index) => app.pour(BYTES, index)))
      for (const app of apps) await waitFor('the whole echo', () => app.received === BYTES || app.ended, 60_000)
      await poured
      assert.equal(
        apps.map(({ received }) => received),
        [BYTES, BYTES, BYTES],
      )
      for (const app of apps) app.destroy()
    } finally {
      for (const end of ends) await end.stop('SIGKILL')
      await target.close()
    }
  })
}

test.run()
