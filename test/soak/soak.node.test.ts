// time limit: 400 s, waits
/** A short soak: descriptors and engine memory return to what they were. `npm run soak` runs for longer and watches the RSS. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { skip } from '../skip.ts'
import { type Figures, growth, isLevel } from './figures.ts'
import { soak } from './soak.ts'

const SHORT = {
  seed: 1,
  lingerSeconds: 10,
  seconds: 12,
  rate: 15,
  sampleMs: 1000,
  reloadSeconds: 5,
  idleSeconds: 3,
  longSeconds: 5,
}
/** A busy machine carries less than the rate. */
const COMPLETE_MIN = 50

const test = suite('soak')

const problem = process.platform === 'linux' ? undefined : 'figures of a process are read from /proc'
// both at the same time: most of it is waiting
const runs = problem === undefined ? RUNTIMES.map((runtime) => soak({ ...SHORT, runtime })) : []
await Promise.allSettled(runs)

for (const [index, runtime] of RUNTIMES.entries()) {
  const name = `nothing is left of short and long connections, reloads and outages: ${runtime}`
  if (problem !== undefined) {
    skip(test, name, problem)
    continue
  }
  test(name, async () => {
    const result = await runs[index]
    assert.ok(result)
    assert.equal(result.problems, [])
    assert.ok(result.reloads >= 2, `${result.reloads} reloads`)
    assert.ok(result.connections.complete >= COMPLETE_MIN, `${result.connections.complete} complete`)
  })
}

test('a resident memory that keeps climbing is not level, one that stops is', () => {
  const SECONDS = 1800
  const samplesOf = (rss: (at: number) => number): Figures[] =>
    Array.from({ length: 360 }, (_, i) => {
      const figures = { descriptors: 0, memory: 0, sessions: 0, cpuMs: 0 }
      return { ...figures, at: i * 5, rssKiB: rss(i * 5) }
    })
  // 40 MiB an hour on 110 MiB
  assert.not.ok(
    isLevel(
      growth(
        samplesOf((at) => (110 + (40 * at) / 3600) * 1024),
        SECONDS,
      ),
    ),
  )
  assert.ok(
    isLevel(
      growth(
        samplesOf((at) => (110 + Math.min(20, at / 20)) * 1024),
        SECONDS,
      ),
    ),
  )
})

test.run()
