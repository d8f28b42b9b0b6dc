/** Parses request targets and the parameters of /stats (protocol.md 11). */

import { SessionFilter, type StatsQuery } from './stats.ts'

const TRUE_WORDS = new Set(['1', 'y', 'yes', 'on', 't', 'true'])

/** Numbers and names of the `sessions` parameter (protocol.md 11.2). */
const SESSION_WORDS = new Map<string, number>([
  ['0', SessionFilter.none],
  ['none', SessionFilter.none],
  ['1', SessionFilter.connected],
  ['connected', SessionFilter.connected],
  ['2', SessionFilter.active],
  ['active', SessionFilter.active],
  ['3', SessionFilter.all],
  ['all', SessionFilter.all],
])

/** Decodes percent escapes. @returns undefined for an invalid escape or a control character */
function decode(text: string): string | undefined {
  try {
    const decoded = decodeURIComponent(text)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it matches control characters
    return /[\u0000-\u001f\u007f]/.test(decoded) ? undefined : decoded
  } catch {
    return undefined
  }
}

/** Unreserved and reserved characters and `%` (RFC 3986, section 2). */
const TARGET = /^[\w.~:/?#[\]@!$&'()*+,;=%-]+$/
/** Scheme, authority, path, query, fragment of an absolute or scheme-relative URI. */
const ABSOLUTE = /^(?:[a-z][a-z\d+.-]*:)?\/\/[^/?#]*/i

/**
 * Parses a request target (protocol.md 11).
 * @returns the decoded first segment, whether further segments follow, and the raw query; undefined if malformed
 */
export function parseTarget(
  target: string,
): { readonly name: string; readonly more: boolean; readonly query: string } | undefined {
  if (!TARGET.test(target)) return undefined
  const local = target.replace(/#.*$/, '').replace(ABSOLUTE, '')
  const question = local.indexOf('?')
  const path = question < 0 ? local : local.slice(0, question)
  if (!path.startsWith('/')) return undefined
  const segments: string[] = []
  for (const raw of path.replace(/^\/+/, '').split('/')) {
    const segment = decode(raw)
    if (segment === undefined) return undefined
    segments.push(segment)
  }
  return { name: segments[0] ?? '', more: segments.length > 1, query: question < 0 ? '' : local.slice(question + 1) }
}

/** Parses the parameters of /stats. @param filter default of `sessions` @returns undefined if not form-encoded */
export function parseStatsQuery(query: string, filter: number = SessionFilter.connected): StatsQuery | undefined {
  let banner = false
  let sessions = filter
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const key = decode((equals < 0 ? pair : pair.slice(0, equals)).replaceAll('+', ' '))
    const value = equals < 0 ? '' : decode(pair.slice(equals + 1).replaceAll('+', ' '))
    if (key === undefined || value === undefined) return undefined
    if (key === 'nobanner') banner = !(equals < 0 || TRUE_WORDS.has(value))
    else if (key === 'sessions') sessions = SESSION_WORDS.get(value) ?? sessions
  }
  return { banner, sessions }
}

/** The parameter `tunnel`; undefined without it. */
export function tunnelOfQuery(query: string): string | undefined {
  const found = query.split('&').find((pair) => pair.startsWith('tunnel='))
  return found === undefined ? undefined : (decode(found.slice('tunnel='.length).replaceAll('+', ' ')) ?? '')
}
