/**
 * Node's AES-256-GCM (OpenSSL), and sodium-native where it is installed, handed to the host, which does the rest. Both are loaded by the method that
 * wants them.
 */

import { createRequire } from 'node:module'
import type { AesGcmFactory, RuntimeCrypto } from '../host/crypto/aead.ts'
import { aesGcmFactory } from '../host/crypto/aes-gcm.ts'
import { loadNativeSodium } from '../host/crypto/native-aead.ts'

const require = createRequire(import.meta.url)

/** node:crypto as a factory; `provider` is for people. */
export function nodeCrypto(provider: string): AesGcmFactory {
  return {
    provider,
    open(key) {
      const { createCipheriv, createDecipheriv }: typeof import('node:crypto') = require('node:crypto')
      return aesGcmFactory(provider, createCipheriv, createDecipheriv).open(key)
    },
  }
}

export const crypto: RuntimeCrypto = {
  aesGcm: nodeCrypto(`node:crypto (OpenSSL ${process.versions.openssl})`),
  nativeSodium: () => loadNativeSodium(require),
}
