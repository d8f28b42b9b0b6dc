/** Ciphers on Deno: `node:crypto`, sodium-native, and the system's OpenSSL by Deno.dlopen. */

import type { RuntimeCrypto } from '../host/crypto/open.ts'
import type { Openssl } from '../host/crypto/providers/openssl-aead.ts'
import { nativeSodium, nodeCrypto, once } from '../runtime-shared/ciphers.ts'
import { native } from '../runtime-shared/native.ts'
import { deno } from './deno.ts'
import { addressOf, ffiRefusal } from './ffi.ts'

/** OpenSSL 3. */
const LIBRARY = 'libcrypto.so.3'

const SYMBOLS = {
  OpenSSL_version: { parameters: ['i32'], result: 'pointer' },
  EVP_CIPHER_CTX_new: { parameters: [], result: 'usize' },
  EVP_CIPHER_CTX_free: { parameters: ['usize'], result: 'void' },
  EVP_CIPHER_CTX_ctrl: { parameters: ['usize', 'i32', 'i32', 'usize'], result: 'i32' },
  EVP_CipherInit_ex: { parameters: ['usize', 'usize', 'usize', 'usize', 'usize', 'i32'], result: 'i32' },
  EVP_CipherUpdate: { parameters: ['usize', 'usize', 'usize', 'usize', 'i32'], result: 'i32' },
  EVP_CipherFinal_ex: { parameters: ['usize', 'usize', 'usize'], result: 'i32' },
  EVP_aes_256_gcm: { parameters: [], result: 'usize' },
  EVP_chacha20_poly1305: { parameters: [], result: 'usize' },
} as const

function openssl(): Openssl | undefined {
  if (process.platform !== 'linux' || native.refusal !== undefined || ffiRefusal() !== undefined) return undefined
  try {
    const c = deno.dlopen(LIBRARY, SYMBOLS).symbols
    const text = new deno.UnsafePointerView(c.OpenSSL_version(0)).getCString()
    const [, version = ''] = /^OpenSSL (\S+)/.exec(text) ?? []
    return {
      provider: `OpenSSL ${version} by Deno.dlopen`,
      address: addressOf,
      // its call would allocate 36 bytes for each packet
      hchacha20: () => undefined,
      chacha20: () => 0,
      calls: {
        ...c,
        EVP_CIPHER_CTX_new: () => Number(c.EVP_CIPHER_CTX_new()),
        EVP_aes_256_gcm: () => Number(c.EVP_aes_256_gcm()),
        EVP_chacha20_poly1305: () => Number(c.EVP_chacha20_poly1305()),
      },
    }
  } catch {
    return undefined
  }
}

export const crypto: RuntimeCrypto = {
  aesGcm: nodeCrypto('node:crypto (Deno)'),
  nativeSodium,
  openssl: once(openssl),
}
