/**
 * Derives keys from passwords with Argon2id and generates random keys (protocol.md 3.7). The key `psk` is parsed and
 * checked in host/config.
 */

import { KEY_BYTES } from './methods.ts'
import { allocate, rawSodium } from './providers/sodium.ts'
import { secretBytes } from './secret-bytes.ts'

// Argon2id version 1.3 with the fixed parameters of protocol.md 3.7: 2 passes over 8 KiB, one lane.
const OPSLIMIT = 2
const MEMLIMIT_BYTES = 8192
const ALG_ARGON2ID13 = 2
/** BLAKE2b-128 of the ASCII bytes `kcptun-libev`. */
const SALT = new Uint8Array([
  0xcd, 0xa3, 0xb5, 0x0a, 0xab, 0x79, 0xe7, 0x41, 0x82, 0x60, 0x65, 0x1f, 0xbd, 0xe9, 0x8e, 0xdc,
])

/**
 * Derives the key of a password: 32 bytes, the same for all methods. The password is encoded as UTF-8 without
 * normalisation and may be empty. All intermediate copies are overwritten, except the string itself. The caller must
 * overwrite the result after use. The larger build of libsodium is loaded at the first call.
 * @throws Error if Argon2id runs out of memory
 */
export async function passwordKey(password: string): Promise<Uint8Array> {
  const { default: sodium } = await import('libsodium-wrappers-sumo')
  await sodium.ready
  const raw = rawSodium(sodium, ['_crypto_pwhash'])
  // Argon2id leaves its blocks in the heap, and the last one reveals the key: the heap is restored afterwards
  const before = raw.HEAPU8.slice()
  const bytes = new TextEncoder().encode(password)
  // one byte more, so that an empty password has an address
  const passwordLength = bytes.length
  try {
    const passwordAt = allocate(raw, bytes, passwordLength + 1)
    const saltAt = allocate(raw, SALT, SALT.length)
    const keyAt = allocate(raw, null, KEY_BYTES)
    const failed = raw._crypto_pwhash(
      keyAt,
      KEY_BYTES,
      0,
      passwordAt,
      passwordLength,
      0,
      saltAt,
      OPSLIMIT,
      0,
      MEMLIMIT_BYTES,
      ALG_ARGON2ID13,
    )
    if (failed !== 0) throw new Error('password: Argon2id ran out of memory')
    const key = secretBytes(KEY_BYTES)
    key.set(raw.HEAPU8.subarray(keyAt, keyAt + KEY_BYTES))
    return key
  } finally {
    bytes.fill(0)
    raw.HEAPU8.set(before)
    // the part by which it may have grown
    raw.HEAPU8.fill(0, before.length)
  }
}

/** A key, or the password that it is derived from. */
export type KeySource = { readonly psk: Uint8Array } | { readonly psk: undefined; readonly password: string }

/**
 * Calls `use` with the key of a configuration and overwrites the key afterwards, also on failure.
 * @throws what `use` throws; Error if Argon2id runs out of memory
 */
export async function withKey<T>(source: KeySource, use: (key: Uint8Array) => T | Promise<T>): Promise<T> {
  const key = source.psk ?? (await passwordKey(source.password))
  try {
    return await use(key)
  } finally {
    key.fill(0)
  }
}

/** Generates a random `psk`: canonical Base64 of 32 bytes, 44 characters ending in one `=`. */
export function generatePsk(): string {
  const key = crypto.getRandomValues(secretBytes(KEY_BYTES))
  const text = btoa(String.fromCharCode(...key))
  key.fill(0)
  return text
}
