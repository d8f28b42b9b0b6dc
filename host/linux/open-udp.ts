/** Opens UDP sockets: on batched system calls if they are available and requested, else those of the runtime. */

import { NotAvailable } from '../errors.ts'
import { isWildcardHost, type SocketAddress } from '../net/address.ts'
import type { Runtime, UdpHandlers, UdpOptions, UdpSocket } from '../runtime.ts'
import { FastUdpSocket } from './batched-udp.ts'
import type { FastCalls } from './fast-calls.ts'
import { IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_RECVPKTINFO, SOL_UDP, UDP_GRO, UDP_SEGMENT } from './libc.ts'
import { LocalAddresses } from './local-addresses.ts'
import { applyBuffers, bindWithOptions, descriptorBuffers } from './socket-options.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/**
 * Checks that the batch calls are permitted (a sandbox may forbid them).
 * @throws NotAvailable
 */
function checkBatches(syscalls: Syscalls, fd: number): void {
  for (const call of ['recvmmsg', 'sendmmsg'] as const) {
    // without messages the call leaves waiting datagrams alone
    const result = syscalls[call](fd, 0, 0)
    if (result < 0) throw new NotAvailable(`not available: ${call} ${syscalls.errorName(-result)}`)
  }
}

/** Sets a UDP option; returns whether the system supports it. */
function tryOption(set: () => void): boolean {
  try {
    set()
    return true
  } catch {
    return false
  }
}

/** Requests the local addresses of datagrams; undefined where the socket has only one, or the system does not tell. */
function localsOf(
  syscalls: Syscalls,
  fd: number,
  bind: SocketAddress,
  connect: SocketAddress | undefined,
): LocalAddresses | undefined {
  if (connect !== undefined || !isWildcardHost(bind.address)) return undefined
  const level = bind.family === 4 ? IPPROTO_IP : IPPROTO_IPV6
  const option = bind.family === 4 ? IP_PKTINFO : IPV6_RECVPKTINFO
  return tryOption(() => syscalls.setOption(fd, option, 1, level)) ? new LocalAddresses(bind.family) : undefined
}

/**
 * Binds a UDP socket by system calls, and connects it if `options.connect` is given.
 * @throws NotAvailable, or the error of bind or connect (EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH, ...)
 */
export function openFastUdp(calls: FastCalls, options: UdpOptions, handlers: UdpHandlers): UdpSocket {
  const syscalls = syscallsOf(calls)
  syscalls.checkLayout()
  const { bind, connect, socketOptions } = options
  const fd = bindWithOptions(syscalls, 'udp', bind, socketOptions)
  try {
    if (socketOptions !== undefined) applyBuffers(socketOptions, () => descriptorBuffers(syscalls, fd))
    if (connect !== undefined) syscalls.connect(fd, connect)
    checkBatches(syscalls, fd)
    const gro = options.gro !== false && tryOption(() => syscalls.setOption(fd, UDP_GRO, 1, SOL_UDP))
    // a kernel without it would send a run as one datagram
    const gso = options.gso !== false && tryOption(() => syscalls.getOption(fd, UDP_SEGMENT, SOL_UDP))
    const locals = options.replyFromAsked === true ? localsOf(syscalls, fd, bind, connect) : undefined
    return new FastUdpSocket(calls, fd, { gro, gso, locals }, options, handlers)
  } catch (error) {
    // an adopted socket stays open for the portable mode
    if (fd !== socketOptions?.fd) syscalls.close(fd)
    throw error
  }
}

/** Runtime.openUdp: batched system calls in mode `fast`, or in mode `auto` if available; else `portable`. */
export function openUdpByMode(calls: FastCalls, portable: Runtime['openUdp']): Runtime['openUdp'] {
  return async (options, handlers) => {
    let path = 'portable'
    if (options.path !== undefined && options.path !== 'portable') {
      try {
        return openFastUdp(calls, options, handlers)
      } catch (error) {
        if (options.path === 'fast' || !(error instanceof NotAvailable)) throw error
        path += ` (fast: ${error.message})`
      }
    }
    return Object.assign(await portable(options, handlers), { path })
  }
}
