/** Limits the ciphers that a benchmark may use; the program itself always takes the fastest. */

import type { RuntimeCrypto } from '../host/crypto/open.ts'

/** `sodium-native`: without OpenSSL. `wrappers`: libsodium-wrappers alone. */
export const BACKENDS = ['sodium-native', 'wrappers'] as const

/** Reads the backend from the first argument; returns the runtime's ciphers limited to it, and the other arguments. */
export function limited(crypto: RuntimeCrypto): { crypto: RuntimeCrypto; words: readonly string[] } {
  const [backend, ...words] = process.argv.slice(2)
  const { aesGcm } = crypto
  if (backend === 'wrappers') return { crypto: { aesGcm, nativeSodium: () => undefined }, words }
  if (backend === 'sodium-native') return { crypto: { aesGcm, nativeSodium: () => crypto.nativeSodium() }, words }
  throw new Error(`${backend}: expected ${BACKENDS.join(' or ')}`)
}
