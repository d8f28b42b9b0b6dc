/**
 * The HTTP server on Bun.serve (protocol.md 11: one request per connection, heads up to 4095 bytes, 15 s for a
 * connection). Routes and texts are the host's.
 *
 * Bun.serve shows no connections, so the limits are as near as it lets them be: it closes a connection without a
 * complete head after 12 s, which cannot be changed; a head above the limit is answered by 431 (above 16 KiB by Bun
 * itself); an answer that nobody reads ends after the limit.
 */
import type { HttpServer, SocketAddress } from '../host/runtime.ts'
import { explained } from '../host/sockaddr.ts'
import { spelling } from './system.ts'

/** Request line and headers. */
const HEAD_BYTES = 4096
/** Of a header line: `: ` and CRLF. Of a request line: ` HTTP/1.1` and CRLF and a space. */
const HEADER_EXTRA_BYTES = 4
const REQUEST_EXTRA_BYTES = 12
/** Without progress for this long a connection is closed. */
export const CONNECTION_LIMIT_MS = 15000
/** A body is not wanted. */
const BODY_BYTES = 4096

function headBytes(request: Request): number {
  // url is `http://` and the Host header in front of the target
  let bytes = request.method.length + request.url.length + REQUEST_EXTRA_BYTES
  request.headers.forEach((value, name) => {
    bytes += name.length + value.length + HEADER_EXTRA_BYTES
  })
  return bytes
}

/**
 * Listens on `address` and answers with `fetch`. Rejects with the error of bind or listen. `limitMs` is the longest
 * silence of one connection.
 */
export async function serveHttp(
  address: SocketAddress,
  fetch: (request: Request) => Response | Promise<Response>,
  limitMs = CONNECTION_LIMIT_MS,
): Promise<HttpServer> {
  let server: Bun.Server<undefined>
  try {
    server = Bun.serve({
      hostname: spelling.write(address),
      port: address.port,
      idleTimeout: Math.ceil(limitMs / 1000),
      maxRequestBodySize: BODY_BYTES,
      development: false,
      // outside of development Bun shares the port unless told not to
      reusePort: false,
      async fetch(request) {
        const tooLong = headBytes(request) > HEAD_BYTES
        const response = tooLong ? new Response(null, { status: 431 }) : await fetch(request)
        // the headers of some responses are immutable
        const headers = new Headers(response.headers)
        headers.set('Connection', 'close')
        return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
      },
      error: () => new Response(null, { status: 500, headers: { Connection: 'close' } }),
    })
  } catch (reason) {
    throw explained('listen', address, reason)
  }
  return {
    local: { ...address, port: server.port ?? address.port },
    close() {
      void server.stop(true)
    },
  }
}
