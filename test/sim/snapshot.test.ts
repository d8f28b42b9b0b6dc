// time limit: 300 s
/**
 * The transport's figures over simulated links match the snapshot: a change of policy shows as a difference to review.
 */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { quickText, SNAPSHOT } from '../../testkit/sim/flows/snapshot.ts'

const test = suite('sim/snapshot')

/** A diff of two texts whose lines correspond. */
function differences(before: string, after: string): string {
  const old = before.split('\n')
  const fresh = after.split('\n')
  const lines: string[] = []
  for (let i = 0; i < Math.max(old.length, fresh.length); i++) {
    if (old[i] === fresh[i]) continue
    if (old[i] !== undefined) lines.push(`- ${old[i]}`)
    if (fresh[i] !== undefined) lines.push(`+ ${fresh[i]}`)
  }
  return lines.join('\n')
}

test('the figures of the simulated transport match bench/snapshots/sim.txt', () => {
  const text = differences(readFileSync(SNAPSHOT, 'utf8'), quickText())
  if (text !== '') console.log(`${text}\n(npm run bench -- sim --update accepts them)`)
  assert.is(text, '')
})

test.run()
