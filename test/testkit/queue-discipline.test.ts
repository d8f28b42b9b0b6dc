/** The queues of the emulated bottleneck, in virtual time, with senders that do not slow down. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type DisciplineName, openDiscipline, type Queued } from '../../testkit/queue-discipline.ts'

const test = suite('queue disciplines')

const PACKET_BYTES = 1250
/** 10 Mbit/s: one packet a ms. */
const PER_MS = 1250
const LIMIT_BYTES = 100 * PACKET_BYTES

interface Outcome {
  /** Packets of each sender. */
  readonly delivered: number[]
  readonly dropped: number[]
  /** Delays of the delivered packets of each sender in the second half, ms. */
  readonly delays: number[][]
}

/** Senders with one packet each `everyMs[sender]` for `ms`, over a link of one packet a ms. */
function run(name: DisciplineName, everyMs: readonly number[], ms: number): Outcome {
  const outcome: Outcome = {
    delivered: everyMs.map(() => 0),
    dropped: everyMs.map(() => 0),
    delays: everyMs.map(() => []),
  }
  const count = (counts: number[], { flow }: Queued): void => {
    counts[flow] = (counts[flow] ?? 0) + 1
  }
  const queue = openDiscipline<Queued>(name, PER_MS, LIMIT_BYTES, (packet) => count(outcome.dropped, packet))
  const next = everyMs.map(() => 0)
  for (let now = 0; now < ms; now++) {
    for (const [flow, every] of everyMs.entries()) {
      for (; (next[flow] ?? 0) <= now; next[flow] = (next[flow] ?? 0) + every) {
        queue.enqueue({ bytes: PACKET_BYTES, flow, at: next[flow] ?? 0 })
      }
    }
    const packet = queue.dequeue(now)
    if (packet === undefined) continue
    count(outcome.delivered, packet)
    if (now > ms / 2) outcome.delays[packet.flow]?.push(now - packet.at)
  }
  return outcome
}

const mean = (values: readonly number[] = []): number => values.reduce((sum, value) => sum + value, 0) / values.length

test('drop-tail fills to its limit and drops the excess', () => {
  const { delivered, dropped, delays } = run('droptail', [0.5], 4000)
  assert.ok((delivered[0] ?? 0) > 3990)
  assert.ok(Math.abs((dropped[0] ?? 0) - 3900) < 20, `${dropped[0]}`)
  assert.ok(Math.abs(mean(delays[0]) - 100) < 2, `${mean(delays[0])}`)
})

test('a policer delays nothing that conforms', () => {
  const { delivered, dropped, delays } = run('policer', [0.8], 4000)
  assert.ok(Math.abs((dropped[0] ?? 0) - 1000) < 40, `${dropped[0]}`)
  assert.ok((delivered[0] ?? 0) > 3950)
  assert.ok(mean(delays[0]) < 25, 'the burst at most')
})

test('CoDel drops more and more often until the delay falls', () => {
  const { dropped, delays } = run('codel', [0.95], 20_000)
  assert.ok((dropped[0] ?? 0) > 100 && (dropped[0] ?? 0) < 2000, `${dropped[0]}`)
  assert.ok(mean(delays[0]) < 30, `${mean(delays[0])}`)
})

test('CoDel leaves a sender below the rate alone', () => {
  const { dropped } = run('codel', [1.1], 4000)
  assert.is(dropped[0], 0)
})

test('FQ-CoDel shares the rate and keeps the thin flow fast', () => {
  const { delivered, delays } = run('fq_codel', [0.5, 0.5, 20], 4000)
  const [first = 0, second = 0, thin = 0] = delivered
  assert.ok(Math.abs(first - second) < 10, `${first} ${second}`)
  assert.ok(thin > 195, `${thin}`)
  assert.ok(mean(delays[2]) < 4, `${mean(delays[2])}`)
})

test.run()
