/**
 * An AEAD method on top of a library that works in place on a scratch area. Everything is allocated once: sealing and
 * opening do not allocate.
 *
 * A datagram is copied into the scratch area, processed there and copied out. Each copy costs 20 to 40 ns; a new view
 * of the datagram costs 100 ns plus garbage, and a cipher that takes views needs three of them. The ciphers are in
 * sodium-aead.ts, native-aead.ts and openssl-aead.ts.
 */

import { StartViews } from '../../view-cache.ts'
import { type Aead, START_BYTES } from '../aead.ts'
import { MAX_SEALED, type NonceStrategy, TAG_BYTES } from '../methods.ts'

/**
 * Length of a scratch area, bytes. Datagrams end at SCRATCH_END, so that tag and nonce are at fixed offsets; the space
 * after it receives copies that are longer than the datagram.
 */
export const SCRATCH_BYTES = 2 * MAX_SEALED
/** End offset of datagrams in a scratch area, bytes. */
export const SCRATCH_END = MAX_SEALED

/**
 * Length of a source view, bytes: fits any datagram, with few bytes after it that would be fetched needlessly. Longer
 * texts get a separate view.
 */
const SOURCE_BYTES = 1504

/** A method with a key, implemented by one library. */
export interface ScratchCipher {
  readonly method: string
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  /** The memory that contains the scratch area. A new object after it moved. */
  readonly memory: Uint8Array
  /** Offset of the scratch area in the memory. */
  readonly scratch: number
  /** Seals the `length` bytes before tag and nonce, and writes the tag. */
  seal(length: number): void
  /**
   * Opens the `length` bytes before tag and nonce.
   * @returns whether they are authentic
   */
  open(length: number): boolean
  /**
   * Decrypts the `length` bytes before tag and nonce, at most START_BYTES, as the start of a longer text. Authenticates
   * nothing and may overwrite the tag.
   * @returns whether the library did it
   */
  decryptStart(length: number): boolean
  /** Overwrites key and scratch area, once. */
  wipe(): void
}

export class ScratchAead implements Aead {
  readonly method: string
  readonly tagBytes = TAG_BYTES
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly #overhead: number
  readonly #cipher: ScratchCipher
  #wiped = false
  #memory: Uint8Array
  /** Views of the sealed datagram in the scratch area, by length. */
  readonly #sealed: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(MAX_SEALED + 1).fill(undefined)
  readonly #sealSources = new StartViews(SOURCE_BYTES)
  readonly #openSources = new StartViews(SOURCE_BYTES)

