/**
 * Cost of sealing and opening one datagram per method, on the current runtime.
 * Bundle with esbuild, then run `node crypto.mjs [plaintext bytes]` or `bun crypto.mjs [plaintext bytes]`.
 */

import { openAead } from '../host/crypto/open.ts'
import { variants } from '../testkit/crypto-variants.ts'

const DEFAULT_PLAIN_BYTES = 1400
const BLOCKS = 64
const BLOCK_BYTES = 1984
const WARM_UP_PACKETS = 20_000
/** Short rounds, so that even on a loaded machine the best one runs without interruption. */
const ROUND_PACKETS = 1000
const ROUNDS = 60

const plainBytes = Number(process.argv[2] ?? DEFAULT_PLAIN_BYTES)
const runtime = process.versions.bun === undefined ? `Node ${process.versions.node}` : `Bun ${process.versions.bun}`
console.log(`${runtime}, ${plainBytes} bytes of plaintext, ns per packet (best of ${ROUNDS} rounds)`)

/** Best time per packet in ns. */
function measure(work: (packet: number) => void): number {
  for (let i = 0; i < WARM_UP_PACKETS; i++) work(i)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now()
    for (let i = 0; i < ROUND_PACKETS; i++) work(i)
    best = Math.min(best, ((performance.now() - start) * 1e6) / ROUND_PACKETS)
  }
  return best
}

for (const { method, crypto } of variants) {
  const aead = await openAead(method, new Uint8Array(32).fill(7), crypto)
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 8 }).buffer)
  const sealedBytes = plainBytes + aead.tagBytes + aead.nonceBytes
  const nonceAt = plainBytes + aead.tagBytes
  const sealNs = measure((packet) => {
    const block = (packet % BLOCKS) * BLOCK_BYTES
    memory[block + nonceAt] = packet & 255
    aead.seal(memory, block, plainBytes, memory, block + nonceAt, memory, block)
  })
  const datagram = memory.slice(0, sealedBytes)
  const openNs = measure((packet) => {
    if (aead.openInto(datagram, sealedBytes, memory, (packet % BLOCKS) * BLOCK_BYTES) < 0) throw new Error(method)
  })
  const forged = datagram.slice()
  forged[0] = (forged[0] ?? 0) ^ 1
  const forgedNs = measure(() => {
    if (aead.openInto(forged, sealedBytes, memory, 0) >= 0) throw new Error(method)
  })
  const figures = `seal ${sealNs.toFixed(0).padStart(5)}  open ${openNs.toFixed(0).padStart(5)}`
  console.log(`${method.padEnd(22)} ${figures}  forged ${forgedNs.toFixed(0).padStart(5)}  ${aead.provider}`)
  aead.wipe()
}
