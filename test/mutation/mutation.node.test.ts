// time limit: 180 s
/**
 * The mutation check: a sample depends on its seed alone, a mutant covered by a test is caught, one that no chosen test
 * covers is reported as missed (the tests pass in a copy), and the list of equivalent mutants matches the sources.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { draw } from './draw.ts'
import { OPERATORS } from './operators.ts'
import type { Equivalent } from './report.ts'
import type { Mutant } from './sites.ts'

const test = suite('mutation')

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
  /** Files left in the directory for temporary files. */
  readonly left: readonly string[]
}

function mutation(...args: string[]): Run {
  const TMPDIR = mkdtempSync(join(tmpdir(), 'mutation-'))
  try {
    const env = { ...process.env, TMPDIR }
    const { status, stdout, stderr } = spawnSync('node', ['test/mutation/run.mjs', ...args], { encoding: 'utf8', env })
    return { status, stdout, stderr, left: readdirSync(TMPDIR) }
  } finally {
    rmSync(TMPDIR, { recursive: true, force: true })
  }
}

const drawn = (seed: number): string[] =>
  mutation('--list', '--count', '40', '--seed', String(seed)).stdout.trim().split('\n')

test('the same seed draws the same mutants, equally many for each operator', () => {
  const first = drawn(7)
  assert.is(first.length, 40)
  for (const operator of OPERATORS) {
    assert.is(first.filter((line) => line.includes(`  ${operator}  `)).length, 4, operator)
  }
  assert.equal(drawn(7), first)
})

test('another seed draws other mutants, and each mutant is in one group only', () => {
  const mutants = Array.from({ length: 600 }, (_, start): Mutant => {
    const operator = OPERATORS[start % OPERATORS.length] ?? 'early return'
    const edit = { operator, start, end: start, replacement: '' }
    return { operator, file: 'x.ts', line: start, original: `${start % 300}`, mutated: '', edit }
  })
  const lines = (seed: number): number[] => draw(mutants, seed, 40).map(([first]) => first?.line ?? -1)
  assert.equal(lines(1), lines(1))
  const other = new Set(lines(2))
  assert.ok(lines(1).filter((line) => other.has(line)).length < 20)
  const all = draw(mutants, 1, 40).flat()
  assert.is(all.length, 600)
  assert.is(new Set(all).size, 600)
  // removing a mutant keeps the order of the others
  const [gone] = lines(1)
  const firsts = (all: readonly Mutant[]): (Mutant | undefined)[] => draw(all, 1, 40).map(([first]) => first)
  const kept = new Set(firsts(mutants.filter(({ line }) => line !== gone)))
  assert.is(firsts(mutants).filter((first) => kept.has(first)).length, 39)
})

/** FILE:LINE of a statement. */
function siteOf(file: string, statement: string): string {
  const lines = readFileSync(file, 'utf8').split('\n')
  const found = lines.flatMap((line, index) => (line.trim() === statement ? [`${file}:${index + 1}`] : []))
  assert.is(found.length, 1, statement)
  return found[0] ?? ''
}

test('a mutant is caught by a test that covers it, and missed otherwise', () => {
  const covered = siteOf('host/driver/stream.ts', 'const joined = new Uint8Array(this.#kept.length + chunk.length)')
  const uncovered = siteOf('host/driver/diagnostics.ts', "this.#log.notice('tcp accept: recovered')")
  const source = readFileSync('host/driver/stream.ts', 'utf8')
  const run = mutation('--at', `${covered},${uncovered}`, '--tests', 'host/driver-mechanics')
  assert.match(run.stdout, /swap \+ and - {2}host\/driver\/stream\.ts:.* {2}caught by host\/driver-mechanics\.test\.ts/)
  assert.match(run.stdout, /remove call {2}host\/driver\/diagnostics\.ts:.* {2}MISSED/)
  assert.match(run.stdout, '1 of 2 caught, 50.0 %; 0 equivalent')
  assert.is(run.status, 1)
  // the test fails because of the mutant
  assert.not.match(run.stderr, 'left out')
  assert.is(readFileSync('host/driver/stream.ts', 'utf8'), source)
  assert.equal(run.left, [])
})

test('every equivalent mutant is still in the sources, and has a reason', () => {
  const list: Equivalent[] = JSON.parse(readFileSync('test/mutation/equivalent.json', 'utf8'))
  for (const { file, operator, original, mutated, reason } of list) {
    const text = readFileSync(file, 'utf8').replace(/\s*\n\s*/g, ' ')
    assert.ok(text.includes(original), `${file}: ${original}`)
    assert.ok(OPERATORS.some((name) => name === operator))
    assert.is.not(original, mutated)
    assert.ok(reason.length > 20, original)
  }
})

test.run()
