/**
 * AES-256-GCM with the cipher functions of `node:crypto`, which Node and Bun provide. They are passed as arguments: the
 * host imports no runtime. The runtimes create a cipher object per packet; all other buffers are allocated once.
 */

import { type Aead, type AesGcmFactory, START_BYTES } from '../aead.ts'
import { AES_METHOD, ASSOCIATED_DATA, MAX_SEALED, methodOf, type NonceStrategy, TAG_BYTES } from '../methods.ts'
import { secretCopy } from '../secret-bytes.ts'

const ALGORITHM = 'aes-256-gcm'
/** The same key stream without authentication, from this block on: block 1 encrypts the tag (SP 800-38D, 7.1). */
const STREAM_ALGORITHM = 'aes-256-ctr'
const TEXT_BLOCK = 2
const NONCE_BYTES = methodOf(AES_METHOD).nonceBytes
const OVERHEAD = TAG_BYTES + NONCE_BYTES
const OPTIONS = { authTagLength: TAG_BYTES }

interface Cipher {
  setAAD(data: Uint8Array): unknown
  update(data: Uint8Array): Uint8Array
  final(): Uint8Array
  getAuthTag(): Uint8Array
}

interface Decipher {
  setAAD(data: Uint8Array): unknown
  setAuthTag(tag: Uint8Array): unknown
  update(data: Uint8Array): Uint8Array
  /** @throws Error if the tag does not match */
  final(): Uint8Array
}

type Make<Result> = (
  algorithm: typeof ALGORITHM,
  key: Uint8Array,
  nonce: Uint8Array,
  options: { authTagLength: number },
) => Result

type MakeDecipher = Make<Decipher> &
  ((algorithm: typeof STREAM_ALGORITHM, key: Uint8Array, counter: Uint8Array) => Pick<Decipher, 'update'>)

/** Makes a factory from `createCipheriv` and `createDecipheriv` of `node:crypto`. @param provider displayed name */
export function aesGcmFactory(
  provider: string,
  createCipheriv: Make<Cipher>,
  createDecipheriv: MakeDecipher,
): AesGcmFactory {
  return { provider, open: (key) => new AesGcm(provider, createCipheriv, createDecipheriv, key) }
}

class AesGcm implements Aead {
  readonly method = AES_METHOD
  readonly tagBytes = TAG_BYTES
  readonly nonceBytes = NONCE_BYTES
  readonly nonceStrategy: NonceStrategy = methodOf(AES_METHOD).nonceStrategy
  readonly provider: string
  readonly #createCipheriv: Make<Cipher>
  readonly #createDecipheriv: MakeDecipher
  readonly #key: Uint8Array
  readonly #nonce = new Uint8Array(NONCE_BYTES)
  readonly #tag = new Uint8Array(TAG_BYTES)
  /** Nonce and block number of `peek`. */
  #counter: Uint8Array | undefined
  #wiped = false

  constructor(provider: string, createCipheriv: Make<Cipher>, createDecipheriv: MakeDecipher, key: Uint8Array) {
    this.provider = provider
    this.#createCipheriv = createCipheriv
    this.#createDecipheriv = createDecipheriv
    this.#key = secretCopy(key)
  }

  seal(
    src: Uint8Array,
    srcOffset: number,
    length: number,
    nonce: Uint8Array,
    nonceOffset: number,
    out: Uint8Array,
    outOffset: number,
  ): number {
    if (length < 0 || length + OVERHEAD > MAX_SEALED) throw new RangeError(`cannot seal ${length} bytes`)
    if (srcOffset + length > src.length) throw new RangeError('plaintext beyond the end of its buffer')
    if (nonceOffset + NONCE_BYTES > nonce.length) throw new RangeError('nonce beyond the end of its buffer')
    this.#assertUsable()
    copy(nonce, nonceOffset, this.#nonce)
    const cipher = this.#createCipheriv(ALGORITHM, this.#key, this.#nonce, OPTIONS)
    cipher.setAAD(ASSOCIATED_DATA)
    const ciphertext = cipher.update(src.subarray(srcOffset, srcOffset + length))
    cipher.final()
    out.set(ciphertext, outOffset)
    out.set(cipher.getAuthTag(), outOffset + length)
    out.set(this.#nonce, outOffset + length + TAG_BYTES)
    return length + OVERHEAD
  }

  open(buf: Uint8Array, offset: number, length: number): number {
    const plain = this.#decrypt(buf, offset, length)
    if (plain === null) return -1
    buf.set(plain, offset)
    return plain.length
  }

  openInto(sealed: Uint8Array, length: number, memory: Uint8Array, ptr: number): number {
    const plain = this.#decrypt(sealed, 0, length)
    if (plain === null) return -1
    memory.set(plain, ptr)
    memory.set(this.#nonce, ptr + length - NONCE_BYTES)
    return plain.length
  }

  peek(sealed: Uint8Array, length: number, start: Uint8Array): number {
    if (!fits(sealed, 0, length)) return -1
    this.#assertUsable()
    this.#counter ??= Uint8Array.from({ length: 16 }, (_, i) => (i === 15 ? TEXT_BLOCK : 0))
    for (let i = 0; i < NONCE_BYTES; i++) this.#counter[i] = sealed[length - NONCE_BYTES + i] ?? 0
    const plainLength = length - OVERHEAD
    const decipher = this.#createDecipheriv(STREAM_ALGORITHM, this.#key, this.#counter)
    start.set(decipher.update(sealed.subarray(0, Math.min(plainLength, START_BYTES))))
    return plainLength
  }

  wipe(): void {
    this.#key.fill(0)
    this.#wiped = true
  }

  /**
   * Decrypts a datagram and leaves its nonce in `#nonce`.
   * @returns the plaintext in a new buffer; null if the datagram is too short, too long or not authentic
   */
  #decrypt(buf: Uint8Array, offset: number, length: number): Uint8Array | null {
    if (!fits(buf, offset, length)) return null
    this.#assertUsable()
    const tagAt = offset + length - OVERHEAD
    copy(buf, tagAt, this.#tag)
    copy(buf, tagAt + TAG_BYTES, this.#nonce)
    const decipher = this.#createDecipheriv(ALGORITHM, this.#key, this.#nonce, OPTIONS)
    decipher.setAAD(ASSOCIATED_DATA)
    decipher.setAuthTag(this.#tag)
    const plain = decipher.update(buf.subarray(offset, tagAt))
    try {
      decipher.final()
    } catch {
      return null
    }
    return plain
  }

  #assertUsable(): void {
    if (this.#wiped) throw new Error('the key was wiped')
  }
}

/** Whether `buf` has a datagram of that length at `offset`, neither too short nor too long. */
function fits(buf: Uint8Array, offset: number, length: number): boolean {
  return length > OVERHEAD && length <= MAX_SEALED && offset + length <= buf.length
}

/** Fills `to` from `from[offset]`. For short copies, without creating a view. */
function copy(from: Uint8Array, offset: number, to: Uint8Array): void {
  for (let i = 0; i < to.length; i++) to[i] = from[offset + i] ?? 0
}
