/**
 * Every item of the checklist in docs/protocol.md section 14 is named by a test, as `MUST 18: ...`, `MUST 1, 2, 3: ...`
 * or `MUST 35, MUST 36: ...`, under both runtimes.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const CHECKLIST_ITEMS = 76
/** Directories that do not count: tests of the build, and those that are skipped without kcptun-libev or root. */
const NOT_COUNTED = ['build', 'interop', 'netns']

const test = suite('checklist')

/** @returns the numbers of the list in section 14, in order */
function checklistOf(markdown: string): number[] {
  const section = markdown.split('\n## 14. Checklist\n')[1]?.split('\n## ')[0] ?? ''
  return [...section.matchAll(/^(\d+)\. (?:MUST|SHOULD)\b/gm)].map((match) => Number(match[1]))
}

/** @returns the items at the start of test names in `source`: string literals `MUST n`, with lists and ranges */
function namedItems(source: string): number[] {
  const items = []
  for (const [, list = ''] of source.matchAll(/['"`]MUST (\d+(?:-\d+)?(?:, (?:MUST )?\d+(?:-\d+)?)*)\b/g)) {
    for (const part of list.replaceAll('MUST ', '').split(', ')) {
      const [first = 0, last = first] = part.split('-').map(Number)
      for (let item = first; item <= last; item++) items.push(item)
    }
  }
  return items
}

type RuntimeName = 'node' | 'bun'

/** @returns where a file's tests run; a file that starts programs of both runtimes counts for both */
function runtimesOf(name: string, source: string): RuntimeName[] {
  if (/\b(?:RUNTIMES|ALL_PAIRS|MIXED_PAIRS)\b/.test(source)) return ['node', 'bun']
  if (name.endsWith('.node.test.ts')) return ['node']
  return name.endsWith('.bun.test.ts') ? ['bun'] : ['node', 'bun']
}

function sources(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) return NOT_COUNTED.includes(entry.name) ? [] : sources(join(directory, entry.name))
    return entry.name.endsWith('.ts') ? [join(directory, entry.name)] : []
  })
}

function itemsByRuntime(): Record<RuntimeName, Set<number>> {
  const found = { node: new Set<number>(), bun: new Set<number>() }
  for (const path of sources('test')) {
    const source = readFileSync(path, 'utf8')
    // helper files contain no tests
    if (!/^ *test\(/m.test(source)) continue
    for (const runtime of runtimesOf(path, source)) for (const item of namedItems(source)) found[runtime].add(item)
  }
  return found
}

const checklist = checklistOf(readFileSync('docs/protocol.md', 'utf8'))

test('docs/protocol.md numbers its items without a gap', () => {
  assert.equal(
    checklist,
    Array.from({ length: CHECKLIST_ITEMS }, (_, index) => index + 1),
  )
})

test('names are parsed as single items, lists and ranges', () => {
  assert.equal(namedItems("test('MUST 7: x')\ntest(`MUST 50, 51, 18: y`)"), [7, 50, 51, 18])
  assert.equal(namedItems(`test('MUST 35, MUST 36: x'); const must = "MUST 11, 35-37"`), [35, 36, 11, 35, 36, 37])
  assert.equal(namedItems("// MUST 3\ntest('what MUST 4 says')"), [])
})

const found = itemsByRuntime()
for (const runtime of ['node', 'bun'] as const) {
  test(`every item is named by a test under ${runtime}`, () => {
    assert.equal(
      checklist.filter((item) => !found[runtime].has(item)),
      [],
    )
  })
}

test('no test names an item that is not on the list', () => {
  assert.equal(
    [...new Set([...found.node, ...found.bun])].filter((item) => !checklist.includes(item)),
    [],
  )
})

test.run()
