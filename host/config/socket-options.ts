/** Socket options that the configuration asks for (protocol.md 10.2). */

import { quote } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { SocketOptions } from '../runtime.ts'
import type { TcpConfig, UdpConfig } from './config.ts'

/**
 * Receive buffer of a UDP socket whose size the user leaves to us, bytes; best effort. A burst of one window overflows the usual default of 208 KiB, and what is lost
 * there looks like loss on the path.
 */
export const UDP_RCVBUF_BYTES = 4 << 20

/**
 * What the configuration asks of the sockets of one kind. Each option that is not in force is logged once for this
 * object.
 * @returns undefined when nothing is asked
 */
export function socketOptionsOf(
  kind: 'tcp' | 'udp',
  config: TcpConfig | Omit<UdpConfig, 'path'>,
  netdev: string | undefined,
  log: Log,
): SocketOptions | undefined {
  const { reuseport, sndbuf } = config
  const isOurs = kind === 'udp' && config.rcvbuf === 0
  const rcvbuf = isOurs ? UDP_RCVBUF_BYTES : config.rcvbuf
  const wanted = { reuseport, sndbuf, rcvbuf, netdev: kind === 'udp' ? (netdev ?? '') : '' }
  if (!reuseport && sndbuf === 0 && rcvbuf === 0 && wanted.netdev === '') return undefined
  const reported = new Set<string>()
  return {
    ...wanted,
    refused(option, why) {
      if (reported.has(option) || (isOurs && option === 'rcvbuf')) return
      reported.add(option)
      const value = wanted[option]
      const key = option === 'netdev' ? option : `${kind}.${option}`
      log.warning(`config key ${key} = ${typeof value === 'string' ? quote(value) : value}: ${why}`)
    },
  }
}
