// time limit: 180 s
/**
 * A fixed number of guided inputs for each target finds nothing, and guidance finds a planted crash that chance does not.
 */
import { spawnSync } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('fuzz/guided')

function guided(...args: string[]): { readonly status: number | null; readonly output: string } {
  const words = ['test/fuzz/run.mjs', '--guided', '--seed', '1', ...args]
  const { status, stdout, stderr } = spawnSync('node', words, { encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

test('no target fails within a fixed number of inputs, and each reaches code that its seeds do not', () => {
  const { status, output } = guided('--inputs', '6000')
  assert.is(status, 0, output)
  const lines = output.trim().split('\n')
  assert.ok(lines.length >= 16, output)
  for (const line of lines) assert.match(line, /^[\w-]+: 6000 inputs, \d+ a second, \d+ edges, corpus \d+$/, line)
})

test('guidance finds a crash behind four comparisons of a byte, which the same inputs without guidance do not', () => {
  const found = guided('--target', 'planted', '--inputs', '100000')
  assert.is(found.status, 1)
  assert.match(found.output, /FAILED: Error: the planted crash/)
  const [, input = ''] = /--target planted --input ([\da-f]+)/.exec(found.output) ?? []
  assert.is(input, 'ca5e19d4', 'made smaller')
  const missed = guided('--target', 'planted', '--inputs', '100000', '--unguided')
  assert.is(missed.status, 0, missed.output)
  const again = guided('--target', 'planted', '--input', input)
  assert.is(again.status, 1)
  assert.match(again.output, /planted: FAILED: Error: the planted crash/)
})

test.run()
