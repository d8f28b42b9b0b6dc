/**
 * Startup checks of method, keys and obfuscation (protocol.md 3.7, 10.3 rule 6). Key derivation and the methods
 * themselves are in host/crypto.
 */

import { KEY_BYTES } from '../crypto/methods.ts'
import { secretBytes } from '../crypto/secret-bytes.ts'
import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'

/** 43 characters of standard Base64 and one `=`. In canonical form the two unused low bits of the last one are 0. */
const PSK_SYNTAX = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/

/** Standard Base64 (RFC 4648, 4). */
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** Names of obfuscators (protocol.md 9). */
const OBFUSCATORS: readonly string[] = ['dpi/tcp-wnd', 'dpi/tcp']

/** The method and the source of its key. */
export type Security =
  | { readonly method: string; readonly psk: Uint8Array; readonly password: undefined }
  | { readonly method: string; readonly psk: undefined; readonly password: string }

/** @throws ConfigError that does not contain the value */
function checkPsk(text: string): void {
  if (PSK_SYNTAX.test(text)) return
  const reason = `must be ${KEY_BYTES} bytes in standard Base64, 44 characters with padding; generate one with --genpsk`
  throw new ConfigError('psk', HIDDEN, reason)
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
 * known one); without a method psk and password are ignored. No key is decoded.
 * @param methods names of the supported methods
 * @throws ConfigError
 */
export function assertStartable(config: Config, methods: readonly string[]): void {
  const { method, psk, password } = config
  if (method !== undefined) {
    if (!methods.includes(method)) {
      throw new ConfigError('method', quote(method), `unknown method, must be one of ${methods.join(', ')}`)
    }
    if (psk !== undefined) checkPsk(psk)
    else if (password === undefined) {
      throw new ConfigError('method', quote(method), 'requires a key: set psk (or password)')
    }
  }
  checkObfs(config)
}

/**
 * Runs the same checks and returns the key source, for withKey (crypto/key.ts), which overwrites the key.
 * @returns undefined if no method is set: packets are not encrypted
 * @throws ConfigError
 */
export function checkStart(config: Config, methods: readonly string[]): Security | undefined {
  assertStartable(config, methods)
  const { method, psk, password } = config
  if (method === undefined) return undefined
  if (psk !== undefined) return { method, psk: parsePsk(psk), password: undefined }
  return { method, psk: undefined, password: password ?? '' }
}
