// time limit: 180 s, waits
/** Readers slower than the tunnel: everything arrives, however long it takes, and buffering is bounded. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Pair } from '../../testkit/pairs.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import type { Ending } from '../../testkit/tcp.ts'
import { dial, listen, patternDigest } from '../../testkit/tcp.ts'
import { nameOf, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

/** The minimum of the configuration key. */
const LINGER_S = 5
/** More than all buffers of kernels and programs hold, so that much is in flight when the sender has finished. */
const SLOW_BYTES = 10 << 20
/** Reading everything takes four times `linger`. */
const SLOW_RATE = SLOW_BYTES / (4 * LINGER_S)
const SLOW_TIMEOUT_MS = 100_000
const STUCK_BYTES = 48 << 20
/** A sender without progress for this time is stopped by back-pressure. */
const STUCK_MS = 3000

const test = suite('slow readers')

function assertWhole(what: string, ending: Ending, seed: number): void {
  assert.is(ending.bytes, SLOW_BYTES, `${what}: bytes`)
  assert.is(ending.sha256, patternDigest(SLOW_BYTES, seed), `${what}: SHA-256`)
  assert.is(ending.kind, 'fin', `${what}: ${ending.code}`)
}

/** An upload to a slow target and a download to a slow application, concurrently. */
async function bothWays(pair: Pair): Promise<void> {
  const target = await listen(
    (end) => {
      // The first connection uploads to the slow target, the second one downloads from it.
      if (target.connections.length === 1) end.socket.once('end', () => end.finish())
      else void end.pour(SLOW_BYTES, 2).then(() => end.finish())
    },
    { rate: SLOW_RATE },
  )
  const options = { ...pair, link: { delay: 5, loss: 0.01, seed: 9 }, config: { linger: LINGER_S, timeout: 60 } }
  await withTunnel({ ...options, target: target.address }, async (tunnel) => {
    const uploader = await tunnel.dial()
    const poured = uploader.pour(SLOW_BYTES, 1).then((sent) => {
      uploader.finish()
      return sent
    })
    const uploaded = await within('the target to be dialled', SLOW_TIMEOUT_MS, target.connection(0))
    const downloader = await dial(tunnel.host, tunnel.port, { rate: SLOW_RATE })
    downloader.finish()
    const [down, up] = await within(
      'slow transfers',
      SLOW_TIMEOUT_MS,
      Promise.all([downloader.ending, uploaded.ending]),
    )
    assert.is(await poured, SLOW_BYTES)
    assertWhole('upload to a slow target', up, 1)
    assertWhole('download to a slow application', down, 2)
  }).finally(() => target.close())
}

test('transfers to slow readers complete whole and clean, long after linger', async () => {
  await Promise.all(MIXED_PAIRS.map(bothWays))
})

for (const pair of MIXED_PAIRS) {
  test(`MUST 40: a target that does not read stops the sender, then receives everything: ${nameOf(pair)}`, async () => {
    const target = await listen(({ socket }) => {
      socket.pause()
      socket.once('end', () => socket.end())
    })
    await withTunnel({ ...pair, link: {}, target: target.address }, async (tunnel) => {
      const app = await tunnel.dial()
      let last = performance.now()
      let written = 0
      const poured = app.pour(STUCK_BYTES, 3)
      await waitFor(
        'the sender is stopped',
        () => {
          const now = app.socket.bytesWritten - app.socket.writableLength
          if (now !== written) last = performance.now()
          written = now
          return performance.now() - last > STUCK_MS
        },
        60_000,
      )
      assert.ok(written < STUCK_BYTES, `${written} bytes were accepted without a reader`)
      const end = await target.connection(0)
      end.socket.resume()
      assert.is(await within('the sender', SLOW_TIMEOUT_MS, poured), STUCK_BYTES)
      app.finish()
      const ending = await within('the end at the target', SLOW_TIMEOUT_MS, end.ending)
      assert.is(ending.bytes, STUCK_BYTES)
      assert.is(ending.sha256, patternDigest(STUCK_BYTES, 3))
      assert.is(ending.kind, 'fin')
    }).finally(() => target.close())
  })
}

test.run()
