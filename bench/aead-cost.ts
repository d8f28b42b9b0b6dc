/** Cost of sealing and opening one datagram. */

import { type Aead, START_BYTES } from '../host/crypto/aead.ts'
import { isPlausible } from '../host/crypto/plausible.ts'
import type { AeadCost } from '../testkit/calibration.ts'

const BLOCKS = 64
const BLOCK_BYTES = 1984
const WARM_UP_PACKETS = 20_000
/** Short rounds, so that even on a loaded machine the best one runs without interruption. */
const ROUND_PACKETS = 1000
export const ROUNDS = 60

/** Best time of one call of `work`, in ns. */
export function bestOf(work: (packet: number) => void): number {
  for (let i = 0; i < WARM_UP_PACKETS; i++) work(i)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now()
    for (let i = 0; i < ROUND_PACKETS; i++) work(i)
    best = Math.min(best, ((performance.now() - start) * 1e6) / ROUND_PACKETS)
  }
  return best
}

/** Cost of a cipher of ours, as the driver calls it, and of a forged datagram. */
export function costOf(aead: Aead, plainBytes: number): AeadCost & { readonly forged: number } {
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 8 }).buffer)
  const sealedBytes = plainBytes + aead.tagBytes + aead.nonceBytes
  const nonceAt = plainBytes + aead.tagBytes
  const seal = bestOf((packet) => {
    const block = (packet % BLOCKS) * BLOCK_BYTES
    memory[block + nonceAt] = packet & 255
    aead.seal(memory, block, plainBytes, memory, block + nonceAt, memory, block)
  })
  const datagram = memory.slice(0, sealedBytes)
  const open = bestOf((packet) => {
    if (aead.openInto(datagram, sealedBytes, memory, (packet % BLOCKS) * BLOCK_BYTES) < 0) throw new Error(aead.method)
  })
  const forgery = datagram.slice()
  forgery[0] = (forgery[0] ?? 0) ^ 1
  const forged = bestOf(() => {
    if (aead.openInto(forgery, sealedBytes, memory, 0) >= 0) throw new Error(aead.method)
  })
  return { seal, open, forged }
}

/** Cost of seeing at the start of a datagram that it is sealed under another key. */
export function peekCost(aead: Aead, plainBytes: number): number {
  const start = new Uint8Array(START_BYTES)
  const sealedBytes = plainBytes + aead.tagBytes + aead.nonceBytes
  const forgery = new Uint8Array(sealedBytes).fill(9)
  return bestOf(() => {
    if (isPlausible(start, aead.peek(forgery, sealedBytes, start))) throw new Error(aead.method)
  })
}
