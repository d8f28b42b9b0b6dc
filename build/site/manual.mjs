// Manual pages as pages of the site: mandoc (Debian package of that name) makes HTML of them, whose headings become
// Markdown, so that outline and search know them.

import { spawnSync } from 'node:child_process'
import { posix } from 'node:path'
import { slug } from './links.mjs'

/** Where another manual is mentioned, with its section. */
const MENTION = /<b>(kcptun-wasm(?:\.json)?)<\/b>\((\d)\)/g

/**
 * The Markdown of a page from mandoc's HTML.
 * @param {string} name file name of the manual, `NAME.SECTION`
 * @param {string} html
 */
export function manualPage(name, html) {
  const [, base, section] = /^(.*)\.(\d)$/.exec(name) ?? []
  const body = html
    .replace(/<table class="(?:head|foot)">[\s\S]*?<\/table>/g, '')
    .replace(/<\/?(?:section|div)\b[^>]*>/g, '')
    .replace(/<h([12])[^>]*>(?:<a [^>]*>)?([\s\S]*?)(?:<\/a>)?<\/h\1>/g, (_all, level, text) => {
      const heading = text.replace(/\s+/g, ' ')
      return `\n\n${level === '1' ? '##' : '###'} ${heading} {#${slug(heading)}}\n\n`
    })
    // ids of options: anchors of headings may have the same name
    .replace(/<(dt|b|i|a|span)\b[^>]*? id="[^"]*"/g, '<$1')
    .replace(/<a class="permalink"[^>]*>([\s\S]*?)<\/a>/g, '$1')
    .replace(MENTION, (all, other, number) =>
      `${other}.${number}` === name ? all : `<a href="./${other}.${number}.html">${other}(${number})</a>`,
    )
    .split(/(<pre[\s\S]*?<\/pre>)/)
    // outside of examples: Vue removes line breaks between elements; in them: an empty line would end the HTML
    .map((part, i) => (i % 2 === 0 ? part.replace(/\n +/g, ' ') : part.replace(/\n\n/g, '\n&#10;')))
    .join('')
  return `# ${base}(${section})\n\n::: v-pre\n${body}\n:::\n`
}

/**
 * @param {string} path of a manual, absolute
 * @throws where mandoc is not installed, or fails
 */
export function manualText(path) {
  const { error, status, stdout, stderr } = spawnSync('mandoc', ['-T', 'html', '-O', 'fragment', path], {
    encoding: 'utf8',
  })
  if (error !== undefined) throw new Error(`mandoc, which renders the manuals, does not start: ${error.message}`)
  if (status !== 0) throw new Error(`mandoc ${path}: ${stderr}`)
  return manualPage(posix.basename(path), stdout)
}
