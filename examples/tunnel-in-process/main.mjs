// node examples/tunnel-in-process/main.mjs: a web server, a tunnel to it, and a request through the tunnel, all in one
// process. Either tunnel could as well be the program, or kcptun-libev.

import { once } from 'node:events'
import { createServer } from 'node:http'
import { createTunnel, generatePsk } from 'kcptun-wasm'

const web = createServer((request, response) => response.end(`you asked for ${request.url}\n`))
await once(web.listen(0, '127.0.0.1'), 'listening')
const { port } = /** @type {import('node:net').AddressInfo} */ (web.address())

const common = { method: 'xchacha20poly1305_ietf', psk: generatePsk() }
const server = await createTunnel({
  config: { ...common, kcp_bind: '127.0.0.1:0', connect: `127.0.0.1:${port}` },
})
const client = await createTunnel({
  config: { ...common, kcp_connect: server.address, listen: '127.0.0.1:0' },
})

const response = await fetch(`http://${client.listening}/through/the/tunnel`)
process.stdout.write(await response.text())

await client.close()
await server.close()
web.closeAllConnections()
web.close()
