// time limit: 300 s
/** examples/native-c is built by the command at its head, and exchanges a message between two endpoints. */
import { execFileSync, execSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { buildNative } from '../../testkit/native.ts'
import { nativeFolder, projectRoot } from '../../testkit/process.ts'
import { skip } from '../skip.ts'

const SUPPORT = '/usr/share/wabt/wasm2c'

const test = suite('native: example')
const built = buildNative()

if ('reason' in built) skip(test, 'example', built.reason)
else {
  test('two endpoints in one process exchange a message', () => {
    const source = readFileSync(join(projectRoot, 'examples/native-c/memory.c'), 'utf8')
    const command = /^ \* {3}(cc (?:.*\\\n)*.*)$/m.exec(source)?.[1]?.replace(/\\\n \*/g, '') ?? ''
    assert.ok(command.includes(SUPPORT), 'a command in the comment')
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const program = join(dir, 'memory')
      const flags = nativeFolder.endsWith('sanitize') ? '-fsanitize=address,undefined ' : ''
      const here = command.replaceAll('dist/native', nativeFolder).replace('-o memory', `${flags}-o ${program}`)
      execSync(here, { cwd: projectRoot })
      assert.is(execFileSync(program, { encoding: 'utf8' }), 'server received: hello\nclient received: HELLO\n')
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
}

test.run()
