// time limit: 120 s
/**
 * Opening a connection costs no handshake: the first byte of the response arrives one round trip after the application
 * connected. The round trip is measured at the same time with bare datagrams through an equal link, so that a busy
 * machine slows both.
 */

import type { RemoteInfo } from 'node:dgram'
import { createSocket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openLink } from '../../testkit/link.ts'
import { ALL_PAIRS } from '../../testkit/pairs.ts'
import { echoTarget } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { within } from '../../testkit/wait.ts'

const LINK = { delay: 20 }
const SAMPLES = 11
/** Other load disturbs a round; one undisturbed round is enough to show the cost of the program. */
const ROUNDS = 6
const ALLOWED_MS = 5
const TIMEOUT_MS = 20_000

const test = suite('latency')

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** A bare UDP echo behind an equal link. */
async function openBareEcho(): Promise<{ measure(): Promise<number>; close(): Promise<void> }> {
  const echo = createSocket('udp4')
  echo.on('message', (datagram: Buffer, from: RemoteInfo) => echo.send(datagram, from.port, from.address))
  await new Promise<void>((done) => echo.bind(0, '127.0.0.1', done))
  const link = await openLink({ ...LINK, target: { host: '127.0.0.1', port: echo.address().port } })
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  return {
    measure: () =>
      within(
        'the bare echo',
        TIMEOUT_MS,
        new Promise((resolve) => {
          const start = performance.now()
          socket.once('message', () => resolve(performance.now() - start))
          socket.send('x', link.port, link.host)
        }),
      ),
    async close() {
      socket.close()
      echo.close()
      await link.close()
    },
  }
}

for (const pair of ALL_PAIRS) {
  test(`connecting and receiving the first byte takes one round trip: ${nameOf(pair)}`, async () => {
    const target = await echoTarget()
    const bare = await openBareEcho()
    await withTunnel({ ...pair, link: LINK, target: target.address }, async (tunnel) => {
      const measureTunnel = async (): Promise<number> => {
        const start = performance.now()
        const app = await tunnel.dial()
        const first = new Promise<void>((done) => app.socket.once('data', () => done()))
        await app.send('x')
        await within('the first byte', TIMEOUT_MS, first)
        const time = performance.now() - start
        app.finish()
        await within('the end', TIMEOUT_MS, app.ending)
        return time
      }
      const rounds: string[] = []
      for (let round = 0; round < ROUNDS; round++) {
        const bareTimes: number[] = []
        const tunnelTimes: number[] = []
        for (let i = 0; i < SAMPLES; i++) {
          bareTimes.push(await bare.measure())
          tunnelTimes.push(await measureTunnel())
        }
        const cost = median(tunnelTimes) - median(bareTimes)
        rounds.push(`${cost.toFixed(2)} ms above ${median(bareTimes).toFixed(2)} ms`)
        if (cost <= ALLOWED_MS) return
      }
      assert.unreachable(`median cost of each round: ${rounds.join(', ')}; at most ${ALLOWED_MS} ms are allowed`)
    }).finally(async () => {
      await bare.close()
      await target.close()
    })
  })
}

test.run()
