/**
 * Three of the methods with the EVP interface of OpenSSL, called by FFI. It takes two thirds of the time of libsodium,
 * and for AES-256-GCM a sixth of the time of node:crypto, which creates objects for every packet. The runtime binds the
 * calls. XChaCha20-Poly1305 is ChaCha20-Poly1305 with a key for each packet, HChaCha20(key, first 16 bytes of the
 * nonce), and a nonce of 4 zero bytes and the other 8 (draft-irtf-cfrg-xchacha, section 2.3). OpenSSL has no HChaCha20,
 * so this method also needs the system's libsodium.
 */

import type { Aead } from '../aead.ts'
import {
  AES_METHOD,
  ASSOCIATED_DATA,
  KEY_BYTES,
  methodOf,
  type NonceStrategy,
  TAG_BYTES,
  XCHACHA_METHOD,
} from '../methods.ts'
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

/** crypto_core_hchacha20 of libsodium: out 32 bytes, input 16, key 32; no constant = 0. */
export type HChaCha20 = (out: number, input: number, key: number, constant: number) => number

/** Names under which systems have libsodium. */
export const SODIUM_LIBRARIES: readonly string[] = ['libsodium.so.23', 'libsodium.so.26']

/** OpenSSL, bound by a runtime. */
export interface Openssl {
  /** As displayed: `OpenSSL 3.0.15`. */
  readonly provider: string
  readonly calls: OpensslCalls
  /** Address of an array. */
  address(bytes: Uint8Array): number
  /** libsodium's function, if the system has it. Bound at the first call. */
  hchacha20(): HChaCha20 | undefined
  /** EVP_chacha20. Bound at the first call. */
  chacha20(): number
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
/** Key and nonce of one packet (XChaCha20). */
const PACKET_KEY_AT = SINK_AT + 64
/** EVP_chacha20 takes the number of the first block, 4 bytes little-endian, before the nonce. */
const PACKET_BLOCK_AT = PACKET_KEY_AT + KEY_BYTES
const PACKET_NONCE_AT = PACKET_BLOCK_AT + 4
const MEMORY_BYTES = PACKET_NONCE_AT + 12
/** The first block of the text; block 0 is the key of the authenticator (RFC 8439, section 2.8). */
const TEXT_BLOCK = 1

/** Nonce length of OpenSSL's ciphers (RFC 8439, NIST SP 800-38D), bytes. */
const NONCE_BYTES = methodOf(AES_METHOD).nonceBytes
/** The part of an XChaCha20 nonce that goes into the key of the packet, and the rest of it. */
const KEY_NONCE_BYTES = 16
const REST_BYTES = methodOf(XCHACHA_METHOD).nonceBytes - KEY_NONCE_BYTES

/** Method -> function that returns its cipher. */
const METHODS: Readonly<Record<string, 'EVP_chacha20_poly1305' | 'EVP_aes_256_gcm'>> = {
  [XCHACHA_METHOD]: 'EVP_chacha20_poly1305',
  chacha20poly1305_ietf: 'EVP_chacha20_poly1305',
  [AES_METHOD]: 'EVP_aes_256_gcm',
}

class OpensslCipher implements ScratchCipher {
  readonly method: string
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly memory = new Uint8Array(MEMORY_BYTES)
  readonly scratch = 0
  readonly #calls: OpensslCalls
  /** Address of the memory. */
  readonly #base: number
  readonly #textEnd: number
  /** Derives the key of each packet; undefined if the contexts hold the key. */
  readonly #hchacha20: HChaCha20 | undefined
  /** Contexts that hold the key, for sealing and opening. */
  #sealing = 0
  #opening = 0
  /** Context of ChaCha20 without authentication. Undefined before `decryptStart` needs it, 0: not available. */
  #stream: number | undefined
  readonly #openssl: Openssl

