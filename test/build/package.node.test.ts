/**
 * The npm package: it contains every file named by its `exports` and nothing that only a checkout needs, is small, and
 * its entries and declarations resolve for its users (publint, attw).
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { packagesIn } from './packages.ts'

const PACKED_BYTES_MAX = 1_000_000

const test = suite('package')
const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-pack-'))
test.after(() => rmSync(directory, { recursive: true, force: true }))

/** Paths in a value of `exports` or `bin`. */
function targets(value: unknown): string[] {
  if (typeof value === 'string') return [value.replace(/^\.\//, '')]
  return Object.values(value as object).flatMap(targets)
}

function run(command: string, ...words: string[]): SpawnSyncReturns<string> {
  return spawnSync(command, words, { encoding: 'utf8', maxBuffer: 1 << 26 })
}

const { exports, bin } = JSON.parse(readFileSync('package.json', 'utf8'))
const output = run('npm', 'pack', '--json', '--ignore-scripts', '--pack-destination', directory).stdout
const [{ filename, size, files }] = JSON.parse(output) as [
  { filename: string; size: number; files: { path: string; mode: number }[] },
]
const tarball = join(directory, filename)

test('every file of the exports is packed', () => {
  const packed = new Set(files.map(({ path }) => path))
  const missing = [...targets(exports), ...targets(bin)].filter((path) => !packed.has(path))
  assert.equal(missing, [])
  for (const path of ['dist/core.wasm', 'dist/kcptun_core.h', 'docs/abi.md']) assert.ok(packed.has(path), path)
})

test(`it is smaller than ${PACKED_BYTES_MAX} bytes, without source maps, builds for tests and the documentation site`, () => {
  assert.ok(size < PACKED_BYTES_MAX, `${size} bytes`)
  const superfluous = files.filter(({ path }) =>
    /\.map$|debug|checked|bench.*\.js$|\/native\/|site|vitepress/.test(path),
  )
  assert.equal(superfluous, [])
})

test('every package that became a part of the files has its licence in NOTICES.md', () => {
  const notices = readFileSync('NOTICES.md', 'utf8').toLowerCase()
  const included = new Set<string>()
  for (const { path } of files.filter(({ path }) => path.endsWith('.js'))) {
    for (const name of packagesIn(path)) included.add(name)
  }
  assert.ok(included.has('uqr') && included.has('jsonc-parser'), [...included].join())
  assert.equal(
    [...included].filter((name) => !notices.includes(`[${name}]`)),
    [],
  )
  assert.ok(
    files.some(({ path }) => path === 'NOTICES.md'),
    'it is packed',
  )
})

test('the program is executable', () => {
  for (const path of targets(bin)) {
    const mode = files.find((file) => file.path === path)?.mode ?? 0
    assert.is(mode & 0o111, 0o111, path)
  }
})

test('publint finds nothing', () => {
  const { status, stdout, stderr } = run(process.execPath, 'node_modules/publint/src/cli.js', tarball, '--strict')
  assert.is(status, 0, stdout + stderr)
})

test('attw finds no entry without types, and no declaration that does not resolve', () => {
  const cli = 'node_modules/@arethetypeswrong/cli/dist/index.js'
  // the package is for ECMAScript modules alone; the C header is not for TypeScript
  const words = ['--profile', 'esm-only', '--exclude-entrypoints', 'kcptun_core.h', '--no-definitely-typed']
  const { status, stdout, stderr } = run(process.execPath, cli, tarball, ...words, '--no-color', '--format', 'ascii')
  assert.is(status, 0, stdout + stderr)
})

test.run()
