/** `npm run release:check`: what it refuses, on files with one thing wrong at a time, and that it refuses this checkout's placeholders. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { FILES, releaseProblems } from '../../build/release-check.mjs'

const test = suite('release check')
const here = new Map(FILES.map((path) => [path, readFileSync(path, 'utf8')]))
const { version } = JSON.parse(here.get('package.json') ?? '') as { version: string }

/** Files that are ready for a release. */
const ready = new Map(
  [...here].map(([path, text]) => [
    path,
    text.replaceAll(/FILL-IN|fill-in/g, 'someone').replaceAll('example.invalid', 'host.test'),
  ]),
)
ready.set('CHANGELOG.md', `# Changelog\n\n## [Unreleased]\n\n## [${version}] - 2026-12-01\n\n### Added\n\n- All.\n`)

const problems = (changes: Readonly<Record<string, (text: string) => string>>): string[] =>
  releaseProblems((path) => {
    const text = ready.get(path) ?? ''
    return changes[path]?.(text) ?? text
  })

test('nothing is to be done where all is filled in and agrees', () => assert.equal(problems({}), []))

for (const [name, path, change, expected] of [
  [
    'a placeholder',
    'package.json',
    (text) => text.replace('host.test', 'example.invalid'),
    /^package\.json:\d+: fill in: /,
  ],
  ['another version', 'package-lock.json', (text) => text.replace(version, '9.9.9'), /^package-lock\.json: .* 9\.9\.9/],
  [
    'an old manual',
    'docs/kcptun-wasm.8',
    (text) => text.replace(version, '0.0.1'),
    /^docs\/kcptun-wasm\.8: .* 0\.0\.1/,
  ],
  ['an old recipe', 'contrib/openwrt/Makefile', (text) => text.replace(version, '0.0.1'), /Makefile: .* 0\.0\.1/],
  [
    'changes that are not released',
    'CHANGELOG.md',
    (text) => text.replace('[Unreleased]\n', '[Unreleased]\n\n- One.\n'),
    /\[Unreleased\] has entries/,
  ],
  ['a release without date', 'CHANGELOG.md', (text) => text.replace(' - 2026-12-01', ''), /has no date/],
  ['no release', 'CHANGELOG.md', (text) => text.replace(`[${version}]`, '[0.0.9]'), /newest release is not/],
] as readonly [string, string, (text: string) => string, RegExp][]) {
  test(`it names ${name}`, () => {
    const found = problems({ [path]: change })
    assert.is(found.length, 1, found.join('\n'))
    assert.match(found[0] ?? '', expected)
  })
}

test.run()
