/**
 * The static interface of dist/core.wasm: no imports, one memory, the functions of docs/abi.md, and the required
 * WebAssembly features.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const test = suite('core module')

/** @returns every `name(...)` in backticks in the first cell of a table row, a form that only calls have */
function documentedCalls(markdown: string): string[] {
  return markdown
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([a-z_]+)\([^`]*\)`/g)])
    .map((match) => match[1] ?? '')
}

const loadModule = (path: string) => new WebAssembly.Module(readFileSync(path))

for (const path of ['dist/core.wasm', 'dist/core.debug.wasm']) {
  test(`${path} imports nothing`, () => {
    assert.equal(WebAssembly.Module.imports(loadModule(path)), [])
  })
}

test('dist/core.wasm exports one memory and functions only', () => {
  const exports = WebAssembly.Module.exports(loadModule('dist/core.wasm'))
  const others = exports.filter((entry) => entry.kind !== 'function')
  assert.equal(others, [{ name: 'memory', kind: 'memory' }])
})

test('dist/core.wasm exports exactly the calls of docs/abi.md', () => {
  const calls = documentedCalls(readFileSync('docs/abi.md', 'utf8'))
  assert.ok(calls.length > 20, `found only ${calls.length} calls in docs/abi.md`)
  const exported = WebAssembly.Module.exports(loadModule('dist/core.wasm'))
    .filter((entry) => entry.kind === 'function')
    .map((entry) => entry.name)
  assert.equal([...exported].sort(), [...new Set(calls)].sort())
})

test('dist/core.wasm validates with the WebAssembly features of docs/abi.md alone', async () => {
  // the copy that the AssemblyScript compiler uses
  const fromCompiler = createRequire(createRequire(`${process.cwd()}/`).resolve('assemblyscript/package.json'))
  const { default: binaryen } = await import(pathToFileURL(fromCompiler.resolve('binaryen')).href)
  const { BulkMemoryOpt, MutableGlobals, NontrappingFPToInt, SignExt } = binaryen.Features
  const module = binaryen.readBinary(new Uint8Array(readFileSync('dist/core.wasm')))
  module.setFeatures(BulkMemoryOpt | MutableGlobals | NontrappingFPToInt | SignExt)
  assert.is(module.validate(), 1)
  module.dispose()
})

test.run()
