/**
 * Two of the methods with the EVP interface of OpenSSL, called by FFI. It takes two thirds of the time of libsodium,
 * and for AES-256-GCM a sixth of the time of node:crypto, which creates objects for every packet. The runtime binds the
 * calls. OpenSSL has no HChaCha20, which the XChaCha20 methods require.
 */

import type { Aead } from '../aead.ts'
import { AES_METHOD, ASSOCIATED_DATA, KEY_BYTES, methodOf, type NonceStrategy, TAG_BYTES } from '../methods.ts'
import { SCRATCH_BYTES, SCRATCH_END, ScratchAead, type ScratchCipher, worksAsItShould } from './scratch-aead.ts'

/** The functions of OpenSSL, as in EVP_EncryptInit(3). Pointers are numbers, 0 = NULL. */
export interface OpensslCalls {
  EVP_CIPHER_CTX_new(): number
  EVP_CIPHER_CTX_free(context: number): void
  EVP_CIPHER_CTX_ctrl(context: number, type: number, argument: number, at: number): number
  EVP_CipherInit_ex(context: number, cipher: number, engine: number, key: number, iv: number, encrypt: number): number
  EVP_CipherUpdate(context: number, out: number, outLength: number, source: number, length: number): number
  EVP_CipherFinal_ex(context: number, out: number, outLength: number): number
  EVP_aes_256_gcm(): number
  EVP_chacha20_poly1305(): number
}

/** OpenSSL, bound by a runtime. */
export interface Openssl {
  /** As displayed: `OpenSSL 3.0.15`. */
  readonly provider: string
  readonly calls: OpensslCalls
  /** Address of an array. */
  address(bytes: Uint8Array): number
}

/** EVP_CTRL_AEAD_*, <openssl/evp.h>. */
const SET_IV_LENGTH = 9
const GET_TAG = 16
const SET_TAG = 17
/** Argument of EVP_CipherInit_ex: keep the direction. */
const UNCHANGED = -1

// Layout of the memory: the scratch area, then further arguments of the calls. Offsets in bytes.
const KEY_AT = SCRATCH_BYTES
const AD_AT = KEY_AT + KEY_BYTES
const LENGTH_AT = AD_AT + 16
const SINK_AT = LENGTH_AT + 16
const MEMORY_BYTES = SINK_AT + 64

/** Nonce length of both methods (RFC 8439, NIST SP 800-38D), bytes. */
const NONCE_BYTES = methodOf(AES_METHOD).nonceBytes

/** Method -> function that returns its cipher. Both use counter nonces. */
const METHODS: Readonly<Record<string, 'EVP_chacha20_poly1305' | 'EVP_aes_256_gcm'>> = {
  chacha20poly1305_ietf: 'EVP_chacha20_poly1305',
  [AES_METHOD]: 'EVP_aes_256_gcm',
}

class OpensslCipher implements ScratchCipher {
  readonly method: string
  readonly nonceBytes = NONCE_BYTES
  readonly nonceStrategy: NonceStrategy = methodOf(AES_METHOD).nonceStrategy
  readonly provider: string
  readonly memory = new Uint8Array(MEMORY_BYTES)
  readonly scratch = 0
  readonly #calls: OpensslCalls
  /** Address of the memory. */
  readonly #base: number
  readonly #textEnd = SCRATCH_END - NONCE_BYTES - TAG_BYTES
  /** Contexts that hold the key, for sealing and opening. */
  #sealing = 0
  #opening = 0

  constructor(
    name: string,
    cipherCall: 'EVP_chacha20_poly1305' | 'EVP_aes_256_gcm',
    openssl: Openssl,
    key: Uint8Array,
  ) {
    this.method = name
    this.provider = openssl.provider
    this.#calls = openssl.calls
    this.#base = openssl.address(this.memory)
    this.memory.set(key, KEY_AT)
    this.memory.set(ASSOCIATED_DATA, AD_AT)
    try {
      const cipher = this.#calls[cipherCall]()
      this.#sealing = this.#context(cipher, 1)
      this.#opening = this.#context(cipher, 0)
    } catch (error) {
      this.wipe()
      throw error
    }
    // the contexts hold their own copies
    this.memory.fill(0, KEY_AT, KEY_AT + KEY_BYTES)
  }

