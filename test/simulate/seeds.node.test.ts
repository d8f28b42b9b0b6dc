// time limit: 900 s
/** The seeds that every landing runs; `npm run simulate` runs more of them. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { projectRoot } from '../../testkit/process.ts'

const SEEDS = 300

const test = suite('simulate/seeds')

test(`${SEEDS} seeds violate no invariant`, () => {
  const args = [join(projectRoot, 'test/simulate/run.mjs'), '--seeds', String(SEEDS), '--jobs', '1']
  const { status, stdout, stderr } = spawnSync('node', args, { cwd: projectRoot, encoding: 'utf8' })
  assert.is(status, 0, stdout + stderr)
  assert.match(stdout, `${SEEDS} seeds in`)
})

test.run()
