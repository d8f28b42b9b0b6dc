// deno run --allow-net --allow-read --allow-env examples/deno/main.ts: a server and a client of the library in Deno.

import { createClient, createServer, generatePsk } from 'kcptun-wasm'

const psk = generatePsk()
await using server = await createServer({ bind: '127.0.0.1:0', psk }, (stream) => stream.pipe(stream))
await using client = await createClient({ server: server.address, psk })

const { readable, writable } = client.open()
await new Blob(['hello from Deno']).stream().pipeTo(writable)
console.log(await new Response(readable).text())
