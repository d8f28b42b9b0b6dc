// node examples/echo-stream/server.mjs PORT: sends back whatever it receives, on every stream. The key is in PSK.

import { createServer } from 'kcptun-wasm'

const { PSK: psk } = process.env
const server = await createServer({ bind: `127.0.0.1:${process.argv[2] ?? 4000}`, psk }, (stream) =>
  stream.pipe(stream),
)
console.log(`echo at UDP ${server.address}`)
