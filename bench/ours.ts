/** Which ciphers a benchmark leaves to our program; the program itself always takes the fastest. */

import type { RuntimeCrypto } from '../host/crypto/open.ts'

/** `sodium-native`: not OpenSSL. `wrappers`: libsodium-wrappers alone. */
export const BACKENDS = ['sodium-native', 'wrappers'] as const

/** The ciphers of a runtime without those that the first word of the arguments forbids, and the other words. */
export function limited(crypto: RuntimeCrypto): { crypto: RuntimeCrypto; words: readonly string[] } {
  const [backend, ...words] = process.argv.slice(2)
  const { aesGcm } = crypto
  if (backend === 'wrappers') return { crypto: { aesGcm, nativeSodium: () => undefined }, words }
  if (backend === 'sodium-native') return { crypto: { aesGcm, nativeSodium: () => crypto.nativeSodium() }, words }
  throw new Error(`${backend}: ${BACKENDS.join(' or ')} is wanted`)
}
