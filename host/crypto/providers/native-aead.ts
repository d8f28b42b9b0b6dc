/**
 * The three libsodium methods with sodium-native, an optional package: native code, twice as fast as
 * libsodium-wrappers. The runtime loads the package and passes its exports.
 *
 * The binding of the package is called directly. Its public functions check types on every call and create an Error
 * with a stack trace for each packet that is not authentic, which any sender could exploit. This code therefore
 * guarantees the lengths of all views itself, and the binding is self-tested before use.
 */

import type { Aead } from '../aead.ts'
import { ASSOCIATED_DATA, methodOf, type NonceStrategy, TAG_BYTES } from '../methods.ts'
import { secretCopy } from '../secret-bytes.ts'
import { SCRATCH_BYTES, SCRATCH_END, ScratchAead, type ScratchCipher, worksAsItShould } from './scratch-aead.ts'

const AEAD_NAMES = [
  'crypto_aead_xchacha20poly1305_ietf_encrypt_detached',
  'crypto_aead_xchacha20poly1305_ietf_decrypt_detached',
  'crypto_aead_chacha20poly1305_ietf_encrypt_detached',
  'crypto_aead_chacha20poly1305_ietf_decrypt_detached',
] as const
const BOX_NAMES = ['crypto_secretbox_detached', 'crypto_secretbox_open_detached'] as const
const STREAM_NAMES = ['crypto_stream_xchacha20_xor_ic', 'crypto_stream_chacha20_ietf_xor_ic'] as const

/**
 * Encrypt: (ciphertext, tag, plaintext, ...) -> bytes of the tag. Decrypt: (plaintext, ciphertext, tag, ...) -> 0 or
 * -1.
 */
type AeadCall = (
  a: Uint8Array,
  b: Uint8Array,
  c: Uint8Array,
  ad: Uint8Array,
  nonce: Uint8Array,
  key: Uint8Array,
) => number
/** Encrypt: (ciphertext, tag, plaintext, ...) -> 0. Decrypt: (plaintext, ciphertext, tag, ...) -> whether authentic. */
type BoxCall = (a: Uint8Array, b: Uint8Array, c: Uint8Array, nonce: Uint8Array, key: Uint8Array) => number | boolean
/** (output, input, nonce, number of the first block, key) */
type StreamCall = (a: Uint8Array, b: Uint8Array, nonce: Uint8Array, block: number, key: Uint8Array) => unknown

type Binding = Readonly<
  Record<(typeof AEAD_NAMES)[number], AeadCall> &
    Record<(typeof BOX_NAMES)[number], BoxCall> &
    Record<(typeof STREAM_NAMES)[number], StreamCall>
>

/** sodium-native, loaded by a runtime. */
export interface NativeSodium {
  /** As displayed: `sodium-native 5.1.0`. */
  readonly provider: string
  readonly binding: Binding
}

interface NativeMethod {
  seal(text: Uint8Array, tag: Uint8Array, nonce: Uint8Array, key: Uint8Array): void
  open(text: Uint8Array, tag: Uint8Array, nonce: Uint8Array, key: Uint8Array): boolean
  decrypt(text: Uint8Array, tag: Uint8Array, nonce: Uint8Array, key: Uint8Array): void
}

const AD = ASSOCIATED_DATA
/** The first block of the text; block 0 is the key of the authenticator (RFC 8439, section 2.8). */
const TEXT_BLOCK = 1

function callsOf(name: string, binding: Binding): NativeMethod {
  switch (name) {
    case 'xchacha20poly1305_ietf': {
      const encrypt = binding.crypto_aead_xchacha20poly1305_ietf_encrypt_detached
      const decrypt = binding.crypto_aead_xchacha20poly1305_ietf_decrypt_detached
      const xor = binding.crypto_stream_xchacha20_xor_ic
      return {
        seal: (text, tag, nonce, key) => void encrypt(text, tag, text, AD, nonce, key),
        open: (text, tag, nonce, key) => decrypt(text, text, tag, AD, nonce, key) === 0,
        decrypt: (text, _tag, nonce, key) => void xor(text, text, nonce, TEXT_BLOCK, key),
      }
    }
    case 'chacha20poly1305_ietf': {
      const encrypt = binding.crypto_aead_chacha20poly1305_ietf_encrypt_detached
      const decrypt = binding.crypto_aead_chacha20poly1305_ietf_decrypt_detached
      const xor = binding.crypto_stream_chacha20_ietf_xor_ic
      return {
        seal: (text, tag, nonce, key) => void encrypt(text, tag, text, AD, nonce, key),
        open: (text, tag, nonce, key) => decrypt(text, text, tag, AD, nonce, key) === 0,
        decrypt: (text, _tag, nonce, key) => void xor(text, text, nonce, TEXT_BLOCK, key),
      }
    }
    case 'xsalsa20poly1305': {
      const encrypt = binding.crypto_secretbox_detached
      const decrypt = binding.crypto_secretbox_open_detached
      return {
        seal: (text, tag, nonce, key) => void encrypt(text, tag, text, nonce, key),
        open: (text, tag, nonce, key) => decrypt(text, text, tag, nonce, key) === true,
        // the stream is its own inverse; the package has XSalsa20 alone only from block 0 on
        decrypt: (text, tag, nonce, key) => void encrypt(text, tag, text, nonce, key),
      }
    }
    default:
      throw new RangeError(`method: ${JSON.stringify(name)} is not supported by libsodium`)
  }
}

