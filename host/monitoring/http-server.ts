/**
 * The limits of the monitoring server (protocol.md 11) around a server of node:http, which Node and Bun both have: heads
 * up to 4095 bytes, 15 s for a whole connection, a bound on connections, one request on each. What breaks these rules
 * is cut without an answer; routes are app.ts, texts pages.ts. A stream that lasts is let go from the 15 s by its route, which
 * then sees to its end; the bound on connections counts it all the same.
 *
 * Beyond the bound a connection makes room for the new one, so that strangers who only hold connections keep nobody out:
 * one without a request, if there is one, else one whose answer is not a stream; of the address that has most of them
 * the oldest.
 *
 * The server comes in as an object: this file knows of node:http only the shapes below.
 */

import { systemError, toError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { AddressSpelling } from '../net/native-address.ts'
import type { HttpConnection, HttpServer } from '../runtime.ts'
import { oldestOfMost } from './crowd.ts'
import { errorPage } from './pages.ts'

/** From accept to close. */
export const CONNECTION_LIMIT_MS = 15000
/** Request line, headers and the empty line. */
const HEAD_BYTES = 4095
/** Of the request line: two spaces, `HTTP/1.x`, CRLF; and the empty line. */
const LINE_EXTRA_BYTES = 14
/** Of a header: colon, space, CRLF. */
const HEADER_EXTRA_BYTES = 4
/** Connections at a time. */
export const CONNECTIONS_MAX = 64
/** A lone interval timer would look for late requests; the limit above is stricter, so it never has to run. */
const NEVER_MS = 2 ** 31 - 1
/** A request line whose target is no URI, which node:http does not hand on. */
const REQUEST_LINE = /^[!#$%&'*+.^`|~\w-]+ [^ \r\n]+ HTTP\/1\.[^\r\n]*\r\n/

/** For createServer. The parser cuts near `maxHeaderSize`, which bounds what is kept; `admit` is exact. */
export const HTTP_OPTIONS = {
  maxHeaderSize: 4096,
  headersTimeout: 0,
  requestTimeout: 0,
  keepAliveTimeout: 0,
  connectionsCheckingInterval: NEVER_MS,
  // HTTP/1.0 has none, and nothing here depends on it
  requireHostHeader: false,
} as const

/** A connection of the server. */
interface NodeSocket {
  readonly remoteAddress?: string | undefined
  destroy(): unknown
  end(text: string): unknown
  once(event: 'close', listener: () => void): unknown
}

interface ParseError extends Error {
  readonly code?: string
  readonly rawPacket?: Uint8Array
}

/** http.Server of node:http. */
interface NodeServer {
  on(event: 'connection', listener: (socket: NodeSocket) => void): unknown
  on(event: 'clientError', listener: (error: ParseError, socket: NodeSocket) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  off(event: 'error', listener: (error: Error) => void): unknown
  listen(options: { host: string; port: number; exclusive: boolean }, callback: () => void): unknown
  address(): string | { readonly address: string; readonly port: number } | null
  close(): unknown
  closeAllConnections(): void
}

/** The parts of a request and its answer that the limits look at. */
interface NodeIncoming {
  readonly httpVersion: string
  readonly method?: string | undefined
  readonly url?: string | undefined
  /** Names and values in turn. */
  readonly rawHeaders: readonly string[]
  readonly socket: NodeSocket
}
interface NodeOutgoing {
  shouldKeepAlive: boolean
}

/** An accepted connection. */
interface Connection {
  readonly remote: string | undefined
  readonly limitMs: number
  limit: ReturnType<typeof setTimeout>
  /** A request came whole. */
  asked: boolean
  /** Its answer is a stream that lasts. */
  held: boolean
}

/** What is known of connections, for as long as they live. */
const connections = new WeakMap<NodeSocket, Connection>()

/** The connection of a request, for its handler. */
export function connectionOf(socket: NodeSocket): HttpConnection {
  return {
    remote: connections.get(socket)?.remote,
    hold() {
      const connection = connections.get(socket)
      if (connection === undefined) return
      connection.held = true
      clearTimeout(connection.limit)
    },
    release() {
      const connection = connections.get(socket)
      if (connection?.held !== true) return
      connection.held = false
      connection.limit = setTimeout(() => socket.destroy(), connection.limitMs)
    },
    cut: () => void socket.destroy(),
  }
}

/** The connection that makes room for the next; undefined when all of them are streams. */
function dispensable(open: ReadonlySet<NodeSocket>): NodeSocket | undefined {
  const known = [...open].filter((socket) => connections.get(socket)?.held === false)
  const idle = known.filter((socket) => connections.get(socket)?.asked === false)
  return oldestOfMost(idle.length > 0 ? idle : known, (socket) => connections.get(socket)?.remote)
}

function headBytes({ method = '', url = '', rawHeaders }: NodeIncoming): number {
  let bytes = method.length + url.length + LINE_EXTRA_BYTES + (rawHeaders.length / 2) * HEADER_EXTRA_BYTES
  for (const text of rawHeaders) bytes += text.length
  return bytes
}

/**
 * Before a request is handled.
 * @returns false when it was cut: too long a head, or HTTP/0.9 (protocol.md 11)
 */
export function admit(incoming: NodeIncoming, outgoing: NodeOutgoing): boolean {
  outgoing.shouldKeepAlive = false
  const connection = connections.get(incoming.socket)
  if (connection !== undefined) connection.asked = true
  if (incoming.httpVersion.startsWith('1.') && headBytes(incoming) <= HEAD_BYTES) return true
  incoming.socket.destroy()
  return false
}

async function refuse(socket: NodeSocket): Promise<void> {
  const body = await errorPage(400).text()
  const date = new Date().toUTCString()
  socket.end(`HTTP/1.1 400 Bad Request\r\nDate: ${date}\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n${body}`)
}

/**
 * Starts `server` on `address`. Rejects with the error of bind or listen.
 * @param limitMs the life of one connection
 */
export function openHttp(
  server: NodeServer,
  spelling: AddressSpelling,
  address: SocketAddress,
  limitMs: number,
): Promise<HttpServer> {
  const open = new Set<NodeSocket>()
  server.on('connection', (socket) => {
    if (open.size >= CONNECTIONS_MAX) {
      const other = dispensable(open) ?? socket
      other.destroy()
      open.delete(other)
      if (other === socket) return
    }
    open.add(socket)
    const limit = setTimeout(() => socket.destroy(), limitMs)
    const connection = { remote: socket.remoteAddress, limitMs, limit, asked: false, held: false }
    connections.set(socket, connection)
    socket.once('close', () => {
      clearTimeout(connection.limit)
      connections.delete(socket)
      open.delete(socket)
    })
  })
  server.on('clientError', (error, socket) => {
    const head = error.rawPacket === undefined ? '' : new TextDecoder('latin1').decode(error.rawPacket)
    const badTarget = error.code === 'HPE_INVALID_URL' || error.code === 'HPE_INVALID_CONSTANT'
    if (badTarget && REQUEST_LINE.test(head)) void refuse(socket)
    else socket.destroy()
  })
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(toError(error))
    server.on('error', fail)
    server.listen({ host: spelling.write(address), port: address.port, exclusive: true }, () => {
      // accept errors: the runtime closes the connection and goes on
      server.on('error', () => {})
      server.off('error', fail)
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
          for (const socket of open) socket.destroy()
        },
      })
    })
  })
}
