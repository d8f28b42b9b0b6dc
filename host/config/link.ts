/**
 * A configuration as a link: one word that can be copied, sent or shown as a QR code. Version 1 is `kcptun-wasm://v1/`
 * and the configuration, JSON in UTF-8, in base64url without padding (RFC 4648, 5). A link holds the key.
 */

import { ConfigError } from '../errors.ts'
import { LINK_PREFIX, PROGRAM } from '../version.ts'

const VERSION = 'v1'
const PAYLOAD = /^[\w-]+$/

/** Whether a text is meant as a link. */
export const isLink = (text: string): boolean => text.trimStart().toLowerCase().startsWith(LINK_PREFIX)

/** The link of a configuration. `$schema`, which only editors use, is left out. */
export function linkOf(config: Readonly<Record<string, unknown>>): string {
  const { $schema: _, ...rest } = config
  const bytes = new TextEncoder().encode(JSON.stringify(rest))
  const base64 = btoa(String.fromCharCode(...bytes))
  const payload = base64.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  return `${LINK_PREFIX}${VERSION}/${payload}`
}

const refuse = (reason: string): never => {
  throw new ConfigError('', '', reason)
}

/**
 * The members of the configuration in a link. White space is ignored: mail programs and terminals break long words.
 * The configuration itself is not checked.
 * @throws ConfigError whose message does not contain the link
 */
export function readLink(text: string): Record<string, unknown> {
  const word = text.replace(/\s+/g, '')
  if (!isLink(word)) return refuse(`a link begins with ${LINK_PREFIX}`)
  const [version = '', payload = '', ...others] = word.slice(LINK_PREFIX.length).split('/')
  if (/^v\d+$/.test(version) && version !== VERSION) {
    return refuse(`the link has format ${version}, this ${PROGRAM} reads ${VERSION}: update it`)
  }
  const damaged = 'the link is damaged or incomplete: copy all of it'
  if (version !== VERSION || others.length > 0 || !PAYLOAD.test(payload)) return refuse(damaged)
  try {
    const binary = atob(payload.replaceAll('-', '+').replaceAll('_', '/'))
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0))
    const config: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    if (typeof config === 'object' && config !== null && !Array.isArray(config)) return { ...config }
  } catch {
    // reported below, without the text, which holds the key
  }
  return refuse(damaged)
}
