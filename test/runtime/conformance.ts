/**
 * What host/runtime.ts promises, tested against an adapter from outside. Written once; conformance.node.test.ts and
 * conformance.bun.test.ts run it. Peers are the runtime's own `node:*` sockets, so that an adapter is not only tested
 * against itself.
 */
import type { HttpHandler, HttpServer, Runtime, SocketAddress } from '../../host/runtime.ts'
import { httpConformance } from './http.ts'
import { systemConformance } from './system.ts'
import { tcpConformance } from './tcp.ts'
import { udpConformance } from './udp.ts'

/** An adapter, and the one knob that a test needs beyond its contract. */
export interface Subject {
  readonly runtime: Runtime
  /** Runtime.serveHttp with its limit for one connection. */
  serveHttp(address: SocketAddress, fetch: HttpHandler, limitMs: number): Promise<HttpServer>
}

export const LOCALHOST: SocketAddress = { family: 4, address: '127.0.0.1', port: 0, scope: 0 }
export const LOCALHOST6: SocketAddress = { family: 6, address: '::1', port: 0, scope: 0 }
export const ANY6: SocketAddress = { family: 6, address: '::', port: 0, scope: 0 }

export async function conformance(subject: Subject): Promise<void> {
  const hasIpv6 = await subject.runtime
    .listenTcp(
      LOCALHOST6,
      { nodelay: true, keepalive: false },
      () => null,
      () => {},
    )
    .then(
      (listener) => {
        listener.close()
        return true
      },
      () => false,
    )
  systemConformance(subject)
  udpConformance(subject, hasIpv6, 'portable')
  if (process.platform === 'linux') udpConformance(subject, hasIpv6, 'fast')
  tcpConformance(subject, hasIpv6)
  httpConformance(subject)
}
