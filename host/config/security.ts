/**
 * Startup checks of method, keys and obfuscation (protocol.md 3.7, 10.3 rule 6). Key derivation and the methods
 * themselves are in host/crypto.
 */

import { KEY_BYTES } from '../crypto/methods.ts'
import { secretBytes } from '../crypto/secret-bytes.ts'
import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { type Config, type KeyConfig, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'
import { expiryOf } from './keys.ts'

/** 43 characters of standard Base64 and one `=`. In canonical form the two unused low bits of the last one are 0. */
const PSK_SYNTAX = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/

/** Standard Base64 (RFC 4648, 4). */
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** The limit of max_sessions. */
export const SESSIONS_MAX = 65_535

/** Names of obfuscators (protocol.md 9). */
const OBFUSCATORS: readonly string[] = ['dpi/tcp-wnd', 'dpi/tcp']

/** A key, which the caller must overwrite, or the password that it is derived from: for `withKey` (crypto/key.ts). */
export type Source =
  | { readonly psk: Uint8Array; readonly password: undefined }
  | { readonly psk: undefined; readonly password: string }

/** The method and the source of its key. */
export type Security = { readonly method: string } & Source

/** Who may use an endpoint: one of `keys`, or psk and password under the name ''. */
export interface NamedKey extends KeyConfig {
  /** Wall clock, ms; from then on the key is not accepted. undefined: never. */
  readonly expiry: number | undefined
}

/** @throws ConfigError that does not contain the value */
function checkPsk(text: string, key = 'psk'): void {
  if (PSK_SYNTAX.test(text)) return
  const reason = `must be ${KEY_BYTES} bytes in standard Base64, 44 characters with padding; generate one with --genpsk`
  throw new ConfigError(key, HIDDEN, reason)
}

/**
 * Decodes a psk: exactly 44 characters of canonical standard Base64, padding included, for 32 bytes (protocol.md 3.7).
 * The caller must overwrite the result after use.
 * @throws ConfigError that does not contain the value
 */
export function parsePsk(text: string): Uint8Array {
  checkPsk(text)
  // not atob: its result is a string, which cannot be overwritten
  const key = secretBytes(KEY_BYTES)
  let bits = 0
  let held = 0
  let at = 0
  for (const character of text.slice(0, -1)) {
    bits = (bits << 6) | BASE64.indexOf(character)
    held += 6
    if (held < 8) continue
    held -= 8
    key[at++] = bits >>> held
  }
  return key
}

function checkObfs(config: Config): void {
  if (config.obfs === undefined) {
    return
  }
  const refuse = (reason: string): never => {
    throw new ConfigError('obfs', quote(config.obfs ?? ''), reason)
  }
  if (!OBFUSCATORS.includes(config.obfs)) {
    refuse(`unknown obfuscator, must be one of ${OBFUSCATORS.join(', ')}`)
  }
  if ((config.mode & MODE_RENDEZVOUS) !== 0 || (config.mode & (MODE_SERVER | MODE_CLIENT)) === 0) {
    refuse('requires a server or client without rendezvous_server')
  }
  if (config.method === undefined) {
    refuse('requires encryption: set method')
  }
}

/**
 * Runs the checks of protocol.md 10.3 rule 6. A method without a key is rejected (3.7: kcptun-libev uses a publicly
 * known one), and so is one whose keys have all expired; without a method psk, password and keys are ignored. No key is
 * decoded.
 * @param methods names of the supported methods
 * @param now wall clock, ms
 * @throws ConfigError
 */
export function assertStartable(config: Config, methods: readonly string[], now = Date.now()): void {
  namedKeys(config, methods, now)
  checkObfs(config)
}

/**
 * The keys that count at a time, in the order of the file: of an endpoint with `psk` or `password` one whose name is
 * empty. No key is decoded: `keySource` does that.
 * @returns undefined if no method is set: packets are not encrypted
 * @throws ConfigError if there is none, or one is malformed
 */
export function namedKeys(
  { method, psk, password, keys }: Config,
  methods: readonly string[],
  now = Date.now(),
): readonly NamedKey[] | undefined {
  if (method === undefined) return undefined
  if (!methods.includes(method)) {
    throw new ConfigError('method', quote(method), `unknown method, must be one of ${methods.join(', ')}`)
  }
  if (keys.length > 0) {
    for (const [index, key] of keys.entries()) if (key.psk !== undefined) checkPsk(key.psk, `keys[${index}].psk`)
    const named = keys.map((key) => ({
      ...key,
      expiry: key.not_after === undefined ? undefined : expiryOf(key.not_after),
    }))
    const valid = named.filter(({ expiry }) => expiry === undefined || now < expiry)
    if (valid.length > 0) return valid
    const texts = keys.map(({ name, not_after }) => `${name} (not_after ${not_after})`)
    throw new ConfigError('keys', '', `all of them have expired: ${texts.join(', ')}`)
  }
  if (psk !== undefined) checkPsk(psk)
  else if (password === undefined) {
    throw new ConfigError('method', quote(method), 'requires a key: set psk (or password, or keys)')
  }
  return [{ name: '', psk, password, not_after: undefined, expiry: undefined, max_sessions: SESSIONS_MAX }]
}

/** Decodes a key of `namedKeys`. @throws ConfigError */
export const keySource = ({ psk, password = '' }: KeyConfig): Source =>
  psk === undefined ? { psk, password } : { psk: parsePsk(psk), password: undefined }

/**
 * Runs the same checks and returns the source of the key that a client uses: the first that has not expired.
 * @returns undefined if no method is set: packets are not encrypted
 * @throws ConfigError
 */
export function checkStart(config: Config, methods: readonly string[], now?: number): Security | undefined {
  assertStartable(config, methods, now)
  const [first] = namedKeys(config, methods, now) ?? []
  return first && { method: config.method ?? '', ...keySource(first) }
}
