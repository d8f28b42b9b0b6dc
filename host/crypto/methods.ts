/** The AEAD methods of the protocol and their parameters (protocol.md 3.1, 3.2). */

/** How the engine generates nonces: random bytes, a counter, or none without encryption. */
export type NonceStrategy = 'random' | 'counter' | 'none'

/** Length of all keys, bytes. */
export const KEY_BYTES = 32

/** Length of the tag of all methods, bytes. */
export const TAG_BYTES = 16

/** Maximum length of a sealed datagram, bytes. Datagrams on the wire are limited to 1500 (protocol.md 3.5). */
export const MAX_SEALED = 2048

/** Associated data of the AEAD methods: `kcptun-libev` with a trailing NUL, 13 bytes. Read only. */
export const ASSOCIATED_DATA: Uint8Array = new TextEncoder().encode('kcptun-libev\0')

export const AES_METHOD = 'aes256gcm'
export const XCHACHA_METHOD = 'xchacha20poly1305_ietf'
/** Where a key is given and no method. */
export const DEFAULT_METHOD = XCHACHA_METHOD

/** The nonce that follows ciphertext and tag. */
export interface Method {
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
}

/** All methods by name, in the order of `--list-methods` (protocol.md 10.5). */
const METHODS: Readonly<Record<string, Method>> = {
  [XCHACHA_METHOD]: { nonceBytes: 24, nonceStrategy: 'random' },
  xsalsa20poly1305: { nonceBytes: 24, nonceStrategy: 'random' },
  chacha20poly1305_ietf: { nonceBytes: 12, nonceStrategy: 'counter' },
  [AES_METHOD]: { nonceBytes: 12, nonceStrategy: 'counter' },
}

/** Method names in the order of `--list-methods`. */
export const methods: readonly string[] = Object.keys(METHODS)

/** The parameters of a method. @throws RangeError for an unknown name */
export function methodOf(name: string): Method {
  const method = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined
  if (method === undefined) {
    throw new RangeError(`method: unknown name ${JSON.stringify(name)}, must be one of ${methods.join(', ')}`)
  }
  return method
}

/** Bytes of tag and nonce at the end of a sealed datagram. @throws RangeError for an unknown name */
export const sealBytes = (name: string): number => TAG_BYTES + methodOf(name).nonceBytes
