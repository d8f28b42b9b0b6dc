/** A substitute for encryption in simulations: the same overhead, and it detects changes. */

import { type CoreConfig, NonceStrategy } from '../../host/engine/core.ts'

/** Bytes of the checksum that replaces the tag. */
const TAG_BYTES = 16

export type Sealing = 'none' | 'random' | 'counter'

/** The config fields of a substitute method: random nonces as xchacha20poly1305_ietf, counter as aes256gcm. */
export function sealingConfig(sealing: Sealing): Partial<CoreConfig> {
  if (sealing === 'random') {
    return { tagBytes: 16, nonceBytes: 24, nonceStrategy: NonceStrategy.RANDOM, kcpMtu: 1332, replayCapacity: 16384 }
  }
  if (sealing === 'counter') {
    return { tagBytes: 16, nonceBytes: 12, nonceStrategy: NonceStrategy.COUNTER, kcpMtu: 1344, replayCapacity: 16384 }
  }
  return {}
}

/** Four 32-bit checksums over `bytes[0..length)` and a nonce. */
function checksum(bytes: Uint8Array, length: number, nonce: Uint8Array, into: Uint8Array, at: number): void {
  let a = 0x811c9dc5
  let b = 0x1234567
  for (let i = 0; i < length; i++) {
    const byte = bytes[i] ?? 0
    a = Math.imul(a ^ byte, 0x01000193)
    b = Math.imul(b + byte, 0x85ebca6b)
  }
  for (const byte of nonce) {
    a = Math.imul(a ^ byte, 0x01000193)
    b = Math.imul(b + byte, 0x85ebca6b)
  }
  const view = new DataView(into.buffer, into.byteOffset)
  view.setUint32(at, a)
  view.setUint32(at + 4, b)
  view.setUint32(at + 8, a ^ (b >>> 3))
  view.setUint32(at + 12, ~b)
}

/** Seals with the substitute method: plaintext, tag, nonce. */
export function fakeSeal(plain: Uint8Array, nonce: Uint8Array): Uint8Array<ArrayBuffer> {
  const sealed = new Uint8Array(plain.length + TAG_BYTES + nonce.length)
  sealed.set(plain)
  sealed.set(nonce, plain.length + TAG_BYTES)
  checksum(plain, plain.length, nonce, sealed, plain.length)
  return sealed
}

/** The plaintext of a sealed datagram, or null if the tag is wrong. */
export function fakeOpen(sealed: Uint8Array, nonceBytes: number): Uint8Array | null {
  const length = sealed.length - TAG_BYTES - nonceBytes
  if (length < 0) return null
  const tag = new Uint8Array(TAG_BYTES)
  checksum(sealed, length, sealed.subarray(length + TAG_BYTES), tag, 0)
  for (let i = 0; i < TAG_BYTES; i++) if (tag[i] !== sealed[length + i]) return null
  return sealed.subarray(0, length)
}
