/** A queue that other traffic keeps full is not taken for one's own: a tunnel beside TCP CUBIC keeps its part of the link. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { link } from '../../../testkit/sim/flows/links.ts'
import { bound, type Result, simulate } from '../../../testkit/sim/flows/scenario.ts'

const test = suite('sim/flows/contest')

/** Shares from `from` to `to` seconds beside a TCP flow that starts at 4 s and ends at `tcpEnd`. */
function besideTcp(mbits: number, rtt: number, queue: number, from: number, to: number, tcpEnd?: number): Result {
  return simulate({
    seed: 1,
    shape: link(mbits, rtt, 0, queue),
    settled: from,
    seconds: to,
    pairs: [
      { flows: [{}] },
      { client: 'tcp', server: 'tcp', flows: [{ startAt: 4, ...(tcpEnd !== undefined && { stopAt: tcpEnd }) }] },
    ],
  })
}

// without the contest: 0.17, 0.14, 0.46
for (const [mbits, rtt, queue, least] of [
  [100, 50, 2, 0.22],
  [100, 50, 4, 0.22],
  [50, 200, 2, 0.5],
] as const) {
  test(`${mbits} Mbit/s, ${rtt} ms, queue of ${queue} BDP: at least ${least} of the link`, () => {
    const { flows, goodput } = besideTcp(mbits, rtt, queue, 20, 60)
    const share = (flows[0]?.goodput ?? 0) / goodput
    assert.ok(share >= least && share < 0.85, `${share}`)
  })
}

test('when the other flow has ended, the queue is as short as before', () => {
  const shape = link(20, 50, 0, 4)
  const alone = simulate({ seed: 1, shape, settled: 5, seconds: 25, pairs: [{ flows: [{}] }] })
  const after = besideTcp(20, 50, 4, 50, 70, 35)
  assert.ok((after.flows[0]?.goodput ?? 0) > 0.85 * bound(shape), `${after.flows[0]?.goodput}`)
  assert.ok(after.queueMean < alone.queueMean + 5, `${after.queueMean} ms, alone ${alone.queueMean} ms`)
})

test.run()