  constructor(
    name: string,
    cipherCall: 'EVP_chacha20_poly1305' | 'EVP_aes_256_gcm',
    openssl: Openssl,
    key: Uint8Array,
    hchacha20: HChaCha20 | undefined,
  ) {
    this.method = name
    const { nonceBytes, nonceStrategy } = methodOf(name)
    this.nonceBytes = nonceBytes
    this.nonceStrategy = nonceStrategy
    this.#textEnd = SCRATCH_END - nonceBytes - TAG_BYTES
    this.#hchacha20 = hchacha20
    this.provider = hchacha20 === undefined ? openssl.provider : `${openssl.provider}, with libsodium`
    this.#openssl = openssl
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
    if (hchacha20 === undefined) this.memory.fill(0, KEY_AT, KEY_AT + KEY_BYTES)
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

  decryptStart(length: number): boolean {
    const base = this.#base
    const text = base + this.#textEnd - length
    // the context of the AEAD decrypts before it has the tag, too, but Poly1305 would take half of the time
    const context = this.#hchacha20 === undefined ? this.#opening : this.#streamContext()
    return (
      this.#begin(context) === 1 && this.#calls.EVP_CipherUpdate(context, text, base + LENGTH_AT, text, length) === 1
    )
  }

  wipe(): void {
    this.memory.fill(0)
    for (const context of [this.#sealing, this.#opening, this.#stream ?? 0]) {
      // also overwrites its key
      if (context !== 0) this.#calls.EVP_CIPHER_CTX_free(context)
    }
    this.#sealing = 0
    this.#opening = 0
    this.#stream = 0
  }

  /** Starts a packet with the nonce in the scratch area. */
  #begin(context: number): number {
    const base = this.#base
    const nonceAt = SCRATCH_END - this.nonceBytes
    const derive = this.#hchacha20
    if (derive === undefined) return this.#calls.EVP_CipherInit_ex(context, 0, 0, 0, base + nonceAt, UNCHANGED)
    const { memory } = this
    const restAt = PACKET_NONCE_AT + NONCE_BYTES - REST_BYTES
    for (let i = 0; i < REST_BYTES; i++) memory[restAt + i] = memory[nonceAt + KEY_NONCE_BYTES + i] ?? 0
    if (derive(base + PACKET_KEY_AT, base + nonceAt, base + KEY_AT, 0) !== 0) return 0
    const ivAt = context === this.#stream ? PACKET_BLOCK_AT : PACKET_NONCE_AT
    return this.#calls.EVP_CipherInit_ex(context, 0, 0, base + PACKET_KEY_AT, base + ivAt, UNCHANGED)
  }

  #streamContext(): number {
    this.#stream ??= this.#openStream()
    return this.#stream === 0 ? this.#opening : this.#stream
  }

  /** Opens ChaCha20, which gets the key of each packet. @returns 0 if this OpenSSL does not have it alone */
  #openStream(): number {
    const calls = this.#calls
    let context = 0
    try {
      const cipher = this.#openssl.chacha20()
      context = calls.EVP_CIPHER_CTX_new()
      if (cipher !== 0 && calls.EVP_CipherInit_ex(context, cipher, 0, 0, 0, 0) === 1) {
        this.memory[PACKET_BLOCK_AT] = TEXT_BLOCK
        return context
      }
    } catch {
      // no such symbol
    }
    if (context !== 0) calls.EVP_CIPHER_CTX_free(context)
    return 0
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

/** The test vector of draft-irtf-cfrg-xchacha, section 2.2.1: key 00 to 1f. */
const VECTOR_INPUT = '000000090000004a0000000031415927'
const VECTOR_OUTPUT = '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc'

/** libsodium's function if it computes what it should: sealing and opening alone would not show that it does not. */
function workingHChaCha20(openssl: Openssl): HChaCha20 | undefined {
  const derive = openssl.hchacha20()
  if (derive === undefined) return undefined
  const memory = new Uint8Array(KEY_BYTES + KEY_NONCE_BYTES + KEY_BYTES)
  for (let i = 0; i < KEY_BYTES; i++) memory[i] = i
  memory.set(VECTOR_INPUT.match(/../g)?.map((byte) => Number.parseInt(byte, 16)) ?? [], KEY_BYTES)
  const base = openssl.address(memory)
  const outAt = KEY_BYTES + KEY_NONCE_BYTES
  const isDone = derive(base + outAt, base + KEY_BYTES, base, 0) === 0
  const output = Array.from(memory.subarray(outAt), (byte) => byte.toString(16).padStart(2, '0')).join('')
  return isDone && output === VECTOR_OUTPUT ? derive : undefined
}

/**
 * Opens a method; the key (32 bytes) is copied.
 * @returns undefined if OpenSSL does not support the method or fails the self-test
 */
export function openOpensslAead(name: string, key: Uint8Array, openssl: Openssl): Aead | undefined {
  const method = METHODS[name]
  if (method === undefined) return undefined
  const hchacha20 = name === XCHACHA_METHOD ? workingHChaCha20(openssl) : undefined
  if (name === XCHACHA_METHOD && hchacha20 === undefined) return undefined
  try {
    const trial = new OpensslCipher(name, method, openssl, key, hchacha20)
    try {
      if (!worksAsItShould(trial)) return undefined
    } finally {
      trial.wipe()
    }
    return new ScratchAead(new OpensslCipher(name, method, openssl, key, hchacha20))
  } catch {
    return undefined
  }
}
