// time limit: 120 s, long 3600 s
/**
 * SIGKILL of either end at random moments of transfers in both directions, and a new start with the same configuration:
 * no byte is wrong, no interrupted stream looks complete, and new streams work at once.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort } from '../../testkit/process.ts'
import { formatAddress } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep } from '../../testkit/wait.ts'
import { CELLS, cellName, form, note, ROLES, type Role, seededRandom, together } from './form.ts'
import { Streams } from './streams.ts'

const MOMENTS = form(6, 100)
const STREAMS = 3
/** More than arrives before the kill. */
const SIZE = 64 << 20
/** The kill comes within this time of the first connection. */
const WINDOW_MS = 400
const FRESH_SIZE = 100_000
/** An end that cannot know that its peer restarted gives up after `timeout`. */
const TIMEOUT_S = 60
const ENDING_MS = (TIMEOUT_S + 30) * 1000
const FRESH_MS = 30_000

const test = suite('faults: kill')
const random = seededRandom('kill')

async function killAtRandom(cell: (typeof CELLS)[number], role: Role): Promise<void> {
  const streams = await Streams.open()
  const host = cell.family === 6 ? '::1' : '127.0.0.1'
  const clientConfig = { kcp_bind: formatAddress(host, await freePort(host)) }
  const config = { ...cell.config, timeout: TIMEOUT_S, linger: 5 }
  const worst = { fresh: 0, ending: 0 }
  let reached = 0
  await withTunnel(
    { ...cell, config, clientConfig, target: streams.target.address, link: { delay: 2 } },
    async (tunnel) => {
      for (let moment = 0; moment < MOMENTS; moment++) {
        const wait = random() * WINDOW_MS
        const open = await Promise.all(Array.from({ length: STREAMS }, () => streams.start(tunnel, SIZE)))
        await sleep(wait)
        if (open.some((stream) => stream.received() > 0)) reached++
        const killed = performance.now()
        await tunnel.restart(role)
        const back = performance.now()
        await streams.assertCarries(tunnel, FRESH_SIZE, FRESH_MS)
        worst.fresh = Math.max(worst.fresh, performance.now() - back)
        for (const stream of open) {
          const outcome = await stream.outcome(ENDING_MS)
          assert.is(Streams.cleanCut(outcome, SIZE), undefined, `moment ${moment}, ${wait} ms after the start`)
        }
        worst.ending = Math.max(worst.ending, performance.now() - killed)
      }
    },
  ).finally(() => streams.target.close())
  assert.ok(reached > 0, 'bytes were under way at some moment')
  note(
    `${role} killed ${MOMENTS} times, ${cellName(cell)}: a new stream took at most ${Math.round(worst.fresh)} ms from ` +
      `the start on, the end of the old ones at most ${Math.round(worst.ending)} ms from the kill on`,
  )
}

for (const role of ROLES) {
  test(`kill -9 of the ${role} at ${MOMENTS} random moments`, () =>
    together(CELLS.map((cell) => () => killAtRandom(cell, role))))
}

test.run()
