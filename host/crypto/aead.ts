/**
 * Interface of an AEAD method with its key (protocol.md 3.1, 3.2). Nonces, padding and the replay filter are part of
 * the engine; keys come from `key.ts` and the configuration.
 */

import type { NonceStrategy } from './methods.ts'

/** Length of the start of a plaintext that `peek` decrypts, bytes: the header of a segment (protocol.md 5.1). */
export const START_BYTES = 24

/** One method with one key. Not re-entrant: each instance has a single scratch area. */
export interface Aead {
  /** Name in the configuration, one of `methods`. */
  readonly method: string
  readonly tagBytes: number
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  /** Library in use, as displayed: `libsodium-wrappers (libsodium 1.0.22)`. */
  readonly provider: string
  /**
   * Seals `length` bytes of plaintext at `src[srcOffset]` under the nonce at `nonce[nonceOffset]` and writes
   * ciphertext, tag and nonce (protocol.md 3.2) to `out[outOffset]`. `src`, `nonce` and `out` may overlap.
   * @returns sealed length in bytes: `length + tagBytes + nonceBytes`
   * @throws RangeError if the sealed datagram exceeds MAX_SEALED or does not fit; Error after wipe()
   */
  seal(
    src: Uint8Array,
    srcOffset: number,
    length: number,
    nonce: Uint8Array,
    nonceOffset: number,
    out: Uint8Array,
    outOffset: number,
  ): number
  /**
   * Opens a sealed datagram of `length` bytes in place at `buf[offset]`. On success the plaintext is at `buf[offset]`,
   * the nonce is unchanged and the bytes between them are unspecified. On failure `buf` is unchanged.
   * @returns plaintext length in bytes, or -1: too short, too long (also for `buf`) or not authentic (protocol.md 3.5,
   * steps 1 and 2)
   * @throws Error after wipe()
   */
  open(buf: Uint8Array, offset: number, length: number): number
  /**
   * Opens the first `length` bytes of `sealed` (the buffer of the runtime, which is not modified) into `memory`:
   * plaintext at `ptr`, nonce at `ptr + length - nonceBytes`, as specified in docs/abi.md. `memory` must have room for
   * `length` bytes at `ptr`; on failure it is unchanged. Used in the receive path.
   * @returns plaintext length in bytes, or -1 as open()
   * @throws Error after wipe()
   */
  openInto(sealed: Uint8Array, length: number, memory: Uint8Array, ptr: number): number
  /**
   * Decrypts the first `min(START_BYTES, plaintext length)` bytes of the plaintext of the first `length` bytes of
   * `sealed` to `start`, which has room for START_BYTES; the rest of `start` is unspecified. The bytes are NOT
   * authenticated: whoever sent the datagram can choose them. Their only use is to choose the key that `open` is tried
   * with (`plausible.ts`). Costs the same whatever the length, and no memory before the first call.
   * @returns plaintext length in bytes, if the datagram is authentic, or -1: too short or too long, as open()
   * @throws Error after wipe()
   */
  peek(sealed: Uint8Array, length: number, start: Uint8Array): number
  /** Overwrites the key and the scratch area and makes the instance unusable. Repeated calls have no effect. */
  wipe(): void
}

/** AES-256-GCM of a runtime; `aes-gcm.ts` makes one from the cipher functions of `node:crypto`. */
export interface AesGcmFactory {
  readonly provider: string
  /** Copies the 32-byte key. */
  open(key: Uint8Array): Aead
}
