/**
 * The HTTP server on node:http with hono's listener (protocol.md 11: one request per connection, heads up to 4095
 * bytes, 15 s for the whole connection; what breaks these rules is closed without an answer). Routes and texts are the
 * host's.
 */
import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import type { HttpServer, SocketAddress } from '../host/runtime.ts'
import { systemError } from '../host/sockaddr.ts'
import { spelling } from './system.ts'

/** Request line and headers. */
const HEAD_BYTES = 4096
/** From accept to close. */
export const CONNECTION_LIMIT_MS = 15000
/** Connections at a time; more are closed at once. */
const CONNECTIONS = 256
/** Node looks for late requests by an interval timer; the limit above is stricter, so it never has to run. */
const NEVER_MS = 2 ** 31 - 1

/**
 * Listens on `address` and answers with `fetch`. Rejects with the error of bind or listen. `limitMs` is the life of one
 * connection.
 */
export function serveHttp(
  address: SocketAddress,
  fetch: (request: Request) => Response | Promise<Response>,
  limitMs = CONNECTION_LIMIT_MS,
): Promise<HttpServer> {
  const listener = getRequestListener(fetch, { overrideGlobalObjects: false })
  const server: Server = createServer(
    { maxHeaderSize: HEAD_BYTES, headersTimeout: 0, requestTimeout: 0, connectionsCheckingInterval: NEVER_MS },
    (incoming, outgoing) => {
      outgoing.shouldKeepAlive = false
      void listener(incoming, outgoing)
    },
  )
  server.maxConnections = CONNECTIONS
  server.on('connection', (socket) => {
    const limit = setTimeout(() => socket.destroy(), limitMs)
    socket.once('close', () => clearTimeout(limit))
  })
  server.on('clientError', (_error, socket) => socket.destroy())
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: spelling.write(address), port: address.port, exclusive: true }, () => {
      server.off('error', reject)
      // accept errors: libuv closes the connection and goes on
      server.on('error', () => {})
      const bound = server.address()
      if (bound === null || typeof bound === 'string') {
        reject(systemError('EINVAL', 'the server has no address', 'listen'))
        return
      }
      resolve({
        local: spelling.read(bound.address, bound.port),
        close() {
          server.close()
          server.closeAllConnections()
        },
      })
    })
  })
}
