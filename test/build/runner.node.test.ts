// time limit: 180 s
/**
 * Test files that hang, crash, end early, run no test or skip without a reason count as failed. The test files are in
 * fixtures/.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('test runner')

interface Run {
  readonly status: number | null
  readonly output: string
  readonly lastLine: string
}

function runFixtures(filters: string[], env: NodeJS.ProcessEnv = process.env): Run {
  const args = ['test/run.mjs', '--no-build', '--root', 'test/build/fixtures', ...filters]
  const { status, stdout, stderr } = spawnSync('node', args, { encoding: 'utf8', env })
  return { status, output: stdout + stderr, lastLine: stdout.trimEnd().split('\n').at(-1) ?? '' }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

async function waitUntilDead(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 20))
}

test('passing tests count once for each runtime', () => {
  const run = runFixtures(['passes'])
  assert.is(run.lastLine, '2 passed, 0 failed')
  assert.is(run.status, 0)
})

test('a file named for one runtime runs only there', () => {
  const run = runFixtures(['only.node'])
  assert.is(run.lastLine, '1 passed, 0 failed')
  assert.is(run.status, 0)
})

test('--long sets TEST_LONG, applies the long time limit, and prints notes', () => {
  const short = runFixtures(['has-long-form', '--runtime', 'node'])
  assert.match(short.output, /still running after 1 s/)
  const long = runFixtures(['has-long-form', '--runtime', 'node', '--long'])
  assert.is(long.lastLine, '1 passed, 0 failed')
  assert.match(long.output, /^ {7}TEST_LONG is 1$/m)
})

test('a failing test fails the run and its message is shown', () => {
  const run = runFixtures(['fails.test'])
  assert.is(run.lastLine, '2 passed, 2 failed')
  assert.is(run.status, 1)
  assert.match(run.output, 'Expected values to be strictly equal')
})

const failures: readonly [string, string, RegExp][] = [
  ['forgets-run', 'a file without test.run()', /no test ran/],
  ['crashes.test', 'a file that throws while it loads', /exit status 1/],
  ['crashes-late', 'a file that throws after its totals', /exit status 1/],
  ['exits-early', 'a file that ends the process with status 0 in a test', /no test ran/],
  ['never-settles', 'a test whose promise never settles', /no test ran/],
  ['broken', 'a file that cannot be bundled', /Could not resolve/],
  ['skips-silently', 'a skipped test without a reason', /1 skipped, but 0 reasons given/],
]

for (const [fixture, what, message] of failures) {
  test(`${what} counts as failed under both runtimes`, () => {
    const run = runFixtures([fixture])
    assert.is(run.status, 1)
    assert.match(run.lastLine, /, 2 failed/)
    assert.match(run.output, message)
  })
}

test('a skipped test is counted and its reason is shown', () => {
  const run = runFixtures(['skips.test'])
  assert.is(run.lastLine, '0 passed, 0 failed, 2 skipped')
  assert.is(run.status, 0)
  assert.match(run.output, 'skip: needs a peer: no peer here')
})

for (const [fixture, status, what] of [
  ['hangs', 1, 'a file still running after its time limit fails and its children are killed'],
  ['leaves-child', 0, 'a child left behind is killed'],
] as const) {
  test(what, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'runner-'))
    try {
      const pidFile = join(directory, 'pids')
      const run = runFixtures([fixture], { ...process.env, FIXTURE_PID_FILE: pidFile })
      assert.is(run.status, status, run.output)
      const pids = readFileSync(pidFile, 'utf8').trim().split('\n').map(Number)
      assert.is(pids.length, 2)
      for (const pid of pids) await waitUntilDead(pid)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
}

test('a file that waits runs beside the jobs', () => {
  const directory = mkdtempSync(join(tmpdir(), 'runner-'))
  try {
    // each of the three waits for the other two
    const run = runFixtures(['meets-', '--jobs', '2'], { ...process.env, FIXTURE_MEETING: directory })
    assert.is(run.lastLine, '3 passed, 0 failed', run.output)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('--bail runs the files in the order of the filters and stops at the first failure', () => {
  const run = runFixtures(['--bail', '--jobs', '1', '--runtime', 'node', 'only.node', 'fails.test', 'passes'])
  assert.is(run.lastLine, '2 passed, 1 failed')
  assert.ok(run.output.indexOf('only.node') < run.output.indexOf('fails'))
  assert.not.match(run.output, 'passes')
  assert.is(run.status, 1)
})

test('a filter that matches no file is an error', () => {
  const run = runFixtures(['no-such-file'])
  assert.is(run.status, 2)
  assert.match(run.output, 'no test file matches')
})

test.run()
