/** Every method with every library that implements it, for cipher tests. */
import { methods, XCHACHA_METHOD } from '../host/crypto/methods.ts'
import type { RuntimeCrypto } from '../host/crypto/open.ts'
import { crypto as bunCrypto } from '../runtime-bun/crypto.ts'
import { crypto as denoCrypto } from '../runtime-deno/crypto.ts'
import { crypto as nodeCrypto } from '../runtime-node/crypto.ts'

/** Providers of the runtime that executes the test. */
export const runtimeCrypto: RuntimeCrypto =
  'deno' in process.versions ? denoCrypto : 'bun' in process.versions ? bunCrypto : nodeCrypto

export interface Variant {
  readonly method: string
  /** Method and library, for test titles. */
  readonly name: string
  /** Makes openAead select that library. */
  readonly crypto: RuntimeCrypto
  readonly provider: RegExp
}

/** Providers present in every installation. */
export const portableCrypto: RuntimeCrypto = { aesGcm: runtimeCrypto.aesGcm, nativeSodium: () => undefined }
const nativeCrypto: RuntimeCrypto = { ...portableCrypto, nativeSodium: () => runtimeCrypto.nativeSodium() }
const opensslCrypto: RuntimeCrypto = { ...portableCrypto, openssl: () => runtimeCrypto.openssl?.() }

/** Libraries without variants, and the reason. */
export const missing: readonly string[] = [
  ...(runtimeCrypto.nativeSodium() === undefined ? ['sodium-native is not installed'] : []),
  ...(runtimeCrypto.openssl?.() === undefined ? ['OpenSSL cannot be called by FFI here'] : []),
  ...(runtimeCrypto.openssl?.()?.hchacha20() === undefined ? ['the system has no libsodium that FFI can call'] : []),
]

function hasOpenssl(method: string): boolean {
  const openssl = opensslCrypto.openssl?.()
  return openssl !== undefined && (method !== XCHACHA_METHOD || openssl.hchacha20() !== undefined)
}

const PROVIDER = {
  'libsodium-wrappers': /^libsodium-wrappers \(libsodium 1\.\d+/,
  'node:crypto': /^node:crypto \(/,
  'sodium-native': /^sodium-native \d+\.\d+\.\d+$/,
  OpenSSL: /^OpenSSL \d\.\d.* by (koffi|bun:ffi|Deno\.dlopen)(, with libsodium)?$/,
} as const

const variant = (method: string, library: keyof typeof PROVIDER, crypto: RuntimeCrypto): Variant => ({
  method,
  name: `${method} (${library})`,
  crypto,
  provider: PROVIDER[library],
})

export const variants: readonly Variant[] = methods.flatMap((method): Variant[] => {
  const isAes = method === 'aes256gcm'
  return [
    isAes ? variant(method, 'node:crypto', portableCrypto) : variant(method, 'libsodium-wrappers', portableCrypto),
    ...(isAes || nativeCrypto.nativeSodium() === undefined ? [] : [variant(method, 'sodium-native', nativeCrypto)]),
    ...(method === 'xsalsa20poly1305' || !hasOpenssl(method) ? [] : [variant(method, 'OpenSSL', opensslCrypto)]),
  ]
})
