/** The subject of the conformance tests. */
import type { SocketAddress } from '../../host/net/address.ts'
import type { HttpHandler, HttpServer, Runtime } from '../../host/runtime.ts'

/** An adapter, and what tests must know beyond the contract. */
export interface Subject {
  readonly runtime: Runtime
  /** UDP sockets in mode `portable` do not report that a peer refuses. */
  readonly hidesRefusals?: boolean
  /** Runtime.serveHttp with a given time limit of a connection. */
  serveHttp(address: SocketAddress, fetch: HttpHandler, limitMs: number): Promise<HttpServer>
}

export const LOCALHOST: SocketAddress = { family: 4, address: '127.0.0.1', port: 0, scope: 0 }
export const LOCALHOST6: SocketAddress = { family: 6, address: '::1', port: 0, scope: 0 }
export const ANY6: SocketAddress = { family: 6, address: '::', port: 0, scope: 0 }