  constructor(cipher: ScratchCipher) {
    this.method = cipher.method
    this.nonceBytes = cipher.nonceBytes
    this.nonceStrategy = cipher.nonceStrategy
    this.provider = cipher.provider
    this.#overhead = TAG_BYTES + cipher.nonceBytes
    this.#cipher = cipher
    this.#memory = cipher.memory
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
    const { nonceBytes } = this
    const sealedLength = length + this.#overhead
    if (length < 0 || sealedLength > MAX_SEALED) throw new RangeError(`cannot seal ${length} bytes`)
    // a caller's mistake would otherwise seal data of the previous packet, or with a nonce of zeros
    if (srcOffset + length > src.length) throw new RangeError('plaintext beyond the end of its buffer')
    if (nonceOffset + nonceBytes > nonce.length) throw new RangeError('nonce beyond the end of its buffer')
    const memory = this.#current()
    const end = this.#cipher.scratch + SCRATCH_END
    const source =
      length <= SOURCE_BYTES ? this.#sealSources.at(src, srcOffset) : src.subarray(srcOffset, srcOffset + length)
    memory.set(source, end - sealedLength)
    for (let i = 0; i < nonceBytes; i++) memory[end - nonceBytes + i] = nonce[nonceOffset + i] ?? 0
    this.#cipher.seal(length)
    out.set(this.#sealedView(sealedLength), outOffset)
    return sealedLength
  }

  open(buf: Uint8Array, offset: number, length: number): number {
    if (!this.#fits(length) || offset + length > buf.length) return -1
    const source = length <= SOURCE_BYTES ? this.#openSources.at(buf, offset) : buf.subarray(offset, offset + length)
    this.#current().set(source, this.#cipher.scratch + SCRATCH_END - length)
    return this.#openScratch(length, buf, offset)
  }

  openInto(sealed: Uint8Array, length: number, memory: Uint8Array, ptr: number): number {
    if (!this.#fits(length) || length > sealed.length) return -1
    const source = sealed.length <= MAX_SEALED ? sealed : sealed.subarray(0, length)
    this.#current().set(source, this.#cipher.scratch + SCRATCH_END - length)
    return this.#openScratch(length, memory, ptr)
  }

  peek(sealed: Uint8Array, length: number, start: Uint8Array): number {
    if (!this.#fits(length) || length > sealed.length) return -1
    const { nonceBytes } = this
    const plainLength = length - this.#overhead
    const count = Math.min(plainLength, START_BYTES)
    const memory = this.#current()
    const end = this.#cipher.scratch + SCRATCH_END
    const at = end - this.#overhead - count
    // by the byte: few bytes, and no views
    for (let i = 0; i < count; i++) memory[at + i] = sealed[i] ?? 0
    for (let i = 1; i <= nonceBytes; i++) memory[end - i] = sealed[length - i] ?? 0
    if (!this.#cipher.decryptStart(count)) return -1
    for (let i = 0; i < count; i++) start[i] = memory[at + i] ?? 0
    return plainLength
  }

  wipe(): void {
    if (this.#wiped) return
    this.#wiped = true
    this.#cipher.wipe()
    this.#sealed.fill(undefined)
    this.#sealSources.clear()
    this.#openSources.clear()
  }

  #fits(length: number): boolean {
    return length > this.#overhead && length <= MAX_SEALED
  }

  /** Opens the datagram in the scratch area and, if it is authentic, copies it with its nonce to `out`. */
  #openScratch(length: number, out: Uint8Array, outOffset: number): number {
    const plainLength = length - this.#overhead
    if (!this.#cipher.open(plainLength)) return -1
    out.set(this.#sealedView(length), outOffset)
    return plainLength
  }

  #current(): Uint8Array {
    if (this.#wiped) throw new Error('the key was wiped')
    const { memory } = this.#cipher
    if (memory !== this.#memory) {
      this.#memory = memory
      this.#sealed.fill(undefined)
    }
    return memory
  }

  #sealedView(length: number): Uint8Array {
    const kept = this.#sealed[length]
    if (kept !== undefined) return kept
    const end = this.#cipher.scratch + SCRATCH_END
    const made = this.#memory.subarray(end - length, end)
    this.#sealed[length] = made
    return made
  }
}

/** Plaintext length of the self-test, bytes. */
const TRIAL_BYTES = 80

/**
 * Self-test of a cipher: sealing changes the text, opening restores it, and a changed bit is rejected. Overwrites the
 * scratch area.
 */
export function worksAsItShould(cipher: ScratchCipher): boolean {
  const { memory, scratch } = cipher
  const at = scratch + SCRATCH_END - cipher.nonceBytes - TAG_BYTES - TRIAL_BYTES
  const text = memory.subarray(at, at + TRIAL_BYTES)
  const isPlain = (): boolean => text.every((byte, i) => byte === i)
  const sealed = (): boolean => {
    for (let i = 0; i < TRIAL_BYTES; i++) text[i] = i
    cipher.seal(TRIAL_BYTES)
    return !isPlain()
  }
  if (!sealed() || !cipher.open(TRIAL_BYTES) || !isPlain() || !sealed()) return false
  memory[at] = (memory[at] ?? 0) ^ 1
  return !cipher.open(TRIAL_BYTES)
}
