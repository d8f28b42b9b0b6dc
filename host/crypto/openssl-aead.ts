/**
 * Three of the methods on OpenSSL's EVP interface, called by FFI: its ciphers take two thirds of the time of libsodium's, and AES-256-GCM a sixth of that
 * of node:crypto, which makes objects for every packet. The runtime binds the calls.
 *
 * XChaCha20-Poly1305 is ChaCha20-Poly1305 under a key that HChaCha20 makes of the key and 16 bytes of the nonce (draft-irtf-cfrg-xchacha-03, 2.2 and 2.3).
 * OpenSSL lacks HChaCha20 by name, but it is ChaCha20's block without the last step, the addition of the input; so it is a block of OpenSSL's key stream,
 * less the input.
 */

import { type Aead, ASSOCIATED_DATA, KEY_BYTES, type NonceStrategy, TAG_BYTES } from './aead.ts'
import { SCRATCH_BYTES, SCRATCH_END, ScratchAead, type ScratchCipher, worksAsItShould } from './scratch-aead.ts'

/** OpenSSL's calls. Pointers are numbers, 0 = NULL. Names, arguments and results are those of EVP_EncryptInit(3). */
export interface OpensslCalls {
  EVP_CIPHER_CTX_new(): number
  EVP_CIPHER_CTX_free(context: number): void
  EVP_CIPHER_CTX_ctrl(context: number, type: number, argument: number, at: number): number
  EVP_CipherInit_ex(context: number, cipher: number, engine: number, key: number, iv: number, encrypt: number): number
  EVP_CipherUpdate(context: number, out: number, outLength: number, source: number, length: number): number
  EVP_CipherFinal_ex(context: number, out: number, outLength: number): number
  EVP_aes_256_gcm(): number
  EVP_chacha20(): number
  EVP_chacha20_poly1305(): number
}

/** OpenSSL as a runtime bound it. */
export interface Openssl {
  /** For people: `OpenSSL 3.0.15`. */
  readonly provider: string
  readonly calls: OpensslCalls
  /** Where an array begins. */
  address(bytes: Uint8Array): number
}

/** EVP_CTRL_AEAD_*, <openssl/evp.h>. */
const SET_IV_LENGTH = 9
const GET_TAG = 16
const SET_TAG = 17
/** For EVP_CipherInit_ex: as before. */
const UNCHANGED = -1

// Layout of the memory: the scratch area, then what the calls read and write besides. Bytes from the start.
const KEY_AT = SCRATCH_BYTES
const SUBKEY_AT = KEY_AT + KEY_BYTES
const SHORT_NONCE_AT = SUBKEY_AT + KEY_BYTES
const AD_AT = SHORT_NONCE_AT + 16
const ZEROS_AT = AD_AT + 16
const BLOCK_BYTES = 64
const STREAM_AT = ZEROS_AT + BLOCK_BYTES
const LENGTH_AT = STREAM_AT + BLOCK_BYTES
const SINK_AT = LENGTH_AT + 16
const MEMORY_BYTES = SINK_AT + 64

/** Nonce of the ciphers themselves (RFC 8439, NIST SP 800-38D). */
const SHORT_NONCE_BYTES = 12
const LONG_NONCE_BYTES = 24
/** Words 0 to 3 of ChaCha20's input: `expand 32-byte k` (RFC 8439, 2.3). */
const CONSTANTS = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const

interface Method {
  readonly nonceStrategy: NonceStrategy
  readonly nonceBytes: number
  cipher(calls: OpensslCalls): number
}

const METHODS: Readonly<Record<string, Method>> = {
  xchacha20poly1305_ietf: {
    nonceBytes: LONG_NONCE_BYTES,
    nonceStrategy: 'random',
    cipher: (calls) => calls.EVP_chacha20_poly1305(),
  },
  chacha20poly1305_ietf: {
    nonceBytes: SHORT_NONCE_BYTES,
    nonceStrategy: 'counter',
    cipher: (calls) => calls.EVP_chacha20_poly1305(),
  },
  aes256gcm: {
    nonceBytes: SHORT_NONCE_BYTES,
    nonceStrategy: 'counter',
    cipher: (calls) => calls.EVP_aes_256_gcm(),
  },
}

class OpensslCipher implements ScratchCipher {
  readonly method: string
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly memory = new Uint8Array(MEMORY_BYTES)
  readonly scratch = 0
  readonly #calls: OpensslCalls
  readonly #words = new Uint32Array(this.memory.buffer)
  /** Address of the memory. */
  readonly #base: number
  readonly #textEnd: number
  /** Contexts with the key: to seal, to open, and of the key stream that subkeys are made of (0: none needed). */
  #sealing = 0
  #opening = 0
  #stream = 0

