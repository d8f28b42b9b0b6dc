// node examples/echo-stream/client.mjs SERVER TEXT: sends TEXT to the echo server, over two streams of one connection.
// The key is in PSK.

import { createClient } from 'kcptun-wasm'

const [server = '127.0.0.1:4000', text = 'hello'] = process.argv.slice(2)
const client = await createClient({ server, psk: process.env.PSK })

// a Duplex of node:stream: opened once the server has answered
const stream = await client.connect({ signal: AbortSignal.timeout(5000) })
stream.end(text)
let answer = ''
for await (const part of stream) answer += part
console.log(`stream: ${answer}`)

// a WHATWG pair: bytes may be written before the server has answered
const { readable, writable } = client.open()
const writer = writable.getWriter()
await writer.write(new TextEncoder().encode(text))
await writer.close()
console.log(`pair: ${await new Response(readable).text()}`)

console.log(`round trip: ${client.stats().sessions[0]?.rtt_ms} ms`)
await client.close()
