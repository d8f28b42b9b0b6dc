/**
 * Node's AES-256-GCM (OpenSSL), and sodium-native where it is installed, handed to the host, which does the rest.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto'
import { createRequire } from 'node:module'
import type { RuntimeCrypto } from '../host/crypto/aead.ts'
import { aesGcmFactory } from '../host/crypto/aes-gcm.ts'
import { loadNativeSodium } from '../host/crypto/native-aead.ts'

const require = createRequire(import.meta.url)

export const crypto: RuntimeCrypto = {
  aesGcm: aesGcmFactory(`node:crypto (OpenSSL ${process.versions.openssl})`, createCipheriv, createDecipheriv),
  nativeSodium: () => loadNativeSodium(require),
}
