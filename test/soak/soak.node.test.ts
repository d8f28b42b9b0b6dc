// time limit: 400 s
/** A short soak: descriptors and engine memory return to what they were. `npm run soak` runs for longer and watches the RSS. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { skip } from '../skip.ts'
import { soak } from './soak.ts'

const SHORT = { seed: 1, seconds: 16, rate: 15, sampleMs: 1000, reloadSeconds: 6, idleSeconds: 4, longSeconds: 8 }
const CONNECTIONS_MIN = SHORT.seconds * SHORT.rate

const test = suite('soak')

const problem = process.platform === 'linux' ? undefined : 'figures of a process are read from /proc'
// both at the same time: most of it is waiting
const runs = problem === undefined ? RUNTIMES.map((runtime) => soak({ ...SHORT, runtime })) : []
await Promise.allSettled(runs)

for (const [index, runtime] of RUNTIMES.entries()) {
  const name = `nothing is left of ${CONNECTIONS_MIN} connections, reloads and outages: ${runtime}`
  if (problem !== undefined) {
    skip(test, name, problem)
    continue
  }
  test(name, async () => {
    const result = await runs[index]
    assert.ok(result)
    assert.equal(result.problems, [])
    assert.ok(result.connections.opened >= CONNECTIONS_MIN, `${result.connections.opened} connections`)
    assert.ok(result.reloads >= 2, `${result.reloads} reloads`)
    assert.ok(result.connections.complete > CONNECTIONS_MIN / 2, `${result.connections.complete} complete`)
  })
}

test.run()
