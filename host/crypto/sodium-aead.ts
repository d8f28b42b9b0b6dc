/**
 * The three libsodium methods on its compiled exports, with buffers made once: sealing and opening allocate nothing.
 * The heap of libsodium is a memory of its own, so a datagram is copied into a scratch area there, processed in place and copied out.
 */

import { type Aead, ASSOCIATED_DATA, KEY_BYTES, MAX_SEALED, type NonceStrategy, TAG_BYTES } from './aead.ts'
import { allocate, type RawSodium, rawSodium, release } from './sodium.ts'

// Layout of the scratch area, bytes from its start. The datagram comes last: copies into it may be longer than the datagram, up to MAX_SEALED.
const KEY_AT = 0
const AD_AT = KEY_AT + KEY_BYTES
const TEXT_AT = AD_AT + 16
const SCRATCH_BYTES = TEXT_AT + MAX_SEALED

/** Source views kept per direction. Prime, so that blocks at any regular distance spread over all of it. */
const VIEW_SLOTS = 251
/** Blocks of the engine begin at multiples of 16 bytes. */
const VIEW_ALIGN_BITS = 4

const RAW_NAMES = [
  '_crypto_aead_xchacha20poly1305_ietf_encrypt_detached',
  '_crypto_aead_xchacha20poly1305_ietf_decrypt_detached',
  '_crypto_aead_chacha20poly1305_ietf_encrypt_detached',
  '_crypto_aead_chacha20poly1305_ietf_decrypt_detached',
  '_crypto_secretbox_detached',
  '_crypto_secretbox_open_detached',
] as const

type Raw = RawSodium<(typeof RAW_NAMES)[number]>

/** Works in place on `length` bytes at `text`; all arguments but the length are addresses. 0 = done, -1 = not authentic. */
type Primitive = (text: number, length: number, tag: number, nonce: number, ad: number, key: number) => number

interface SodiumMethod {
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  seal(raw: Raw): Primitive
  open(raw: Raw): Primitive
}

const AD_BYTES = ASSOCIATED_DATA.length

