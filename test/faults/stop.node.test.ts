// time limit: 90 s, long 600 s
/**
 * SIGSTOP and SIGCONT of either end during transfers in both directions. A pause that is shorter than the timeouts costs
 * time alone; after a longer one streams go on or are reset, and new ones work.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { CELLS, cellName, isLong, ROLES, type Role, together } from './form.ts'
import { Streams } from './streams.ts'

const SHORT_MS = 3000
/** Longer than `timeout`, and than three unanswered pings of an idle client. */
const TIMEOUT_S = 60
const LONG_MS = 75_000
const STREAMS = 3
const SIZE = 2_000_000
const LINK = { delay: 5, rate: 20e6 }
const LIMIT_MS = 60_000

const test = suite('faults: stop')

async function stopAndContinue(cell: (typeof CELLS)[number], role: Role, pauseMs: number): Promise<void> {
  const streams = await Streams.open()
  const config = { ...cell.config, timeout: TIMEOUT_S, linger: 5, keepalive: 3 }
  await withTunnel({ ...cell, config, target: streams.target.address, link: LINK }, async (tunnel) => {
    const open = await Promise.all(Array.from({ length: STREAMS }, () => streams.start(tunnel, SIZE)))
    await waitFor('every stream is under way', () => open.every((stream) => stream.received() > SIZE / 10), LIMIT_MS)
    process.kill(tunnel[role].pid, 'SIGSTOP')
    await sleep(pauseMs)
    const stopped = open.map((stream) => stream.received())
    assert.ok(
      stopped.some((bytes) => bytes < 2 * SIZE),
      'a stream was under way',
    )
    process.kill(tunnel[role].pid, 'SIGCONT')
    for (const stream of open) {
      const outcome = await stream.outcome(LIMIT_MS + TIMEOUT_S * 1000)
      assert.is(Streams.cleanCut(outcome, SIZE), undefined)
      if (pauseMs < TIMEOUT_S * 1000) assert.ok(outcome.isComplete, JSON.stringify(outcome))
    }
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
  }).finally(() => streams.target.close())
}

for (const pauseMs of isLong ? [SHORT_MS, LONG_MS] : [SHORT_MS]) {
  test(`either end is stopped for ${pauseMs / 1000} s: ${CELLS.map(cellName).join('; ')}`, () =>
    together(CELLS.flatMap((cell) => ROLES.map((role) => () => stopAndContinue(cell, role, pauseMs)))))
}

test.run()