  seal(length: number): void {
    const { EVP_CipherUpdate, EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#calls
    const context = this.#sealing
    const base = this.#base
    const text = base + this.#textEnd - length
    const lengthAt = base + LENGTH_AT
    // any failure must throw: the text may still be plaintext
    const done =
      this.#begin(context) === 1 &&
      EVP_CipherUpdate(context, 0, lengthAt, base + AD_AT, ASSOCIATED_DATA.length) === 1 &&
      (length === 0 || EVP_CipherUpdate(context, text, lengthAt, text, length) === 1) &&
      EVP_CipherFinal_ex(context, base + SINK_AT, lengthAt) === 1 &&
      EVP_CIPHER_CTX_ctrl(context, GET_TAG, TAG_BYTES, base + this.#textEnd) === 1
    if (!done) throw new Error(`${this.provider} failed to seal`)
  }

  open(length: number): boolean {
    const { EVP_CipherUpdate, EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#calls
    const context = this.#opening
    const base = this.#base
    const text = base + this.#textEnd - length
    const lengthAt = base + LENGTH_AT
    return (
      this.#begin(context) === 1 &&
      EVP_CIPHER_CTX_ctrl(context, SET_TAG, TAG_BYTES, base + this.#textEnd) === 1 &&
      EVP_CipherUpdate(context, 0, lengthAt, base + AD_AT, ASSOCIATED_DATA.length) === 1 &&
      EVP_CipherUpdate(context, text, lengthAt, text, length) === 1 &&
      EVP_CipherFinal_ex(context, base + SINK_AT, lengthAt) === 1
    )
  }

  wipe(): void {
    this.memory.fill(0)
    for (const context of [this.#sealing, this.#opening]) {
      // also overwrites its key
      if (context !== 0) this.#calls.EVP_CIPHER_CTX_free(context)
    }
    this.#sealing = 0
    this.#opening = 0
  }

  /** Starts a packet with the nonce in the scratch area. */
  #begin(context: number): number {
    return this.#calls.EVP_CipherInit_ex(context, 0, 0, 0, this.#base + SCRATCH_END - NONCE_BYTES, UNCHANGED)
  }

  #context(cipher: number, encrypt: 0 | 1): number {
    const calls = this.#calls
    const context = calls.EVP_CIPHER_CTX_new()
    let done = false
    try {
      done =
        cipher !== 0 &&
        context !== 0 &&
        calls.EVP_CipherInit_ex(context, cipher, 0, 0, 0, encrypt) === 1 &&
        calls.EVP_CIPHER_CTX_ctrl(context, SET_IV_LENGTH, NONCE_BYTES, 0) === 1 &&
        calls.EVP_CipherInit_ex(context, 0, 0, this.#base + KEY_AT, this.#base + AD_AT, encrypt) === 1
    } finally {
      if (!done && context !== 0) calls.EVP_CIPHER_CTX_free(context)
    }
    if (!done) throw new Error(`${this.provider} does not support the cipher`)
    return context
  }
}

/**
 * Opens a method; the key (32 bytes) is copied.
 * @returns undefined if OpenSSL does not support the method or fails the self-test
 */
export function openOpensslAead(name: string, key: Uint8Array, openssl: Openssl): Aead | undefined {
  const method = METHODS[name]
  if (method === undefined) return undefined
  try {
    const trial = new OpensslCipher(name, method, openssl, key)
    try {
      if (!worksAsItShould(trial)) return undefined
    } finally {
      trial.wipe()
    }
    return new ScratchAead(new OpensslCipher(name, method, openssl, key))
  } catch {
    return undefined
  }
}
