/**
 * What is checked at start about method, keys and obfuscation (protocol.md 3.7, 10.3 rule 6), and the MTU
 * arithmetic that depends on them (4). Key derivation and the methods themselves belong to the crypto room.
 */

import { secretBytes } from '../crypto/secret-bytes.ts'
import { type Config, MODE_CLIENT, MODE_RENDEZVOUS, MODE_SERVER } from './config.ts'
import { ConfigError, HIDDEN, quote } from './error.ts'

/** Length of every key, in bytes. */
const KEY_BYTES = 32
/**
 * 43 characters of standard Base64 and one `=`. The last one is canonical when its two low bits, which carry no
 * data, are 0.
 */
const PSK_SYNTAX = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/

/** Standard Base64 (RFC 4648, 4). */
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** Names of obfuscators (protocol.md 9). */
const OBFUSCATORS: readonly string[] = ['dpi/tcp-wnd', 'dpi/tcp']

/** IP + UDP headers, in bytes. */
const UDP_HEADERS_BYTES = { 4: 28, 6: 48 } as const
/** IP + TCP headers, in bytes. */
const TCP_HEADERS_BYTES = { 4: 40, 6: 60 } as const
/** Tag and nonce behind every sealed packet, in bytes. */
const SEAL_BYTES: Readonly<Record<string, number>> = {
  chacha20poly1305_ietf: 28,
  aes256gcm: 28,
  xchacha20poly1305_ietf: 40,
  xsalsa20poly1305: 40,
}

/** The method to use and where its key comes from. */
export type Security =
  | { readonly method: string; readonly psk: Uint8Array; readonly password: undefined }
  | { readonly method: string; readonly psk: undefined; readonly password: string }

/** @throws ConfigError without the value */
function checkPsk(text: string): void {
  if (PSK_SYNTAX.test(text)) return
  const reason = `must be ${KEY_BYTES} bytes in standard Base64, 44 characters with padding; --genpsk makes one`
  throw new ConfigError('psk', HIDDEN, reason)
}

/**
 * Decodes a psk: exactly 44 characters of canonical standard Base64, padding included, for 32 bytes (protocol.md 3.7).
 * Overwrite the result after use.
 * @throws ConfigError without the value
 */
export function parsePsk(text: string): Uint8Array {
  checkPsk(text)
  // not by atob: a string cannot be overwritten
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
    refuse(`unknown obfuscator, known are ${OBFUSCATORS.join(', ')}`)
  }
  if ((config.mode & MODE_RENDEZVOUS) !== 0 || (config.mode & (MODE_SERVER | MODE_CLIENT)) === 0) {
    refuse('only for a server or a client, and not with rendezvous_server')
  }
  if (config.method === undefined) {
    refuse('needs a method: packets must be encrypted')
  }
}

/**
 * The checks of protocol.md 10.3 rule 6. A method without a key is refused (3.7: the original runs with a publicly
 * known one); without a method psk and password are not looked at. No key is decoded.
 * @param methods names of the methods that exist
 * @throws ConfigError
 */
export function assertStartable(config: Config, methods: readonly string[]): void {
  const { method, psk, password } = config
  if (method !== undefined) {
    if (!methods.includes(method)) {
      throw new ConfigError('method', quote(method), `unknown method, known are ${methods.join(', ')}`)
    }
    if (psk !== undefined) checkPsk(psk)
    else if (password === undefined) {
      throw new ConfigError('method', quote(method), 'needs a key: set psk (or password) too')
    }
  }
  checkObfs(config)
}

/**
 * The same checks, and the key as far as it stands in the configuration: for withKey (crypto/key.ts), which overwrites it.
 * @returns undefined when no method is set: packets are not encrypted
 * @throws ConfigError
 */
export function checkStart(config: Config, methods: readonly string[]): Security | undefined {
  assertStartable(config, methods)
  const { method, psk, password } = config
  if (method === undefined) return undefined
  if (psk !== undefined) return { method, psk: parsePsk(psk), password: undefined }
  return { method, psk: undefined, password: password ?? '' }
}

/** LISTEN and CONNECT without addresses and service id; an address (protocol.md 7.1). */
const HELLO_BYTES = 8
const ADDRESS_BYTES = { 4: 7, 6: 19 } as const

/**
 * A LISTEN or CONNECT goes in one datagram, with the service id in it.
 * @param family address family of the UDP address in use
 * @throws ConfigError naming both keys if it does not fit
 */
export function checkServiceId(config: Config, family: 4 | 6): void {
  if (config.rendezvous_server === undefined) return
  const { kcp, method, obfs, service_id } = config
  const most = kcpMtu(kcp.mtu, family, method, obfs) - HELLO_BYTES - ADDRESS_BYTES[family]
  const bytes = new TextEncoder().encode(service_id).length
  if (bytes <= most) return
  const reason = `${bytes} bytes do not fit a datagram at kcp.mtu = ${kcp.mtu}, at most ${Math.max(0, most)} do`
  throw new ConfigError('service_id', quote(service_id), reason)
}

/**
 * Bytes of plaintext in one datagram (protocol.md 4).
 * @param mtu config.kcp.mtu, bytes of the whole IP packet
 * @param family address family of the UDP address in use
 * @param method config.method, undefined for none
 * @param obfs config.obfs, undefined for UDP
 * @throws RangeError for a method that does not exist: checkStart comes first
 */
export function kcpMtu(mtu: number, family: 4 | 6, method: string | undefined, obfs: string | undefined): number {
  const headers = obfs === undefined ? UDP_HEADERS_BYTES[family] : TCP_HEADERS_BYTES[family]
  const seal = method === undefined ? 0 : SEAL_BYTES[method]
  if (seal === undefined) {
    throw new RangeError(`unknown method: ${method}`)
  }
  return mtu - headers - seal
}
