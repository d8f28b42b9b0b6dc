/**
 * Opens a method with the fastest library that is available and passes a self-test: OpenSSL, libsodium (sodium-native
 * or libsodium-wrappers) or AES-GCM of node:crypto. This project does not implement ciphers itself.
 */

import type { Aead, AesGcmFactory } from './aead.ts'
import { AES_METHOD, KEY_BYTES, methodOf, methods, XCHACHA_METHOD } from './methods.ts'
import type { NativeSodium } from './providers/native-aead.ts'
import type { Openssl } from './providers/openssl-aead.ts'

/** The methods that OpenSSL supports, one of them with libsodium's HChaCha20. */
const OPENSSL_METHODS: ReadonlySet<string> = new Set([XCHACHA_METHOD, 'chacha20poly1305_ietf', AES_METHOD])

/** The crypto libraries of a runtime. libsodium-wrappers is loaded by the host itself. */
export interface RuntimeCrypto {
  readonly aesGcm: AesGcmFactory
  /** sodium-native; undefined if it is not installed. Loaded at the first call. */
  nativeSodium(): NativeSodium | undefined
  /** OpenSSL by FFI; undefined if it is not available. Bound at the first call. */
  openssl?(): Openssl | undefined
}

/**
 * Opens a method with a key. The key is copied; the caller must wipe its own copy. The first working library is used:
 * OpenSSL, then sodium-native, then libsodium-wrappers or node:crypto. The others are not loaded.
 * @throws RangeError for an unknown method or a key that is not 32 bytes long
 */
export async function openAead(method: string, key: Uint8Array, runtimeCrypto: RuntimeCrypto): Promise<Aead> {
  methodOf(method)
  if (key.length !== KEY_BYTES) throw new RangeError(`key: must be ${KEY_BYTES} bytes long, is ${key.length}`)
  const openssl = OPENSSL_METHODS.has(method) ? runtimeCrypto.openssl?.() : undefined
  if (openssl !== undefined) {
    const { openOpensslAead } = await import('./providers/openssl-aead.ts')
    const aead = openOpensslAead(method, key, openssl)
    if (aead !== undefined) return aead
  }
  if (method === AES_METHOD) return runtimeCrypto.aesGcm.open(key)
  const native = runtimeCrypto.nativeSodium()
  if (native !== undefined) {
    const { openNativeAead } = await import('./providers/native-aead.ts')
    const aead = openNativeAead(method, key, native)
    if (aead !== undefined) return aead
  }
  const { openSodiumAead } = await import('./providers/sodium-aead.ts')
  return openSodiumAead(method, key)
}

/** All methods with the library that implements each on this system, in the order of `methods`. */
export async function listMethods(runtimeCrypto: RuntimeCrypto): Promise<{ method: string; provider: string }[]> {
  const opened = methods.map((method) => openAead(method, new Uint8Array(KEY_BYTES), runtimeCrypto))
  return (await Promise.all(opened)).map((aead) => {
    aead.wipe()
    return { method: aead.method, provider: aead.provider }
  })
}
