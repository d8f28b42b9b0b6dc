// time limit: 300 s
/** kcptun-wasm-replay makes the calls of a script to the engine compiled to C, with the results of the module itself. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { buildNative } from '../../testkit/native.ts'
import { projectRoot } from '../../testkit/process.ts'
import { skip } from '../skip.ts'

const test = suite('native: replay')
const built = buildNative()

const replay = (folder: string, script: string): ReturnType<typeof spawnSync> =>
  spawnSync(join(folder, 'kcptun-wasm-replay'), { input: script, encoding: 'utf8' })

if ('reason' in built) skip(test, 'replay', built.reason)
else {
  test('results, written and read memory are those of the WebAssembly module', () => {
    const module = new WebAssembly.Module(readFileSync(join(projectRoot, 'dist/core.wasm')))
    const core = new WebAssembly.Instance(module).exports as Record<string, (...args: number[]) => number>
    const io = core['io_ptr']?.() ?? 0
    const lines = ['call abi_version', 'call io_ptr', '', '# a comment', 'write $2 0403020100ff', 'read $2+1 3']
    // the value of step 4 is 0x010203
    lines.push('read $2+$4+0xfffefdff 2', 'call configure 7', 'call stream_peek $1', 'call next_timeout 0')
    const { stdout, stderr, status } = replay(built.folder, lines.join('\n'))
    assert.is(status, 0, String(stderr))
    const results = ['configure', 'stream_peek', 'next_timeout'].map((name) => `= ${core[name]?.(2)}`)
    assert.equal(String(stdout).trimEnd().split('\n'), [
      `= ${core['abi_version']?.()}`,
      `= ${io}`,
      '-',
      '030201',
      '0201',
      ...results,
    ])
  })

  test('a bad script is refused with its line', () => {
    for (const [script, message] of [
      ['call abi_version\ncall nothing', 'line 2: no such export: nothing'],
      ['call configure', 'line 1: missing number: '],
      ['read $1 4', 'line 1: no such step yet: $1'],
      ['read 0xfffffff0 32', 'line 1: not in linear memory: '],
      ['write 64 0g', 'line 1: bad hex: 0g'],
      ['jump', 'line 1: expected call, write or read: jump'],
    ] as const) {
      const { stderr, status } = replay(built.folder, script)
      assert.is(status, 1)
      assert.is(String(stderr).trimEnd(), message.trimEnd())
    }
  })
}

test.run()
