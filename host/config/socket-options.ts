/** Socket options of the configuration (protocol.md 10.2). */

import { quote } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { SocketOptions } from '../runtime.ts'
import type { Config, TcpConfig, UdpConfig } from './config.ts'

/**
 * Receive buffer of a UDP socket if not configured, bytes; best effort. A burst of one window overflows the usual
 * default of 208 KiB, and datagrams lost there look like loss on the path.
 */
export const UDP_RCVBUF_BYTES = 4 << 20

/** The options of the tunnel's sockets that are not below `udp`. */
const TUNNEL = ['netdev', 'fwmark', 'dscp'] as const

/**
 * The configured options of one kind of socket. The returned object logs each refused option once.
 * @param tunnel what applies to UDP sockets alone
 * @returns undefined if no option is set
 */
export function socketOptionsOf(
  kind: 'tcp' | 'udp',
  config: TcpConfig | Omit<UdpConfig, 'path' | 'gso' | 'gro'>,
  tunnel: Pick<Config, (typeof TUNNEL)[number]> | undefined,
  log: Log,
): SocketOptions | undefined {
  const { reuseport, sndbuf } = config
  const isOurs = kind === 'udp' && config.rcvbuf === 0
  const rcvbuf = isOurs ? UDP_RCVBUF_BYTES : config.rcvbuf
  const { netdev = '', fwmark = 0, dscp = 0 } = (kind === 'udp' && tunnel) || {}
  const wanted = { reuseport, sndbuf, rcvbuf, netdev, fwmark, dscp }
  if (!reuseport && sndbuf === 0 && rcvbuf === 0 && netdev === '' && fwmark === 0 && dscp === 0) return undefined
  const reported = new Set<string>()
  return {
    ...wanted,
    refused(option, why) {
      if (reported.has(option) || (isOurs && option === 'rcvbuf')) return
      reported.add(option)
      const value = wanted[option]
      const key = TUNNEL.some((name) => name === option) ? option : `${kind}.${option}`
      log.warning(`config key ${key} = ${typeof value === 'string' ? quote(value) : value}: ${why}`)
    },
  }
}