// Detached forms throughout: the tag stands behind the ciphertext also for secretbox, whose easy form puts it in front (protocol.md 3.2).
const sodiumMethods: Readonly<Record<string, SodiumMethod>> = {
  xchacha20poly1305_ietf: {
    nonceBytes: 24,
    nonceStrategy: 'random',
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
    nonceBytes: 24,
    nonceStrategy: 'random',
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
    nonceBytes: 12,
    nonceStrategy: 'counter',
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

/**
 * Views of MAX_SEALED bytes (less at the end) into one changing memory, kept by their start, so that reading datagrams
 * out of the engine's memory needs no new view per packet. Copying always MAX_SEALED bytes costs less than making a view.
 */
class SourceViews {
  readonly #views: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(VIEW_SLOTS).fill(undefined)
  readonly #starts = new Int32Array(VIEW_SLOTS).fill(-1)
  #memory: Uint8Array | undefined

  at(memory: Uint8Array, start: number): Uint8Array {
    if (memory !== this.#memory) {
      this.clear()
      this.#memory = memory
    }
    const slot = (start >>> VIEW_ALIGN_BITS) % VIEW_SLOTS
    const kept = this.#views[slot]
    if (kept !== undefined && this.#starts[slot] === start) return kept
    const made = memory.subarray(start, start + MAX_SEALED)
    this.#views[slot] = made
    this.#starts[slot] = start
    return made
  }

  clear(): void {
    this.#views.fill(undefined)
    this.#starts.fill(-1)
    this.#memory = undefined
  }
}

class SodiumAead implements Aead {
  readonly method: string
  readonly tagBytes = TAG_BYTES
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  readonly provider: string
  readonly #raw: Raw
  readonly #seal: Primitive
  readonly #open: Primitive
  /** Address of the scratch area in libsodium's heap; 0 after wipe(). */
  #scratch: number
  #heap: Uint8Array
  /** Views of the datagram in the scratch area by their length. */
  readonly #texts: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(MAX_SEALED + 1).fill(undefined)
  readonly #sealSources = new SourceViews()
  readonly #openSources = new SourceViews()

  constructor(name: string, method: SodiumMethod, raw: Raw, provider: string, key: Uint8Array) {
    this.method = name
    this.nonceBytes = method.nonceBytes
    this.nonceStrategy = method.nonceStrategy
    this.provider = provider
    this.#raw = raw
    this.#seal = method.seal(raw)
    this.#open = method.open(raw)
    this.#scratch = allocate(raw, null, SCRATCH_BYTES)
    this.#heap = raw.HEAPU8
    this.#heap.set(key, this.#scratch + KEY_AT)
    this.#heap.set(ASSOCIATED_DATA, this.#scratch + AD_AT)
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
    const sealedLength = length + TAG_BYTES + this.nonceBytes
    if (length < 0 || sealedLength > MAX_SEALED) throw new RangeError(`cannot seal ${length} bytes`)
    // Without these a caller's mistake would seal what the last packet left, or under a nonce of zeros.
    if (srcOffset + length > src.length) throw new RangeError('plaintext beyond the end of its buffer')
    if (nonceOffset + this.nonceBytes > nonce.length) throw new RangeError('nonce beyond the end of its buffer')
    const heap = this.#currentHeap()
    const text = this.#scratch + TEXT_AT
    heap.set(this.#sealSources.at(src, srcOffset), text)
    const tagAt = text + length
    const nonceAt = tagAt + TAG_BYTES
    for (let i = 0; i < this.nonceBytes; i++) heap[nonceAt + i] = nonce[nonceOffset + i] ?? 0
    this.#seal(text, length, tagAt, nonceAt, this.#scratch + AD_AT, this.#scratch + KEY_AT)
    out.set(this.#text(sealedLength), outOffset)
    return sealedLength
  }

  open(buf: Uint8Array, offset: number, length: number): number {
    if (!this.#fits(length) || offset + length > buf.length) return -1
    this.#currentHeap().set(this.#openSources.at(buf, offset), this.#scratch + TEXT_AT)
    return this.#openText(length, buf, offset)
  }

  openInto(sealed: Uint8Array, length: number, memory: Uint8Array, ptr: number): number {
    if (!this.#fits(length) || length > sealed.length) return -1
    const source = sealed.length <= MAX_SEALED ? sealed : sealed.subarray(0, length)
    this.#currentHeap().set(source, this.#scratch + TEXT_AT)
    return this.#openText(length, memory, ptr)
  }

  wipe(): void {
    if (this.#scratch === 0) return
    release(this.#raw, this.#scratch, SCRATCH_BYTES)
    this.#scratch = 0
    this.#texts.fill(undefined)
    this.#sealSources.clear()
    this.#openSources.clear()
  }

  #fits(length: number): boolean {
    return length > TAG_BYTES + this.nonceBytes && length <= MAX_SEALED
  }

  /** Opens the datagram in the scratch area and, if it is authentic, copies it with its nonce to `out`. */
  #openText(length: number, out: Uint8Array, outOffset: number): number {
    const plainLength = length - TAG_BYTES - this.nonceBytes
    const text = this.#scratch + TEXT_AT
    const tagAt = text + plainLength
    const key = this.#scratch + KEY_AT
    if (this.#open(text, plainLength, tagAt, tagAt + TAG_BYTES, this.#scratch + AD_AT, key) !== 0) return -1
    out.set(this.#text(length), outOffset)
    return plainLength
  }

  #currentHeap(): Uint8Array {
    if (this.#scratch === 0) throw new Error('the key was wiped')
    const heap = this.#raw.HEAPU8
    if (heap !== this.#heap) {
      this.#heap = heap
      this.#texts.fill(undefined)
    }
    return heap
  }

  #text(length: number): Uint8Array {
    const kept = this.#texts[length]
    if (kept !== undefined) return kept
    const text = this.#scratch + TEXT_AT
    const made = this.#heap.subarray(text, text + length)
    this.#texts[length] = made
    return made
  }
}

/**
 * Opens one of the three libsodium methods; the key (32 bytes) is copied.
 * @throws RangeError for another method
 */
export async function openSodiumAead(name: string, key: Uint8Array): Promise<Aead> {
  const method = sodiumMethods[name]
  if (method === undefined) throw new RangeError(`method: ${JSON.stringify(name)} is not one of libsodium's`)
  const { default: sodium } = await import('libsodium-wrappers')
  await sodium.ready
  const raw = rawSodium(sodium, RAW_NAMES)
  const provider = `libsodium-wrappers (libsodium ${sodium.SODIUM_VERSION_STRING})`
  return new SodiumAead(name, method, raw, provider, key)
}
