/** Bun's AES-256-GCM (BoringSSL behind its `node:crypto`), and sodium-native where it is installed. */
import type { RuntimeCrypto } from '../host/crypto/aead.ts'
import { crypto as node, nodeCrypto } from '../runtime-node/crypto.ts'

export const crypto: RuntimeCrypto = { ...node, aesGcm: nodeCrypto('node:crypto (BoringSSL)') }
