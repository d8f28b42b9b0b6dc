/**
 * Bun's AES-256-GCM (BoringSSL behind its `node:crypto`), handed to the host, which does the rest.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto'
import type { AesGcmFactory } from '../host/crypto/aead.ts'
import { aesGcmFactory } from '../host/crypto/aes-gcm.ts'

export const aesGcm: AesGcmFactory = aesGcmFactory('node:crypto (BoringSSL)', createCipheriv, createDecipheriv)
