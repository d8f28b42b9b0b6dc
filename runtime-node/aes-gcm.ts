/**
 * Node's AES-256-GCM (OpenSSL), handed to the host, which does the rest.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto'
import type { AesGcmFactory } from '../host/crypto/aead.ts'
import { aesGcmFactory } from '../host/crypto/aes-gcm.ts'

export const aesGcm: AesGcmFactory = aesGcmFactory(
  `node:crypto (OpenSSL ${process.versions.openssl})`,
  createCipheriv,
  createDecipheriv,
)
