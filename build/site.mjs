// node build/site.mjs [--base PATH]
//
// Builds the documentation site in dist/site with VitePress, from docs/ and the few Markdown files elsewhere, as
// build/site/pages.mjs lists them, and the manuals, which mandoc renders. Fails for a link or fragment that leads nowhere and for anything that a page would
// load from another host. PATH is where the site will be served, / by default. The sources stay readable on a Git host:
// the pages are copies in .cache/site whose links are those of the site.

import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { posix } from 'node:path'
import { parseArgs } from 'node:util'
import { exists, filesBelow, inProject, runScript } from './files.mjs'
import { deadLinks, externalResources } from './site/inspect.mjs'
import { pageText } from './site/links.mjs'
import { manualText } from './site/manual.mjs'
import { pages } from './site/pages.mjs'

const STAGE = '.cache/site'
const OUTPUT = 'dist/site'

const { values } = parseArgs({ options: { base: { type: 'string', default: '/' } } })

/** URL of the repository's files, from package.json. */
function repositoryFiles() {
  const { repository } = JSON.parse(readFileSync(inProject('package.json'), 'utf8'))
  const url = typeof repository === 'string' ? repository : repository?.url
  // a placeholder until a maintainer fills it in: no links then
  if (url?.includes('FILL-IN')) return undefined
  return /^(?:git\+)?(https:\/\/.+?)(?:\.git)?$/.exec(url ?? '')?.[1]?.concat('/blob/main')
}

/** Writes the pages, their images, configuration and theme to the stage. */
function stage() {
  rmSync(inProject(STAGE), { recursive: true, force: true })
  mkdirSync(inProject(`${STAGE}/.vitepress`), { recursive: true })
  const place = {
    pages: new Map(pages.map(({ source, name }) => [source, name])),
    titles: new Map(pages.map(({ source, title }) => [source, title])),
    exists,
    repository: repositoryFiles(),
    image: (/** @type {string} */ path) => copyFileSync(inProject(path), inProject(`${STAGE}/${posix.basename(path)}`)),
  }
  for (const { source, name } of pages) {
    const text = source.endsWith('.md')
      ? pageText(source, readFileSync(inProject(source), 'utf8'), place)
      : manualText(inProject(source))
    writeFileSync(inProject(`${STAGE}/${name}.md`), text)
  }
  writeFileSync(
    inProject(`${STAGE}/.vitepress/config.mjs`),
    `export { default } from ${JSON.stringify(inProject('build/site/config.mjs'))}\n`,
  )
  cpSync(inProject('build/site/theme'), inProject(`${STAGE}/.vitepress/theme`), { recursive: true })
}

/** @returns {string[]} what is wrong with the built site */
function inspect() {
  const files = new Map(
    filesBelow(OUTPUT).map((path) => [posix.relative(OUTPUT, path), readFileSync(inProject(path), 'utf8')]),
  )
  const loads = [...files].flatMap(([path, text]) =>
    externalResources(path, text).map((url) => `${path}: loads from another host: ${url}`),
  )
  const size = filesBelow(OUTPUT).reduce((sum, path) => sum + readFileSync(inProject(path)).length, 0)
  process.stdout.write(`${OUTPUT}: ${pages.length} pages, ${files.size} files, ${(size / 1e6).toFixed(1)} MB\n`)
  return [...deadLinks(files, values.base), ...loads]
}

stage()
process.env.DOCS_BASE = values.base
await runScript('node_modules/vitepress/bin/vitepress.js', ['build', inProject(STAGE), '--outDir', inProject(OUTPUT)])
const problems = inspect()
for (const problem of problems) process.stderr.write(`${problem}\n`)
if (problems.length > 0) process.exitCode = 1
