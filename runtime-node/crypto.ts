/** Ciphers on Node: node:crypto, sodium-native, and Node's own OpenSSL by FFI if koffi is installed. */
import type { RuntimeCrypto } from '../host/crypto/open.ts'
import { type HChaCha20, type Openssl, SODIUM_LIBRARIES } from '../host/crypto/providers/openssl-aead.ts'
import { nativeSodium, nodeCrypto, once } from '../runtime-shared/ciphers.ts'
import { loadKoffi } from './ffi.ts'

const VERSION = `OpenSSL ${process.versions.openssl}`

/** The OpenSSL that Node uses: exported by its executable, or by the library it is linked to. */
function openssl(): Openssl | undefined {
  try {
    const koffi = loadKoffi()
    const own = koffi.load(null)
    return {
      provider: `${VERSION} by koffi`,
      address: (bytes) => Number(koffi.address(bytes)),
      hchacha20: once(hchacha20),
      chacha20: once(() => own.func('uintptr_t EVP_chacha20()')()),
      calls: {
        EVP_CIPHER_CTX_new: own.func('uintptr_t EVP_CIPHER_CTX_new()'),
        EVP_CIPHER_CTX_free: own.func('void EVP_CIPHER_CTX_free(uintptr_t)'),
        EVP_CIPHER_CTX_ctrl: own.func('int EVP_CIPHER_CTX_ctrl(uintptr_t, int, int, uintptr_t)'),
        EVP_CipherInit_ex: own.func(
          'int EVP_CipherInit_ex(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, int)',
        ),
        EVP_CipherUpdate: own.func('int EVP_CipherUpdate(uintptr_t, uintptr_t, uintptr_t, uintptr_t, int)'),
        EVP_CipherFinal_ex: own.func('int EVP_CipherFinal_ex(uintptr_t, uintptr_t, uintptr_t)'),
        EVP_aes_256_gcm: own.func('uintptr_t EVP_aes_256_gcm()'),
        EVP_chacha20_poly1305: own.func('uintptr_t EVP_chacha20_poly1305()'),
      },
    }
  } catch {
    // koffi is not installed, or Node does not export OpenSSL
    return undefined
  }
}

function hchacha20(): HChaCha20 | undefined {
  const koffi = loadKoffi()
  for (const library of SODIUM_LIBRARIES) {
    try {
      return koffi.load(library).func('int crypto_core_hchacha20(uintptr_t, uintptr_t, uintptr_t, uintptr_t)')
    } catch {
      // the next one
    }
  }
  return undefined
}

export const crypto: RuntimeCrypto = {
  aesGcm: nodeCrypto(`node:crypto (${VERSION})`),
  nativeSodium,
  openssl: once(openssl),
}
