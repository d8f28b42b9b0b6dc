// npm run release:check: whether a release may be made of this checkout. Names every placeholder that a maintainer has to
// fill, every place where versions disagree, and what to do (RELEASING.md); the exit status is 1 while there is one.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { inProject, root } from './files.mjs'

/** What stands for names that only a maintainer knows. */
const PLACEHOLDER = /FILL-IN|example\.invalid/i
/** Where they may be, and which versions have to agree with package.json. */
export const FILES = [
  'package.json',
  'package-lock.json',
  'CHANGELOG.md',
  'contrib/openwrt/Makefile',
  'docs/kcptun-wasm.8',
  'docs/kcptun-wasm.json.5',
]

/** The version that a file names. @type {Record<string, RegExp>} */
const VERSIONS = {
  'package-lock.json': /"version": "([^"]+)"/,
  'contrib/openwrt/Makefile': /^PKG_VERSION:=(.*)$/m,
  'docs/kcptun-wasm.8': /^\.TH .*"kcptun-wasm (\S+)"/m,
  'docs/kcptun-wasm.json.5': /^\.TH .*"kcptun-wasm (\S+)"/m,
}

/** @param {string} version @param {string} changelog */
function changelogProblems(version, changelog) {
  const sections = changelog.split(/^## /m).slice(1)
  const isRelease = (/** @type {string} */ section) => section.startsWith(`[${version}]`)
  const problems = []
  const unreleased = sections.find((section) => section.startsWith('[Unreleased]')) ?? ''
  if (/^- /m.test(unreleased)) {
    problems.push(`CHANGELOG.md: [Unreleased] has entries: move them below "## [${version}] - date"`)
  }
  const [latest = ''] = sections.filter((section) => !section.startsWith('[Unreleased]'))
  if (!isRelease(latest)) {
    problems.push(`CHANGELOG.md: the newest release is not ${version}, the version in package.json: change one of them`)
  } else if (!/^\[[^\]]+\] - \d{4}-\d\d-\d\d$/m.test(latest.split('\n', 1)[0] ?? '')) {
    problems.push(`CHANGELOG.md: ${version} has no date: write "## [${version}] - YYYY-MM-DD"`)
  }
  return problems
}

/**
 * What is to be done before a release.
 * @param {(path: string) => string} text of a file of FILES
 * @returns {string[]} empty: nothing
 */
export function releaseProblems(text) {
  const { version } = JSON.parse(text('package.json'))
  const problems = []
  for (const path of FILES) {
    text(path)
      .split('\n')
      .forEach((line, index) => {
        if (PLACEHOLDER.test(line)) problems.push(`${path}:${index + 1}: fill in: ${line.trim()}`)
      })
    const [, named] = VERSIONS[path]?.exec(text(path)) ?? []
    if (VERSIONS[path] && named !== version) {
      problems.push(`${path}: is for version ${named}, package.json has ${version}: change one of them`)
    }
  }
  return [...problems, ...changelogProblems(version, text('CHANGELOG.md'))]
}

// a test includes this file in its own
if (process.argv[1]?.endsWith('release-check.mjs')) {
  const problems = releaseProblems((path) => readFileSync(inProject(path), 'utf8'))
  const changed = execFileSync('git', ['status', '--porcelain'], { cwd: root, encoding: 'utf8' }).trim()
  if (changed !== '') problems.push(`the checkout has changes that are not committed:\n${changed}`)
  for (const problem of problems) process.stdout.write(`${problem}\n`)
  process.stdout.write(
    problems.length === 0
      ? 'ready: go on with RELEASING.md\n'
      : `not ready, ${problems.length} to do (RELEASING.md, "Before the first release")\n`,
  )
  process.exitCode = problems.length === 0 ? 0 : 1
}
