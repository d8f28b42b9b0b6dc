/**
 * The npm package contains every file named by its `exports`, including the C header.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('package')

/** Paths in a value of `exports`. */
function targets(value: unknown): string[] {
  if (typeof value === 'string') return [value.replace(/^\.\//, '')]
  return Object.values(value as object).flatMap(targets)
}

test('every file of the exports is packed', () => {
  const { exports } = JSON.parse(readFileSync('package.json', 'utf8'))
  const output = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { encoding: 'utf8' })
  const [{ files }] = JSON.parse(output) as [{ files: { path: string }[] }]
  const packed = new Set(files.map(({ path }) => path))
  const missing = targets(exports).filter((path) => !packed.has(path))
  assert.equal(missing, [])
  for (const path of ['dist/core.wasm', 'dist/kcptun_core.h', 'docs/abi.md']) assert.ok(packed.has(path), path)
})

test.run()
