/**
 * Where keys come from (protocol.md 3.7): passwords by Argon2id, fresh ones from the system's random source.
 * Reading and checking of `psk` belongs to the configuration.
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
 * Key of a password: 32 bytes, the same for all methods. The password is taken as UTF-8, without normalisation, and may be empty. Every copy made
 * on the way is overwritten, but the string itself cannot be: drop it. Overwrite the result after use.
 * libsodium's larger build is loaded at the first call only.
 * @throws Error when Argon2id has no memory
 */
export async function passwordKey(password: string): Promise<Uint8Array> {
  const { default: sodium } = await import('libsodium-wrappers-sumo')
  await sodium.ready
  const raw = rawSodium(sodium, ['_crypto_pwhash'])
  // Argon2id leaves its blocks in the heap, and the key follows from the last one: everything is put back as it was
  const before = raw.HEAPU8.slice()
  const bytes = new TextEncoder().encode(password)
  // Room for one byte more: an empty password needs an address too.
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
    if (failed !== 0) throw new Error('password: Argon2id failed, out of memory')
    const key = secretBytes(KEY_BYTES)
    key.set(raw.HEAPU8.subarray(keyAt, keyAt + KEY_BYTES))
    return key
  } finally {
    bytes.fill(0)
    raw.HEAPU8.set(before)
    // what it may have grown by
    raw.HEAPU8.fill(0, before.length)
  }
}

/** A key, or the password that it comes from. */
export type KeySource = { readonly psk: Uint8Array } | { readonly psk: undefined; readonly password: string }

/**
 * Gives `use` the key of a configuration, and overwrites it when that is done, well or not.
 * @throws what `use` throws; Error when Argon2id has no memory
 */
export async function withKey<T>(source: KeySource, use: (key: Uint8Array) => T | Promise<T>): Promise<T> {
  const key = source.psk ?? (await passwordKey(source.password))
  try {
    return await use(key)
  } finally {
    key.fill(0)
  }
}

/** A fresh key for `psk`: canonical Base64 of 32 random bytes, 44 characters ending in one `=`. */
export function generatePsk(): string {
  const key = crypto.getRandomValues(secretBytes(KEY_BYTES))
  const text = btoa(String.fromCharCode(...key))
  key.fill(0)
  return text
}
