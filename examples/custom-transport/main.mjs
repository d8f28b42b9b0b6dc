// node examples/custom-transport/main.mjs: the datagrams travel over something that is no UDP socket: here a pair of
// queues in memory that loses every tenth datagram and delivers the others late. Anything that carries datagrams will do.

import { createClient, createServer, generatePsk } from 'kcptun-wasm'

const DELAY_MS = 10
const LOST_OF_TEN = 1

/**
 * Two transports, each of which delivers to the other one.
 * @returns {[import('kcptun-wasm').DatagramTransport, import('kcptun-wasm').DatagramTransport]}
 */
function pair() {
  /** @type {(import('kcptun-wasm').DatagramReceiver | undefined)[]} */
  const receivers = []
  let sent = 0
  /** @returns {import('kcptun-wasm').DatagramTransport} */
  const side = (/** @type {number} */ own, /** @type {number} */ peer) => ({
    maxDatagramSize: 1200,
    open(receiver) {
      receivers[own] = receiver
    },
    send(data) {
      sent += 1
      if (sent % 10 < LOST_OF_TEN) return
      // the bytes are valid during this call only
      const copy = data.slice()
      setTimeout(() => receivers[peer]?.datagram(copy, `side ${own}`), DELAY_MS)
    },
    close() {
      receivers[own] = undefined
    },
  })
  return [side(0, 1), side(1, 0)]
}

const psk = generatePsk()
const [here, there] = pair()
const server = await createServer({ transport: there, psk }, (stream) => stream.pipe(stream))
const client = await createClient({ transport: here, psk })

const stream = await client.connect()
const bytes = new Uint8Array(1_000_000).fill(7)
stream.end(bytes)
let received = 0
for await (const part of stream) received += part.length

const { segments_retransmitted: again } = client.stats().counters
console.log(`${received} bytes came back over a line that loses datagrams; ${again} segments were sent again`)
await client.close()
await server.close()
