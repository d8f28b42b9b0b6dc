// time limit: 180 s
/** Many concurrent connections. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { sessionCounts } from '../../testkit/process.ts'
import { echoTarget, patternDigest } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const CONNECTIONS = 200
const BYTES = 20_000
const TIMEOUT_MS = 80_000

const test = suite('many connections')

for (const pair of MIXED_PAIRS) {
  test(`each of ${CONNECTIONS} concurrent connections gets its own bytes back: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    const link = { delay: 10, loss: 0.01, seed: 5 }
    await withTunnel({ ...pair, link, target: target.address }, async (tunnel) => {
      const apps = await Promise.all(Array.from({ length: CONNECTIONS }, () => tunnel.dial()))
      // All of them are open before the first one ends.
      await Promise.all(apps.map((app, i) => app.pour(BYTES / 2, i)))
      await waitFor(
        'every connection reached the target',
        () => target.connections.length === CONNECTIONS,
        TIMEOUT_MS,
        () => `${target.connections.length} did`,
      )
      const counts = sessionCounts(await tunnel.server.stats())
      assert.is(counts.halfOpen + counts.connected, CONNECTIONS, 'sessions in /stats of the server')
      await Promise.all(
        apps.map(async (app, i) => {
          app.finish()
          const ending = await within(`the end of connection ${i}`, TIMEOUT_MS, app.ending)
          assert.is(ending.kind, 'fin', `connection ${i}: ${ending.code}`)
          assert.is(ending.bytes, BYTES / 2, `connection ${i}`)
          assert.is(ending.sha256, patternDigest(BYTES / 2, i), `connection ${i}`)
        }),
      )
      for (const end of ['server', 'client'] as const) {
        await waitFor(
          `no session is open at the ${end}`,
          async () => {
            const { halfOpen, connected } = sessionCounts(await tunnel[end].stats())
            return halfOpen + connected === 0
          },
          TIMEOUT_MS,
          () => tunnel[end].stats('sessions=all'),
        )
      }
    }).finally(() => target.close())
  })
}

test.run()
