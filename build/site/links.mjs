// Links of Markdown files, as the site needs them: sources refer to each other by their paths in the repository, pages by
// their names. Fragments are those of a Git host.

import { posix } from 'node:path'

/**
 * The id of a heading, as Git hosts make it.
 * @param {string} text
 */
export const slug = (text) =>
  text
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}\p{Pc}\- ]/gu, '')
    .replace(/ /g, '-')

/**
 * @typedef {object} Place where links lead
 * @property {ReadonlyMap<string, string>} pages names of pages by their sources
 * @property {ReadonlyMap<string, string>} titles of pages by their sources, in place of file names as labels
 * @property {(path: string) => boolean} exists whether the repository has a file or directory
 * @property {string | undefined} repository URL of the repository's files, if it is known
 * @property {(path: string) => void} image an image that a page shows
 */

/**
 * @param {string} source
 * @param {string} label
 * @param {string} target
 * @param {Place} place
 */
function link(source, label, target, place) {
  if (/^(?:[a-z]+:|#|\/)/.test(target)) return `[${label}](${target})`
  const [path = '', fragment] = target.split('#')
  const file = posix.join(posix.dirname(source), decodeURI(path)).replace(/\/$/, '')
  if (!place.exists(file)) throw new Error(`${source}: dead link: ${target}`)
  const name = place.pages.get(file)
  const text = label.endsWith('.md') ? (place.titles.get(file) ?? label) : label
  if (name !== undefined) return `[${text}](./${name}.md${fragment === undefined ? '' : `#${fragment}`})`
  if (/\.(?:png|svg)$/.test(file)) {
    place.image(file)
    return `[${label}](./${posix.basename(file)})`
  }
  // a file of the repository without a page of its own
  return place.repository === undefined ? label : `[${label}](${place.repository}/${file})`
}

/**
 * The text of a page: links to sources become links to pages, or to the repository's files. Code is left alone.
 * @param {string} source path of the Markdown file
 * @param {string} text
 * @param {Place} place
 * @throws for a link to a file that does not exist
 */
export function pageText(source, text, place) {
  const parts = text.split(/(^ *```[\s\S]*?^ *```|`[^`\n]+`(?!\]))/m)
  const relink = (/** @type {string} */ part) =>
    part.replace(/\[((?:[^[\]]|`[^`]*`)*)\]\(([^()\s]+)\)/g, (_all, label, target) =>
      link(source, label, target, place),
    )
  return parts.map((part, index) => (index % 2 === 0 ? relink(part) : part)).join('')
}
