/**
 * Conformance tests of a runtime adapter against the contract of host/runtime.ts. conformance.node.test.ts and
 * conformance.bun.test.ts run them. The peers are the runtime's own `node:*` sockets, so that an adapter is not tested
 * only against itself.
 */

import { httpConformance } from './http.ts'
import { LOCALHOST6, type Subject } from './subject.ts'
import { systemConformance } from './system.ts'
import { tcpConformance } from './tcp.ts'
import { tcpBoundsConformance } from './tcp-bounds.ts'
import { udpConformance } from './udp.ts'

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
  tcpBoundsConformance(subject)
  httpConformance(subject)
}
