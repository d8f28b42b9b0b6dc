/** What the log says of a UDP socket that was opened. */

import type { Config } from '../config/config.ts'
import { MTU_DEFAULT } from '../config/mtu.ts'
import { SOURCE_SELECTED } from '../config/rules.ts'
import { quote } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { formatAddress, formatAddresses, type SocketAddress } from '../net/address.ts'
import type { UdpOptions, UdpSocket } from '../runtime.ts'
import { isWildcard } from './resolver.ts'

export interface OpenedSocket {
  readonly options: UdpOptions
  readonly socket: UdpSocket
  readonly locals: readonly SocketAddress[]
  /** It replaces another one. */
  readonly again: boolean
  /** Whether the engine searches for the largest datagrams. */
  readonly isSearching: boolean
}

export function logOpened(
  log: Log,
  config: Config,
  { options, socket, locals, again, isSearching }: OpenedSocket,
): void {
  if (again) log.notice('udp socket restart')
  for (const local of formatAddresses(locals)) log.notice(`udp bind: ${local}`)
  if (socket.path !== undefined) log.notice(`udp path: ${socket.path}`)
  if (config.kcp.mtu === undefined && !isSearching) {
    log.notice(`udp mtu: packets of up to ${MTU_DEFAULT} bytes, because this socket cannot test larger ones`)
  }
  const { kcp_bind } = config
  const isSelected = options.replyFromAsked && isWildcard(options.bind) && socket.repliesFromAsked !== true
  if (isSelected && kcp_bind !== undefined && !again) {
    log.notice(`config key kcp_bind = ${quote(kcp_bind)}: ${SOURCE_SELECTED}`)
  }
  if (options.connect !== undefined) log.notice(`udp connect: ${formatAddress(options.connect)}`)
}
