/**
 * In place of parts of the host that need sockets: UDP and TCP, the monitoring server, obfuscation, and what watches the
 * system. The build puts it where they are imported (plan.mjs); nothing calls it.
 */

import { NotAvailable } from '../host/errors.ts'
import { NO_SOCKETS } from './runtime.ts'

function absent(): never {
  throw new NotAvailable(NO_SOCKETS)
}

export {
  absent as ObfsClient,
  absent as ObfsServer,
  absent as openDatagrams,
  absent as openMonitoring,
  absent as ProxyTarget,
  absent as greeting,
  absent as ListenPort,
  absent as ServerTarget,
  absent as UdpTransport,
  absent as Visitors,
  absent as watchSystem,
}