  constructor(name: string, method: Method, openssl: Openssl, key: Uint8Array) {
    this.method = name
    this.nonceBytes = method.nonceBytes
    this.nonceStrategy = method.nonceStrategy
    this.provider = openssl.provider
    this.#calls = openssl.calls
    this.#textEnd = SCRATCH_END - method.nonceBytes - TAG_BYTES
    this.#base = openssl.address(this.memory)
    this.memory.set(key, KEY_AT)
    this.memory.set(ASSOCIATED_DATA, AD_AT)
    try {
      const cipher = method.cipher(this.#calls)
      this.#sealing = this.#context(cipher, 1)
      this.#opening = this.#context(cipher, 0)
      if (method.nonceBytes === LONG_NONCE_BYTES) this.#stream = this.#keyStream()
    } catch (error) {
      this.wipe()
      throw error
    }
  }

  seal(length: number): void {
    const { EVP_CipherUpdate, EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#calls
    const context = this.#sealing
    const base = this.#base
    const text = base + this.#textEnd - length
    const lengthAt = base + LENGTH_AT
    // whatever failed, the text must not leave as it is
    const done =
      this.#begin(context) === 1 &&
      EVP_CipherUpdate(context, 0, lengthAt, base + AD_AT, ASSOCIATED_DATA.length) === 1 &&
      (length === 0 || EVP_CipherUpdate(context, text, lengthAt, text, length) === 1) &&
      EVP_CipherFinal_ex(context, base + SINK_AT, lengthAt) === 1 &&
      EVP_CIPHER_CTX_ctrl(context, GET_TAG, TAG_BYTES, base + this.#textEnd) === 1
    if (!done) throw new Error(`${this.provider} cannot seal`)
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
    for (const context of [this.#sealing, this.#opening, this.#stream]) {
      // overwrites the key in it
      if (context !== 0) this.#calls.EVP_CIPHER_CTX_free(context)
    }
    this.#sealing = 0
    this.#opening = 0
    this.#stream = 0
  }

  /** Begins a packet under the nonce in the scratch area. */
  #begin(context: number): number {
    const { EVP_CipherInit_ex } = this.#calls
    const base = this.#base
    if (this.#stream === 0) {
      return EVP_CipherInit_ex(context, 0, 0, 0, base + SCRATCH_END - SHORT_NONCE_BYTES, UNCHANGED)
    }
    if (this.#deriveSubkey() !== 1) return 0
    return EVP_CipherInit_ex(context, 0, 0, base + SUBKEY_AT, base + SHORT_NONCE_AT, UNCHANGED)
  }

  /** HChaCha20 of key and nonce, and the nonce that is left. */
  #deriveSubkey(): number {
    const { EVP_CipherInit_ex, EVP_CipherUpdate } = this.#calls
    const base = this.#base
    const nonceAt = SCRATCH_END - LONG_NONCE_BYTES
    // the first 16 bytes stand where counter and nonce of ChaCha20 do
    if (EVP_CipherInit_ex(this.#stream, 0, 0, 0, base + nonceAt, UNCHANGED) !== 1) return 0
    if (EVP_CipherUpdate(this.#stream, base + STREAM_AT, base + LENGTH_AT, base + ZEROS_AT, BLOCK_BYTES) !== 1) return 0
    const words = this.#words
    const [subkey, stream, nonce, short] = [SUBKEY_AT >>> 2, STREAM_AT >>> 2, nonceAt >>> 2, SHORT_NONCE_AT >>> 2]
    for (let i = 0; i < 4; i++) {
      words[subkey + i] = (words[stream + i] ?? 0) - (CONSTANTS[i] ?? 0)
      words[subkey + 4 + i] = (words[stream + 12 + i] ?? 0) - (words[nonce + i] ?? 0)
    }
    // word 0 stays 0
    words[short + 1] = words[nonce + 4] ?? 0
    words[short + 2] = words[nonce + 5] ?? 0
    return 1
  }

  #context(cipher: number, encrypt: 0 | 1): number {
    const calls = this.#calls
    const context = calls.EVP_CIPHER_CTX_new()
    const done =
      cipher !== 0 &&
      context !== 0 &&
      calls.EVP_CipherInit_ex(context, cipher, 0, 0, 0, encrypt) === 1 &&
      calls.EVP_CIPHER_CTX_ctrl(context, SET_IV_LENGTH, SHORT_NONCE_BYTES, 0) === 1 &&
      calls.EVP_CipherInit_ex(context, 0, 0, this.#base + KEY_AT, this.#base + SHORT_NONCE_AT, encrypt) === 1
    if (!done) throw new Error(`${this.provider} lacks a cipher`)
    return context
  }

  #keyStream(): number {
    const context = this.#calls.EVP_CIPHER_CTX_new()
    const cipher = this.#calls.EVP_chacha20()
    const done =
      cipher !== 0 &&
      context !== 0 &&
      this.#calls.EVP_CipherInit_ex(context, cipher, 0, this.#base + KEY_AT, this.#base + ZEROS_AT, 1) === 1
    if (!done) throw new Error(`${this.provider} lacks a cipher`)
    return context
  }
}

/**
 * Opens a method; the key (32 bytes) is copied. Result: undefined when OpenSSL has no such method, or does not do here what it should.
 */
export function openOpensslAead(name: string, key: Uint8Array, openssl: Openssl): Aead | undefined {
  const method = METHODS[name]
  if (method === undefined) return undefined
  try {
    const trial = new OpensslCipher(name, method, openssl, key)
    const sound = worksAsItShould(trial)
    trial.wipe()
    return sound ? new ScratchAead(new OpensslCipher(name, method, openssl, key)) : undefined
  } catch {
    return undefined
  }
}
