/** Ciphers common to Node and Bun: node:crypto and sodium-native. Each is loaded when a method first needs it. */
import { createRequire } from 'node:module'
import type { AesGcmFactory } from '../host/crypto/aead.ts'
import { aesGcmFactory } from '../host/crypto/providers/aes-gcm.ts'
import { loadNativeSodium, type NativeSodium } from '../host/crypto/providers/native-aead.ts'
import { native } from './native.ts'

const require = createRequire(import.meta.url)

/** AES-256-GCM of node:crypto; `provider` is a text for users. */
export function nodeCrypto(provider: string): AesGcmFactory {
  return {
    provider,
    open(key) {
      const { createCipheriv, createDecipheriv }: typeof import('node:crypto') = require('node:crypto')
      return aesGcmFactory(provider, createCipheriv, createDecipheriv).open(key)
    },
  }
}

/**
 * A function that binds at its first call only, as each key of an endpoint opens a cipher. What was bound is not given
 * out any more after native code was forbidden.
 */
export function once<Bound>(bind: () => Bound): () => Bound {
  let kept: { readonly bound: Bound } | undefined
  return () => {
    if (native.refusal !== undefined) return bind()
    kept ??= { bound: bind() }
    return kept.bound
  }
}

/** sodium-native, if installed. */
export const nativeSodium = (): NativeSodium | undefined =>
  native.refusal === undefined ? loadNativeSodium(require) : undefined
