/** The three libsodium methods with the compiled exports of libsodium-wrappers. The scratch area is on its heap. */

import type { Aead } from '../aead.ts'
import { ASSOCIATED_DATA, KEY_BYTES, methodOf, type NonceStrategy, TAG_BYTES } from '../methods.ts'
import { SCRATCH_BYTES, SCRATCH_END, ScratchAead, type ScratchCipher } from './scratch-aead.ts'
import { allocate, type RawSodium, rawSodium, release } from './sodium.ts'

// Layout of the allocation, offsets in bytes.
const KEY_AT = 0
const AD_AT = KEY_AT + KEY_BYTES
const SCRATCH_AT = AD_AT + 16
const ALLOCATED_BYTES = SCRATCH_AT + SCRATCH_BYTES

const RAW_NAMES = [
  '_crypto_aead_xchacha20poly1305_ietf_encrypt_detached',
  '_crypto_aead_xchacha20poly1305_ietf_decrypt_detached',
  '_crypto_aead_chacha20poly1305_ietf_encrypt_detached',
  '_crypto_aead_chacha20poly1305_ietf_decrypt_detached',
  '_crypto_secretbox_detached',
  '_crypto_secretbox_open_detached',
] as const

type Raw = RawSodium<(typeof RAW_NAMES)[number]>

/** Processes `length` bytes at `text` in place; the other arguments are addresses. 0 = success, -1 = not authentic. */
type Primitive = (text: number, length: number, tag: number, nonce: number, ad: number, key: number) => number

interface SodiumMethod {
  seal(raw: Raw): Primitive
  open(raw: Raw): Primitive
}

const AD_BYTES = ASSOCIATED_DATA.length

// Detached forms: the tag follows the ciphertext, also for secretbox, whose easy form puts it first (protocol.md 3.2).
const sodiumMethods: Readonly<Record<string, SodiumMethod>> = {
  xchacha20poly1305_ietf: {
    seal: (raw) => {
      const encrypt = raw._crypto_aead_xchacha20poly1305_ietf_encrypt_detached
      return (text, length, tag, nonce, ad, key) =>
        encrypt(text, tag, 0, text, length, 0, ad, AD_BYTES, 0, 0, nonce, key)
    },
    open: (raw) => {
      const decrypt = raw._crypto_aead_xchacha20poly1305_ietf_decrypt_detached
      return (text, length, tag, nonce, ad, key) => decrypt(text, 0, text, length, 0, tag, ad, AD_BYTES, 0, nonce, key)
    },
  },
  xsalsa20poly1305: {
    seal: (raw) => {
      const encrypt = raw._crypto_secretbox_detached
      return (text, length, tag, nonce, _ad, key) => encrypt(text, tag, text, length, 0, nonce, key)
    },
    open: (raw) => {
      const decrypt = raw._crypto_secretbox_open_detached
      return (text, length, tag, nonce, _ad, key) => decrypt(text, text, tag, length, 0, nonce, key)
    },
  },
  chacha20poly1305_ietf: {
    seal: (raw) => {
      const encrypt = raw._crypto_aead_chacha20poly1305_ietf_encrypt_detached
      return (text, length, tag, nonce, ad, key) =>
        encrypt(text, tag, 0, text, length, 0, ad, AD_BYTES, 0, 0, nonce, key)
    },
    open: (raw) => {
      const decrypt = raw._crypto_aead_chacha20poly1305_ietf_decrypt_detached
      return (text, length, tag, nonce, ad, key) => decrypt(text, 0, text, length, 0, tag, ad, AD_BYTES, 0, nonce, key)
    },
  },
}

class WasmCipher implements ScratchCipher {
  readonly method: string
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly scratch: number
  readonly #raw: Raw
  readonly #seal: Primitive
  readonly #open: Primitive
  readonly #base: number
  readonly #tag: number
  readonly #nonce: number

  constructor(name: string, method: SodiumMethod, raw: Raw, provider: string, key: Uint8Array) {
    this.method = name
    const { nonceBytes, nonceStrategy } = methodOf(name)
    this.nonceBytes = nonceBytes
    this.nonceStrategy = nonceStrategy
    this.provider = provider
    this.#raw = raw
    this.#seal = method.seal(raw)
    this.#open = method.open(raw)
    this.#base = allocate(raw, null, ALLOCATED_BYTES)
    this.scratch = this.#base + SCRATCH_AT
    this.#nonce = this.scratch + SCRATCH_END - this.nonceBytes
    this.#tag = this.#nonce - TAG_BYTES
    raw.HEAPU8.set(key, this.#base + KEY_AT)
    raw.HEAPU8.set(ASSOCIATED_DATA, this.#base + AD_AT)
  }

  get memory(): Uint8Array {
    return this.#raw.HEAPU8
  }

  seal(length: number): void {
    this.#seal(this.#tag - length, length, this.#tag, this.#nonce, this.#base + AD_AT, this.#base + KEY_AT)
  }

  open(length: number): boolean {
    return this.#open(this.#tag - length, length, this.#tag, this.#nonce, this.#base + AD_AT, this.#base + KEY_AT) === 0
  }

  decryptStart(length: number): boolean {
    // sealing decrypts too: the key stream is its own inverse, and the package does not have it alone
    this.seal(length)
    return true
  }

  wipe(): void {
    release(this.#raw, this.#base, ALLOCATED_BYTES)
  }
}

/**
 * Opens one of the three libsodium methods; the key (32 bytes) is copied.
 * @throws RangeError for another method
 */
export async function openSodiumAead(name: string, key: Uint8Array): Promise<Aead> {
  const method = sodiumMethods[name]
  if (method === undefined) throw new RangeError(`method: ${JSON.stringify(name)} is not supported by libsodium`)
  const { default: sodium } = await import('libsodium-wrappers')
  await sodium.ready
  const raw = rawSodium(sodium, RAW_NAMES)
  const provider = `libsodium-wrappers (libsodium ${sodium.SODIUM_VERSION_STRING})`
  return new ScratchAead(new WasmCipher(name, method, raw, provider, key))
}
