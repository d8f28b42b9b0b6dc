/**
 * One AEAD method with its key (protocol.md 3.1, 3.2). Nonces, padding and the replay filter belong to the engine, the
 * choice of a key to `key.ts` and the configuration.
 */

import type { NonceStrategy } from './methods.ts'

/** One key and one method. Not re-entrant: each instance has one scratch area. */
export interface Aead {
  /** Name on the wire and in the configuration, one of `methods`. */
  readonly method: string
  readonly tagBytes: number
  readonly nonceBytes: number
  readonly nonceStrategy: NonceStrategy
  /** Library behind it, for people: `libsodium-wrappers (libsodium 1.0.22)`. */
  readonly provider: string
  /**
   * Seals `length` bytes of plaintext at `src[srcOffset]` under the nonce at `nonce[nonceOffset]` and writes
   * ciphertext, tag and nonce (protocol.md 3.2) to `out[outOffset]`. `src`, `nonce` and `out` may overlap in any way.
   * @returns sealed length in bytes: `length + tagBytes + nonceBytes`
   * @throws RangeError when the sealed datagram would be longer than MAX_SEALED or does not fit; Error after wipe()
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
   * Opens a sealed datagram of `length` bytes in place at `buf[offset]`. Afterwards the plaintext stands at `buf[offset]` and the
   * nonce where it was; the bytes between them are unspecified. Nothing changes when it does not open.
   * @returns plaintext length in bytes, or -1: too short, too long (also for `buf`) or not authentic (protocol.md 3.5, steps 1 and 2)
   * @throws Error after wipe()
   */
  open(buf: Uint8Array, offset: number, length: number): number
  /**
   * The receive path: opens the first `length` bytes of `sealed` (the runtime's buffer, not changed) into `memory`: plaintext at `ptr`,
   * nonce at `ptr + length - nonceBytes`, as docs/abi.md wants it. `memory` needs room for `length` bytes at `ptr`; nothing of
   * it changes when the datagram does not open.
   * @returns plaintext length in bytes, or -1 as open()
   * @throws Error after wipe()
   */
  openInto(sealed: Uint8Array, length: number, memory: Uint8Array, ptr: number): number
  /** Overwrites the key and the scratch area. The instance is unusable afterwards; a second call does nothing. */
  wipe(): void
}

/** AES-256-GCM of a runtime; `aes-gcm.ts` builds one from the cipher functions of `node:crypto`. */
export interface AesGcmFactory {
  readonly provider: string
  /** Copies the 32-byte key. */
  open(key: Uint8Array): Aead
}

/** AES-256-GCM of a runtime; `aes-gcm.ts` builds one from the cipher functions of `node:crypto`. */
export interface AesGcmFactory {
  readonly provider: string
  /** Copies the 32-byte key. */
  open(key: Uint8Array): Aead
}
