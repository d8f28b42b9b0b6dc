/**
 * Cost of sealing, opening and peeking at one datagram per method, on the current runtime.
 * Bundle with esbuild, then run `node crypto.mjs [plaintext bytes]` or `bun crypto.mjs [plaintext bytes]`.
 */

import { openAead } from '../host/crypto/open.ts'
import { variants } from '../testkit/crypto-variants.ts'
import { costOf, peekCost, ROUNDS } from './aead-cost.ts'

const DEFAULT_PLAIN_BYTES = 1400

const plainBytes = Number(process.argv[2] ?? DEFAULT_PLAIN_BYTES)
const runtime = process.versions.bun === undefined ? `Node ${process.versions.node}` : `Bun ${process.versions.bun}`
console.log(`${runtime}, ${plainBytes} bytes of plaintext, ns per packet (best of ${ROUNDS} rounds)`)

for (const { method, crypto } of variants) {
  const aead = await openAead(method, new Uint8Array(32).fill(7), crypto)
  const { seal, open, forged } = costOf(aead, plainBytes)
  const figures = `seal ${seal.toFixed(0).padStart(5)}  open ${open.toFixed(0).padStart(5)}`
  const refused = `forged ${forged.toFixed(0).padStart(5)}  peek ${peekCost(aead, plainBytes).toFixed(0).padStart(5)}`
  console.log(`${method.padEnd(22)} ${figures}  ${refused}  ${aead.provider}`)
  aead.wipe()
}
