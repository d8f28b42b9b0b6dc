/**
 * What a tunnel loads before it serves. Each module costs memory for as long as it runs, so what only a subcommand, the
 * monitoring server or another cipher needs is loaded there.
 */

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { projectRoot } from '../../testkit/process.ts'
import { packagesIn } from './packages.ts'

const RUNTIMES = ['node', 'bun', 'deno'] as const
/** With what they are for. */
const LATE: ReadonlyMap<string, string> = new Map([
  ['hono', 'http_listen'],
  ['node:http', 'http_listen'],
  ['node:crypto', 'aes256gcm without OpenSSL'],
  ['libsodium-wrappers', 'a method without a native library'],
  ['libsodium-wrappers-sumo', 'a password'],
  ['sodium-native', 'a method'],
  ['koffi', 'system calls on Node'],
  ['node:child_process', 'workers and -d'],
  ['node:readline', 'the questions of init'],
  ['node:tty', 'subcommands'],
])

/** Packages that became a part of the program, and when they are needed. */
const LATE_PARTS: ReadonlyMap<string, string> = new Map([['uqr', 'init --qr']])

/** Modules outside dist/ that a file imports statically, directly or through files of dist/, and packages inside. */
function startModules(entry: string): { outside: Set<string>; included: Set<string> } {
  const outside = new Set<string>()
  const included = new Set<string>()
  const seen = new Set<string>()
  const visit = (path: string): void => {
    if (seen.has(path)) return
    seen.add(path)
    const text = readFileSync(path, 'utf8')
    for (const name of packagesIn(path)) included.add(name)
    for (const [, name = ''] of text.matchAll(/(?<=^|[;}])(?:import|export)\b(?:[^'"();]*?\bfrom)?\s*"([^"]+)"/gm)) {
      if (name.startsWith('.')) visit(join(dirname(path), name))
      else outside.add(name)
    }
  }
  visit(entry)
  assert.ok(seen.size > 1, 'the parts were followed')
  return { outside, included }
}

const test = suite('build/start-modules')

for (const runtime of RUNTIMES) {
  test(`the program starts without what few tunnels need: ${runtime}`, () => {
    const entry = join(projectRoot, 'dist', runtime, 'cli.js')
    assert.ok(existsSync(entry), 'npm run build')
    const { outside: modules, included } = startModules(entry)
    assert.ok(modules.has('node:fs'), [...modules].join())
    for (const [name, purpose] of LATE) assert.not.ok(modules.has(name), `${name}, which is for ${purpose}`)
    assert.ok(included.has('jsonc-parser'), 'packages inside are found')
    for (const [name, purpose] of LATE_PARTS) assert.not.ok(included.has(name), `${name}, which is for ${purpose}`)
    const packages = [...modules].filter((name) => !/^(node|bun):/.test(name))
    assert.equal(packages, [], 'no npm package, whose loader would be needed, too')
  })
}

test.run()
