/** Ciphers on Bun: BoringSSL by `node:crypto`, sodium-native, and the system's OpenSSL by bun:ffi. */

import type { Pointer } from 'bun:ffi'
import { createRequire } from 'node:module'
import type { RuntimeCrypto } from '../host/crypto/open.ts'
import { type HChaCha20, type Openssl, SODIUM_LIBRARIES } from '../host/crypto/providers/openssl-aead.ts'
import { nativeSodium, nodeCrypto, once } from '../runtime-shared/ciphers.ts'
import { native } from '../runtime-shared/native.ts'

/** OpenSSL 3. Bun does not export its own BoringSSL. */
const LIBRARY = 'libcrypto.so.3'

const SYMBOLS = {
  OpenSSL_version: { args: ['i32'], returns: 'cstring' },
  EVP_CIPHER_CTX_new: { args: [], returns: 'ptr' },
  EVP_CIPHER_CTX_free: { args: ['ptr'], returns: 'void' },
  EVP_CIPHER_CTX_ctrl: { args: ['ptr', 'i32', 'i32', 'ptr'], returns: 'i32' },
  EVP_CipherInit_ex: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  EVP_CipherUpdate: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  EVP_CipherFinal_ex: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  EVP_aes_256_gcm: { args: [], returns: 'ptr' },
  EVP_chacha20_poly1305: { args: [], returns: 'ptr' },
} as const

const STREAM_SYMBOLS = { EVP_chacha20: { args: [], returns: 'ptr' } } as const

const SODIUM_SYMBOLS = { crypto_core_hchacha20: { args: ['ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' } } as const

/** Converts a number to Bun's pointer type, which differs only for the type checker. */
const at = (address: number): Pointer => address as Pointer

function openssl(): Openssl | undefined {
  if (process.platform !== 'linux' || native.refusal !== undefined) return undefined
  try {
    // loaded on demand; tests on Node import this file too
    const { dlopen, ptr }: typeof import('bun:ffi') = createRequire(import.meta.url)('bun:ffi')
    const c = dlopen(LIBRARY, SYMBOLS).symbols
    const [, version = ''] = /^OpenSSL (\S+)/.exec(String(c.OpenSSL_version(0))) ?? []
    return {
      provider: `OpenSSL ${version} by bun:ffi`,
      address: (bytes) => ptr(bytes),
      hchacha20: once(hchacha20),
      chacha20: once(() => Number(dlopen(LIBRARY, STREAM_SYMBOLS).symbols.EVP_chacha20() ?? 0)),
      calls: {
        EVP_CIPHER_CTX_new: () => Number(c.EVP_CIPHER_CTX_new() ?? 0),
        EVP_CIPHER_CTX_free: (context) => c.EVP_CIPHER_CTX_free(at(context)),
        EVP_CIPHER_CTX_ctrl: (context, type, argument, address) =>
          c.EVP_CIPHER_CTX_ctrl(at(context), type, argument, at(address)),
        EVP_CipherInit_ex: (context, cipher, engine, key, iv, encrypt) =>
          c.EVP_CipherInit_ex(at(context), at(cipher), at(engine), at(key), at(iv), encrypt),
        EVP_CipherUpdate: (context, out, outLength, source, length) =>
          c.EVP_CipherUpdate(at(context), at(out), at(outLength), at(source), length),
        EVP_CipherFinal_ex: (context, out, outLength) => c.EVP_CipherFinal_ex(at(context), at(out), at(outLength)),
        EVP_aes_256_gcm: () => Number(c.EVP_aes_256_gcm() ?? 0),
        EVP_chacha20_poly1305: () => Number(c.EVP_chacha20_poly1305() ?? 0),
      },
    }
  } catch {
    return undefined
  }
}

function hchacha20(): HChaCha20 | undefined {
  const { dlopen }: typeof import('bun:ffi') = createRequire(import.meta.url)('bun:ffi')
  for (const library of SODIUM_LIBRARIES) {
    try {
      const { crypto_core_hchacha20: call } = dlopen(library, SODIUM_SYMBOLS).symbols
      return (out, input, key, constant) => call(at(out), at(input), at(key), at(constant))
    } catch {
      // the next one
    }
  }
  return undefined
}

export const crypto: RuntimeCrypto = {
  aesGcm: nodeCrypto('node:crypto (BoringSSL)'),
  nativeSodium,
  openssl: once(openssl),
}
