// A client and a server in one process, by the main entry and by that of the runtime that executes this program.
import assert from 'node:assert/strict'
import * as main from 'kcptun-wasm'

const name = ['bun', 'deno'].find((other) => other in process.versions) ?? 'node'
const own = await import(`kcptun-wasm/${name}`)
const { createClient, createServer, generatePsk } = own
assert.equal(main.createClient, createClient)

const psk = generatePsk()
const server = await createServer({ bind: '127.0.0.1:0', psk }, (/** @type {any} */ stream) => void stream.pipe(stream))
const client = await createClient({ server: server.address, psk })
const stream = await client.connect()
stream.end('hello')
let text = ''
for await (const part of stream) text += new TextDecoder().decode(part)
assert.equal(text, 'hello')
await client.close()
await server.close()
