/** What the conformance tests are run on. */
import type { SocketAddress } from '../../host/net/address.ts'
import type { HttpHandler, HttpServer, Runtime } from '../../host/runtime.ts'

/** An adapter, and the one knob that a test needs beyond its contract. */
export interface Subject {
  readonly runtime: Runtime
  /** Runtime.serveHttp with its limit for one connection. */
  serveHttp(address: SocketAddress, fetch: HttpHandler, limitMs: number): Promise<HttpServer>
}

export const LOCALHOST: SocketAddress = { family: 4, address: '127.0.0.1', port: 0, scope: 0 }
export const LOCALHOST6: SocketAddress = { family: 6, address: '::1', port: 0, scope: 0 }
export const ANY6: SocketAddress = { family: 6, address: '::', port: 0, scope: 0 }