class NativeCipher implements ScratchCipher {
  readonly method: string
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly memory = new Uint8Array(SCRATCH_BYTES)
  readonly scratch = 0
  readonly #method: NativeMethod
  readonly #key: Uint8Array
  readonly #tag: Uint8Array
  readonly #nonce: Uint8Array
  /** End offset of the text. */
  readonly #textEnd: number
  /** Views of the text, by length. */
  readonly #texts: (Uint8Array | undefined)[]

  constructor(name: string, sodium: NativeSodium, key: Uint8Array) {
    const { nonceBytes, nonceStrategy } = methodOf(name)
    this.method = name
    this.nonceBytes = nonceBytes
    this.nonceStrategy = nonceStrategy
    this.provider = sodium.provider
    this.#method = callsOf(name, sodium.binding)
    this.#key = secretCopy(key)
    const nonceAt = SCRATCH_END - nonceBytes
    this.#textEnd = nonceAt - TAG_BYTES
    this.#nonce = this.memory.subarray(nonceAt, SCRATCH_END)
    this.#tag = this.memory.subarray(this.#textEnd, nonceAt)
    this.#texts = new Array<undefined>(this.#textEnd + 1).fill(undefined)
  }

  seal(length: number): void {
    this.#method.seal(this.#text(length), this.#tag, this.#nonce, this.#key)
  }

  open(length: number): boolean {
    return this.#method.open(this.#text(length), this.#tag, this.#nonce, this.#key)
  }

  decryptStart(length: number): boolean {
    this.#method.decrypt(this.#text(length), this.#tag, this.#nonce, this.#key)
    return true
  }

  wipe(): void {
    this.#key.fill(0)
    this.memory.fill(0)
    this.#texts.fill(undefined)
  }

  #text(length: number): Uint8Array {
    const kept = this.#texts[length]
    if (kept !== undefined) return kept
    const made = this.memory.subarray(this.#textEnd - length, this.#textEnd)
    this.#texts[length] = made
    return made
  }
}

/**
 * Loads sodium-native.
 * @param require loads a package
 * @returns undefined if it is not installed, fails to load, or is a release without the required functions;
 * libsodium-wrappers is then used instead
 */
export function loadNativeSodium(require: (id: string) => unknown): NativeSodium | undefined {
  try {
    const binding = require('sodium-native/binding')
    if (!isBinding(binding)) return undefined
    const about = require('sodium-native/package.json')
    const version = typeof about === 'object' && about !== null ? Reflect.get(about, 'version') : ''
    return { provider: `sodium-native ${version}`, binding }
  } catch {
    return undefined
  }
}

function isBinding(binding: unknown): binding is Binding {
  if (typeof binding !== 'object' || binding === null) return false
  return [...AEAD_NAMES, ...BOX_NAMES, ...STREAM_NAMES].every(
    (name) => typeof Reflect.get(binding, name) === 'function',
  )
}

/**
 * Opens one of the three libsodium methods; the key (32 bytes) is copied.
 * @returns undefined if the binding fails the self-test
 * @throws RangeError for another method
 */
export function openNativeAead(name: string, key: Uint8Array, sodium: NativeSodium): Aead | undefined {
  const trial = new NativeCipher(name, sodium, key)
  try {
    if (!worksAsItShould(trial)) return undefined
  } finally {
    trial.wipe()
  }
  return new ScratchAead(new NativeCipher(name, sodium, key))
}
