/** The AEAD methods of the protocol and what is fixed about each (protocol.md 3.1, 3.2). */

/** How the engine makes nonces: random bytes, a counter, or none where nothing is sealed. */
export type NonceStrategy = 'random' | 'counter' | 'none'

/** Bytes of every key. */
export const KEY_BYTES = 32

/** Bytes of the tag of every method. */
export const TAG_BYTES = 16

/** Longest sealed datagram that is handled, bytes. Datagrams on the wire end at 1500 (protocol.md 3.5). */
export const MAX_SEALED = 2048

/** Associated data of the AEAD methods: `kcptun-libev` with its trailing NUL, 13 bytes. Read only. */
export const ASSOCIATED_DATA: Uint8Array = new TextEncoder().encode('kcptun-libev\0')

export const AES_METHOD = 'aes256gcm'

/** What a method puts behind the ciphertext, besides the tag. */
export interface Method {
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
}

/** Every method by its name, in the order of `--list-methods` (protocol.md 10.5). */
const METHODS: Readonly<Record<string, Method>> = {
  xchacha20poly1305_ietf: { nonceBytes: 24, nonceStrategy: 'random' },
  xsalsa20poly1305: { nonceBytes: 24, nonceStrategy: 'random' },
  chacha20poly1305_ietf: { nonceBytes: 12, nonceStrategy: 'counter' },
  [AES_METHOD]: { nonceBytes: 12, nonceStrategy: 'counter' },
}

/** Method names in the order of `--list-methods`. */
export const methods: readonly string[] = Object.keys(METHODS)

/** @throws RangeError for a name that is no method */
export function methodOf(name: string): Method {
  const method = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined
  if (method === undefined) {
    throw new RangeError(`method: unknown name ${JSON.stringify(name)}, known are ${methods.join(', ')}`)
  }
  return method
}

/** Bytes of tag and nonce behind a sealed datagram. @throws RangeError for a name that is no method */
export const sealBytes = (name: string): number => TAG_BYTES + methodOf(name).nonceBytes
