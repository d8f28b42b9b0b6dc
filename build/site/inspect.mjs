// Inspects a built site: links and fragments that lead nowhere, and anything that a page would load from another host.

import { posix } from 'node:path'

/** Elements that load what they name; `a` does not. */
const LOADING = /<(?:script|link|img|source|iframe|audio|video|object|embed|use|image|form)\b[^>]*>/g
const REFERENCE = /\s(?:src|href|srcset|data|action|poster)\s*=\s*"([^"]*)"/g
const POLICY = /<meta http-equiv="Content-Security-Policy" content="default-src 'none';/
const ABSOLUTE = /^\s*(?:[a-z][a-z0-9+.-]*:)?\/\//i

/** @param {string} text */
const decoded = (text) => decodeURIComponent(text.replaceAll('&amp;', '&'))

/**
 * What a file would load from another host.
 * @param {string} name its extension says what it is
 * @param {string} text
 * @returns {string[]}
 */
export function externalResources(name, text) {
  const found = []
  if (name.endsWith('.html')) {
    if (!POLICY.test(text)) found.push('anything: it has no Content-Security-Policy')
    for (const [element] of text.matchAll(LOADING)) {
      for (const [, value = ''] of element.matchAll(REFERENCE)) if (ABSOLUTE.test(value)) found.push(value)
    }
  }
  if (name.endsWith('.html') || name.endsWith('.css')) {
    for (const [, value = ''] of text.matchAll(/url\(\s*["']?([^"')]*)/g)) if (ABSOLUTE.test(value)) found.push(value)
    for (const [, value = ''] of text.matchAll(/@import\s+["']([^"']*)/g)) if (ABSOLUTE.test(value)) found.push(value)
  }
  if (name.endsWith('.js') || name.endsWith('.html')) {
    const loads =
      /(?:(?<!@)\bimport\s*\(?|\bfrom|\bfetch\s*\(|\bnew\s+(?:Worker|SharedWorker|EventSource|WebSocket|URL|Image)\s*\(|\bimportScripts\s*\(|\.src\s*=)\s*["'`]([^"'`]*)/g
    for (const [, value = ''] of text.matchAll(loads)) if (ABSOLUTE.test(value)) found.push(value)
  }
  return found
}

/**
 * Links of pages to files and fragments that the site does not have.
 * @param {ReadonlyMap<string, string>} files texts by path, relative to the site
 * @param {string} base path below which the site is served
 * @returns {string[]}
 */
export function deadLinks(files, base) {
  /** @type {Map<string, Set<string>>} */
  const ids = new Map()
  for (const [path, text] of files) {
    if (path.endsWith('.html'))
      ids.set(path, new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id = '']) => decoded(id))))
  }
  const found = []
  for (const [path, text] of files) {
    if (!path.endsWith('.html')) continue
    for (const [, target = ''] of text.matchAll(/<a\b[^>]*?\shref="([^"]*)"/g)) {
      if (/^[a-z]+:|^\/\//.test(target)) continue
      const [place = '', fragment = ''] = decoded(target).split('#')
      const from = posix.join(base, path)
      const absolute = place === '' ? from : posix.resolve(posix.dirname(from), place)
      const file = place.endsWith('/') || absolute === '/' ? posix.join(absolute, 'index.html') : absolute
      const inside = posix.relative(base, file)
      if (!files.has(inside)) found.push(`${path}: ${target}: no such file`)
      else if (fragment !== '' && !ids.get(inside)?.has(fragment)) found.push(`${path}: ${target}: no such heading`)
    }
  }
  return found
}
