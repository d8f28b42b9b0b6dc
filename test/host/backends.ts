/**
 * Every method on every library that has it, for tests of the ciphers.
 */
import { methods, type RuntimeCrypto } from '../../host/crypto/aead.ts'
import { crypto as bunCrypto } from '../../runtime-bun/crypto.ts'
import { crypto as nodeCrypto } from '../../runtime-node/crypto.ts'

/** What the runtime of this test brings. */
export const runtimeCrypto: RuntimeCrypto = process.versions.bun === undefined ? nodeCrypto : bunCrypto

export interface Variant {
  readonly method: string
  /** Method and library, for the names of tests. */
  readonly name: string
  /** Makes openAead take that library. */
  readonly crypto: RuntimeCrypto
  readonly provider: RegExp
}

const wrappers: RuntimeCrypto = { ...runtimeCrypto, nativeSodium: () => undefined }

/** Why sodium-native is not among the variants, if it is not. */
export const nativeMissing: string | undefined =
  runtimeCrypto.nativeSodium() === undefined ? 'sodium-native is not installed' : undefined

export const variants: readonly Variant[] = methods.flatMap((method): Variant[] => {
  if (method === 'aes256gcm') return [{ method, name: method, crypto: runtimeCrypto, provider: /^node:crypto \(/ }]
  const portable = {
    method,
    name: `${method} (libsodium-wrappers)`,
    crypto: wrappers,
    provider: /^libsodium-wrappers \(libsodium 1\.\d+/,
  }
  if (nativeMissing !== undefined) return [portable]
  return [
    portable,
    { method, name: `${method} (sodium-native)`, crypto: runtimeCrypto, provider: /^sodium-native \d+\.\d+\.\d+$/ },
  ]
})
