// time limit: 120 s
/**
 * A client that travels as a link from one machine to another, as processes: `init --link`, `import -` behind a pipe,
 * files and their modes on disk. A pair that was made for a Go kcptun carries data.
 */

import { spawn } from 'node:child_process'
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, commandOf, freePort, type Program, type Running, run, start } from '../../testkit/process.ts'
import { dial, echoTarget } from '../../testkit/tcp.ts'
import { within } from '../../testkit/wait.ts'

const TIMEOUT_MS = 30_000
const SENT_BYTES = 200_000
const GIVEN = ['--server', '127.0.0.1:4000', '--listen', '1080', '--connect', '80']
/** Larger than a pipe, with a key behind it. */
const PADDING = ' '.repeat(100_000)

const test = suite('import')

/** Runs `import` with a standard input. */
async function importFrom(program: Program, input: string, words: readonly string[]) {
  const [command, ...leading] = commandOf(program)
  const child = spawn(command, [...leading, 'import', ...words], { stdio: ['pipe', 'pipe', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  child.stdout.resume()
  // it may end without reading
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const code = await within('the end of import', TIMEOUT_MS, new Promise((resolve) => child.once('close', resolve)))
  return { code, stderr }
}

const modeOf = (path: string): number => statSync(path).mode & 0o777

for (const program of [...RUNTIMES, 'deno'] as const) {
  test(`a link becomes a file that its owner alone can read: ${program}`, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-import-'))
    const mask = process.umask(0)
    try {
      const made = await run(program, ['init', ...GIVEN, '--dir', dir, '--link'])
      assert.is(made.code, 0, made.stderr)
      const link = /^kcptun-wasm:\S+$/m.exec(made.stdout)?.[0] ?? ''
      const original = readFileSync(join(dir, 'client.json'), 'utf8')
      const path = join(dir, 'elsewhere.json')

      const first = await importFrom(program, `${PADDING}${link}\n`, ['-', '-o', path])
      assert.is(first.code, 0, first.stderr)
      assert.is(readFileSync(path, 'utf8'), original)
      assert.is(modeOf(path), 0o600)

      writeFileSync(path, 'mine')
      chmodSync(path, 0o644)
      const second = await importFrom(program, link, ['-', '-o', path])
      assert.is(second.code, 1)
      assert.match(second.stderr, /already exists/)
      assert.is(readFileSync(path, 'utf8'), 'mine')

      const target = join(dir, 'target')
      writeFileSync(target, 'untouched')
      const linked = join(dir, 'linked.json')
      symlinkSync(target, linked)
      for (const place of [path, linked]) {
        const forced = await importFrom(program, original, ['-', '--force', '-o', place])
        assert.is(forced.code, 0, forced.stderr)
        assert.is(readFileSync(place, 'utf8'), original)
        assert.is(modeOf(place), 0o600, 'also over a file that others could read')
      }
      assert.is(readFileSync(target, 'utf8'), 'untouched', 'a symbolic link is replaced, not followed')

      const words = await run(program, ['import', link])
      assert.is(words.code, 1)
      assert.match(words.stderr, /pass it on standard input/)
      assert.not.ok(words.stderr.includes(link), 'the link is not repeated')
      const large = await importFrom(program, PADDING.repeat(11), ['-', '-o', join(dir, 'large.json')])
      assert.is(large.code, 1)
      assert.match(large.stderr, /standard input: longer than 1048576 bytes/)
      assert.equal(readdirSync(dir).sort(), ['client.json', 'elsewhere.json', 'linked.json', 'server.json', 'target'])
    } finally {
      process.umask(mask)
      rmSync(dir, { recursive: true })
    }
  })
}

test('the pair made for a client of the Go kcptun carries data', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-import-'))
  const target = await echoTarget()
  const running: Running[] = []
  try {
    const [listen, server] = [await freePort(), await freePort()]
    const line = `client -l 127.0.0.1:${listen} -r 127.0.0.1:${server} --key "a pass phrase" --mode fast3 --mtu 1200 -ds 10`
    const words = ['-', '--dir', dir, '--connect', target.address, '--tuning']
    const { code, stderr } = await importFrom('node', `${line}\n`, words)
    assert.is(code, 0, stderr)
    for (const name of ['server', 'client']) {
      const config: Config = JSON.parse(readFileSync(join(dir, `${name}.json`), 'utf8'))
      running.push(await start('node', config))
    }
    const app = await dial('127.0.0.1', listen, { keep: SENT_BYTES })
    await app.pour(SENT_BYTES, 1)
    app.finish()
    const ending = await within('everything to come back', TIMEOUT_MS, app.ending)
    assert.equal([ending.kind, ending.bytes], ['fin', SENT_BYTES])
  } finally {
    for (const program of running) await program.stop()
    await target.close()
    rmSync(dir, { recursive: true })
  }
})

test.run()
