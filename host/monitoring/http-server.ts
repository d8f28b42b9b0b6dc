/**
 * Enforces the limits of the monitoring server (protocol.md 11) on a server of node:http, which the runtimes provide:
 * heads up to 4095 bytes, 15 s for a whole connection, a maximum number of connections, one request per connection.
 * Connections that violate them are closed without an answer. Routes are in app.ts, texts in pages.ts. The route of a
 * long-lived stream exempts its connection from the 15 s and is then responsible for ending it; the connection still
 * counts towards the maximum.
 *
 * At the maximum an existing connection is closed for a new one, so that idle connections cannot lock out clients: one
 * without a request if there is one, otherwise one whose answer is not a stream; the oldest one of the address with the
 * most connections.
 *
 * The server is passed as an object: this file depends only on the interfaces below.
 */

import { systemError, toError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { AddressSpelling } from '../net/native-address.ts'
import type { HttpConnection, HttpServer } from '../runtime.ts'
import { oldestOfMost } from './crowd.ts'
import { errorPage } from './pages.ts'

/** Maximum duration of a connection, from accept to close. */
export const CONNECTION_LIMIT_MS = 15000
/** Maximum length of request line, headers and empty line. */
const HEAD_BYTES = 4095
/** Rest of the request line (two spaces, `HTTP/1.x`, CRLF) and the empty line. */
const LINE_EXTRA_BYTES = 14
/** Rest of a header: colon, space, CRLF. */
const HEADER_EXTRA_BYTES = 4
/** Maximum number of simultaneous connections. */
export const CONNECTIONS_MAX = 64
/** Disables the interval timer that looks for late requests: the connection limit is stricter. */
const NEVER_MS = 2 ** 31 - 1
/** A request line whose target may not be a URI; node:http rejects such requests. */
const REQUEST_LINE = /^[!#$%&'*+.^`|~\w-]+ [^ \r\n]+ HTTP\/1\.[^\r\n]*\r\n/

/** Options of createServer. `maxHeaderSize` is an approximate limit of the parser; `admit` is exact. */
export const HTTP_OPTIONS = {
  maxHeaderSize: 4096,
  headersTimeout: 0,
  requestTimeout: 0,
  keepAliveTimeout: 0,
  connectionsCheckingInterval: NEVER_MS,
  // HTTP/1.0 has no Host header
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
  readonly bytesParsed?: number
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
  ref(): unknown
  unref(): unknown
}

/** The parts of a request and its answer that the limits use. */
interface NodeIncoming {
  readonly httpVersion: string
  readonly method?: string | undefined
  readonly url?: string | undefined
  /** Names and values alternately. */
  readonly rawHeaders: readonly string[]
  readonly socket: NodeSocket
}
interface NodeOutgoing {
  shouldKeepAlive: boolean
}

/** Whether a request fails because of its target alone. Deno reports one code for all errors. */
function hasBadTarget({ code, rawPacket, bytesParsed = 0 }: ParseError): boolean {
  const head = rawPacket === undefined ? '' : new TextDecoder('latin1').decode(rawPacket)
  if (!REQUEST_LINE.test(head)) return false
  if (code === 'HPE_ERROR') return bytesParsed < head.indexOf('\r\n')
  return code === 'HPE_INVALID_URL' || code === 'HPE_INVALID_CONSTANT'
}

/** An accepted connection. */
interface Connection {
  readonly remote: string | undefined
  readonly limitMs: number
  limit: ReturnType<typeof setTimeout>
  /** A complete request was received. */
  asked: boolean
  /** The answer is a long-lived stream. */
  held: boolean
}

/** State of the open connections. */
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

/** The connection to close for a new one; undefined if all are streams. */
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
 * Checks a request before it is handled.
 * @returns false if its connection was closed: head too long, or HTTP/0.9 (protocol.md 11)
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
 * @param limitMs maximum duration of a connection
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
    if (hasBadTarget(error)) void refuse(socket)
    else socket.destroy()
  })
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(toError(error))
    server.on('error', fail)
    server.listen({ host: spelling.write(address), port: address.port, exclusive: true }, () => {
      // accept errors are ignored: the runtime closes the connection and continues
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
        keepAlive: (isKept) => (isKept ? server.ref() : server.unref()),
      })
    })
  })
}
