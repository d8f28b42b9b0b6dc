// time limit: 180 s, waits
/** Rate limits of one end while kcptun-libev is the other one. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { download, openTarget, pour } from '../../testkit/flow.ts'
import { libevPath, type Program } from '../../testkit/process.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT = 8
const SETTLE_MS = 2000
const MEASURE_MS = 10_000
const STEP_MS = 100
/** kcptun-libev sends in intervals of 100 ms; what arrives meanwhile covers that. */
const MAX_PAUSE_MS = 500

const test = suite('interop: rate limits')

/** Mbit/s by a counter of bytes, and the longest time for which it stood still. */
async function measure(bytes: () => number): Promise<{ rate: number; pause: number }> {
  const [before, began] = [bytes(), performance.now()]
  let [last, lastAt, pause] = [before, began, 0]
  while (performance.now() - began < MEASURE_MS) {
    await sleep(STEP_MS)
    const [now, at] = [bytes(), performance.now()]
    if (now === last) pause = Math.max(pause, at - lastAt)
    else [last, lastAt] = [now, at]
  }
  return { rate: ((last - before) * 8) / 1000 / (lastAt - began), pause }
}

/** Uploads and downloads at once, with limits at our end. */
async function limited(server: Program, client: Program): Promise<void> {
  const target = await openTarget()
  const rate = { rate: { up: LIMIT, down: LIMIT } }
  const ours = server === 'libev' ? { clientConfig: rate } : { serverConfig: rate }
  const options = { server, client, ...ours, link: { delay: 20 }, target: `127.0.0.1:${target.port}` }
  await withTunnel(options, async ({ port }) => {
    const up = pour(port)
    const down = download(port)
    await sleep(SETTLE_MS)
    const results = await Promise.all([measure(() => target.discarded), measure(() => down.received())])
    for (const [i, { rate: actual, pause }] of results.entries()) {
      const text = `${['upload', 'download'][i]}: ${actual.toFixed(3)} Mbit/s, pause ${pause.toFixed()} ms`
      assert.ok(actual < LIMIT * 1.02 && actual > LIMIT * 0.95, text)
      assert.ok(pause < MAX_PAUSE_MS, text)
    }
    assert.equal([up.failed(), down.failed()], [undefined, undefined])
    up.stop()
    down.stop()
  }).finally(() => target.close())
}

if (libevPath === undefined) skip(test, 'all', 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
else {
  for (const ours of ['node', 'bun'] as const) {
    test(`our client keeps to its limits, ${ours}`, () => limited('libev', ours))
    test(`our server keeps to its limits, ${ours}`, () => limited(ours, 'libev'))
  }
}

test.run()
