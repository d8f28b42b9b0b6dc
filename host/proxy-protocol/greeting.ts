/** The PROXY protocol at a server: the address of the tunnel's peer is written to the target before anything else. */

import type { Dialling } from '../driver/stream.ts'
import { systemError } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import type { QueuedBytes, TcpHandlers } from '../runtime.ts'
import { encodeHeader } from './header.ts'

/**
 * Puts a header before what is sent to a target.
 * @param held where connections count what they queue
 * @param local the UDP address that the peer reached
 */
export function greeting(
  version: 1 | 2,
  dialling: Dialling,
  held: QueuedBytes,
  peer: SocketAddress | undefined,
  local: SocketAddress | undefined,
): Dialling {
  const handlers: TcpHandlers = { held, onData() {}, onEnd() {}, onDrain() {}, onClose() {} }
  return {
    onOpen(connection) {
      const header = encodeHeader(version, peer, local)
      connection.attach(handlers)
      const buffer = connection.writeBuffer()
      buffer.set(header)
      if (connection.write(buffer, header.length) === header.length) return dialling.onOpen(connection)
      connection.reset()
      dialling.onFailed(systemError('ECONNRESET', 'the target takes no PROXY header'))
    },
    onFailed: (error) => dialling.onFailed(error),
  }
}
