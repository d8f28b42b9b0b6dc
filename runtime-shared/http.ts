/**
 * HTTP server on node:http with hono's listener, for Node and Bun. Its limits are in host/monitoring/http-server.ts,
 * routes and texts in host/monitoring/app.ts.
 */

import { admit, CONNECTION_LIMIT_MS, connectionOf, HTTP_OPTIONS, openHttp } from '../host/monitoring/http-server.ts'
import { errorPage } from '../host/monitoring/pages.ts'
import type { SocketAddress } from '../host/net/address.ts'
import type { HttpHandler, HttpServer } from '../host/runtime.ts'
import { spelling } from './platform.ts'

/**
 * Listens on `address` and serves requests with `fetch`. Loads its modules on demand: most endpoints have no HTTP
 * server. Rejects with the error of bind or listen. `limitMs` is the lifetime of a connection.
 */
export async function serveHttp(
  address: SocketAddress,
  fetch: HttpHandler,
  limitMs = CONNECTION_LIMIT_MS,
): Promise<HttpServer> {
  const [{ createServer }, { getRequestListener, RequestError }] = await Promise.all([
    import('node:http'),
    import('@hono/node-server'),
  ])
  const listener = getRequestListener(
    (request, { incoming }) => fetch(request, incoming.url ?? '', connectionOf(incoming.socket)),
    {
      overrideGlobalObjects: false,
      hostname: 'localhost',
      errorHandler: (error) => (error instanceof RequestError ? errorPage(400) : new Response(null, { status: 500 })),
    },
  )
  const server = createServer(HTTP_OPTIONS, (incoming, outgoing) => {
    if (admit(incoming, outgoing)) void listener(incoming, outgoing)
  })
  return openHttp(server, spelling, address, limitMs)
}
