/**
 * The four AEAD methods of the protocol behind one interface (protocol.md 3.1, 3.2). Primitives come from libsodium (sodium-native or
 * libsodium-wrappers) and from the runtime's own AES-GCM; nothing here computes a cipher. Nonces, padding and the replay filter belong to the engine, the
 * choice of a key to `key.ts` and the configuration.
 */

import type { NativeSodium } from './providers/native-aead.ts'
import type { Openssl } from './providers/openssl-aead.ts'

export type NonceStrategy = 'random' | 'counter' | 'none'

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

/** What a runtime brings for the methods. What the host has itself, libsodium-wrappers, needs none of it. */
export interface RuntimeCrypto {
  readonly aesGcm: AesGcmFactory
  /** sodium-native, undefined without that package. Loads it at the first call. */
  nativeSodium(): NativeSodium | undefined
  /** OpenSSL by FFI, undefined where it cannot be had. Binds it at the first call. */
  openssl?(): Openssl | undefined
}

/** Bytes of every key (protocol.md 3.1). */
export const KEY_BYTES = 32

/** Bytes of the tag of every method (protocol.md 3.1). */
export const TAG_BYTES = 16

/** Longest sealed datagram that is handled, bytes. Datagrams on the wire end at 1500 (protocol.md 3.5). */
export const MAX_SEALED = 2048

/** Associated data of the AEAD methods: `kcptun-libev` with its trailing NUL, 13 bytes (protocol.md 3.2). Not to be written to. */
export const ASSOCIATED_DATA: Uint8Array = new TextEncoder().encode('kcptun-libev\0')

const AES_METHOD = 'aes256gcm'
/** What OpenSSL's ciphers can do. */
const OPENSSL_METHODS: ReadonlySet<string> = new Set(['chacha20poly1305_ietf', AES_METHOD])

/** Method names in the order of `--list-methods` (protocol.md 10.5). */
export const methods: readonly string[] = [
  'xchacha20poly1305_ietf',
  'xsalsa20poly1305',
  'chacha20poly1305_ietf',
  AES_METHOD,
]

/**
 * Opens a method with a key. The key is copied: wipe the caller's copy afterwards. The fastest library is taken that is there and works: OpenSSL, then
 * sodium-native, then libsodium-wrappers or node:crypto. The others are not loaded.
 * @throws RangeError for an unknown method or a key that is not 32 bytes long
 */
export async function openAead(method: string, key: Uint8Array, runtimeCrypto: RuntimeCrypto): Promise<Aead> {
  if (!methods.includes(method)) {
    throw new RangeError(`method: unknown name ${JSON.stringify(method)}, known are ${methods.join(', ')}`)
  }
  if (key.length !== KEY_BYTES) throw new RangeError(`key: ${key.length} bytes, must be ${KEY_BYTES}`)
  const openssl = OPENSSL_METHODS.has(method) ? runtimeCrypto.openssl?.() : undefined
  if (openssl !== undefined) {
    const { openOpensslAead } = await import('./providers/openssl-aead.ts')
    const aead = openOpensslAead(method, key, openssl)
    if (aead !== undefined) return aead
  }
  if (method === AES_METHOD) return runtimeCrypto.aesGcm.open(key)
  const native = runtimeCrypto.nativeSodium()
  if (native !== undefined) {
    const { openNativeAead } = await import('./providers/native-aead.ts')
    const aead = openNativeAead(method, key, native)
    if (aead !== undefined) return aead
  }
  const { openSodiumAead } = await import('./providers/sodium-aead.ts')
  return openSodiumAead(method, key)
}

/** Every method with the library that it would run on here, in the order of `methods`. */
export async function listMethods(runtimeCrypto: RuntimeCrypto): Promise<{ method: string; provider: string }[]> {
  const opened = methods.map((method) => openAead(method, new Uint8Array(KEY_BYTES), runtimeCrypto))
  return (await Promise.all(opened)).map((aead) => {
    aead.wipe()
    return { method: aead.method, provider: aead.provider }
  })
}
