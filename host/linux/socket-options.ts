/**
 * Sets socket options that a runtime's own calls cannot set. The socket is created and bound here by system calls, for
 * the runtime to adopt (protocol.md 10.2). An option that cannot be applied does not prevent the socket from opening;
 * it causes one warning.
 */

import { codeOf, messageOf, NotAvailable } from '../errors.ts'
import { formatAddress, type SocketAddress } from '../net/address.ts'
import type { Libc, SocketOptions } from '../runtime.ts'
import {
  AF_INET,
  AF_INET6,
  IP_TOS,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_TCLASS,
  IPV6_V6ONLY,
  SO_MARK,
  SO_RCVBUF,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SO_SNDBUF,
  SOCK_DGRAM,
  SOCK_STREAM,
} from './libc.ts'
import { type Syscalls, syscallsOf } from './syscalls.ts'

/** IFNAMSIZ: size of an interface name with its NUL, bytes. */
const NETDEV_BYTES = 16

const BUFFERS = ['sndbuf', 'rcvbuf'] as const
type BufferOption = (typeof BUFFERS)[number]

/** Sysctl that limits each buffer on Linux (socket(7)). */
const SYSCTLS = { sndbuf: 'net.core.wmem_max', rcvbuf: 'net.core.rmem_max' } as const
const BUFFER_NAMES = { sndbuf: SO_SNDBUF, rcvbuf: SO_RCVBUF } as const

/** Calls that set and read the buffers of an open socket. */
export interface BufferCalls {
  set(option: BufferOption, bytes: number): void
  /** Granted bytes, without the share that Linux adds for bookkeeping. */
  get(option: BufferOption): number
}

/** Buffer calls for a descriptor. The kernel doubles the value it grants (socket(7)). */
export function descriptorBuffers(syscalls: Syscalls, fd: number): BufferCalls {
  return {
    set: (option, bytes) => syscalls.setOption(fd, BUFFER_NAMES[option], bytes),
    get: (option) => syscalls.getOption(fd, BUFFER_NAMES[option]) / 2,
  }
}

/** Sets the requested buffers and verifies the granted sizes. `open` may throw NotAvailable. Never throws. */
export function applyBuffers(options: SocketOptions, open: () => BufferCalls): void {
  for (const option of BUFFERS) {
    const bytes = options[option]
    if (bytes === 0) continue
    try {
      const calls = open()
      calls.set(option, bytes)
      const granted = calls.get(option)
      if (granted < bytes) {
        const name = SYSCTLS[option]
        options.refused(option, `the kernel granted only ${granted} bytes; raise it: sysctl -w ${name}=${bytes}`)
      }
    } catch (error) {
      options.refused(option, messageOf(error))
    }
  }
}

function applyDevice(syscalls: Syscalls, fd: number, options: SocketOptions): void {
  if (options.netdev === '') return
  const { length } = new TextEncoder().encode(options.netdev)
  if (length >= NETDEV_BYTES) {
    options.refused('netdev', `not bound: interface names have at most ${NETDEV_BYTES - 1} bytes`)
    return
  }
  try {
    syscalls.bindToDevice(fd, options.netdev)
  } catch (error) {
    const unknown = codeOf(error) === 'ENODEV'
    options.refused('netdev', `not bound: ${unknown ? 'no such interface' : messageOf(error)}`)
  }
}

/** Bits of the traffic class below the code point: ECN. */
const ECN_BITS = 2

/** Sets the mark, also of a raw or TCP socket. Never throws. */
export function applyMark(syscalls: Syscalls, fd: number, fwmark: number, refused: (why: string) => void): void {
  if (fwmark === 0) return
  try {
    syscalls.setOption(fd, SO_MARK, fwmark | 0)
  } catch (error) {
    const denied = codeOf(error) === 'EPERM'
    refused(`packets are not marked: ${denied ? 'not permitted, requires CAP_NET_ADMIN' : messageOf(error)}`)
  }
}

function applyDscp(syscalls: Syscalls, fd: number, family: 4 | 6, options: SocketOptions): void {
  const { dscp = 0 } = options
  if (dscp === 0) return
  try {
    // an IPv6 socket sends to IPv4 peers too
    syscalls.setOption(fd, IP_TOS, dscp << ECN_BITS, IPPROTO_IP)
    if (family === 6) syscalls.setOption(fd, IPV6_TCLASS, dscp << ECN_BITS, IPPROTO_IPV6)
  } catch (error) {
    options.refused('dscp', messageOf(error))
  }
}

/** Whether a UDP socket must be opened by system calls. */
const needsSystemCalls = ({ reuseport, netdev, fwmark = 0, dscp = 0 }: SocketOptions): boolean =>
  reuseport || netdev !== '' || fwmark !== 0 || dscp !== 0

function applyReuseport(syscalls: Syscalls, fd: number, options: SocketOptions): void {
  if (!options.reuseport) return
  try {
    syscalls.setOption(fd, SO_REUSEPORT, 1)
  } catch (error) {
    options.refused('reuseport', messageOf(error))
  }
}

/**
 * Creates and binds a socket if the options must be set before bind, or returns the descriptor in the options.
 * @param ownReuseport the runtime can set SO_REUSEPORT itself if system calls are not available
 * @param ownBuffers the runtime can set the buffers itself, or the caller does
 * @returns the descriptor for the runtime to adopt; undefined: the runtime opens the socket itself
 * @throws the error of bind (EADDRINUSE, ...)
 */
export function openWithOptions(
  syscalls: () => Syscalls,
  kind: 'tcp' | 'udp',
  address: SocketAddress,
  options: SocketOptions | undefined,
  ownReuseport: boolean,
  ownBuffers = kind === 'udp',
): number | undefined {
  if (options?.fd !== undefined) return options.fd
  if (options === undefined || (ownBuffers && !needsSystemCalls(options))) return undefined
  let calls: Syscalls
  try {
    calls = syscalls()
  } catch (error) {
    if (!(error instanceof NotAvailable)) throw error
    if (options.reuseport && !ownReuseport) options.refused('reuseport', error.message)
    if (options.netdev !== '') options.refused('netdev', `not bound: ${error.message}`)
    for (const option of ['fwmark', 'dscp'] as const) if (options[option]) options.refused(option, error.message)
    if (!ownBuffers) {
      for (const option of BUFFERS) if (options[option] > 0) options.refused(option, error.message)
    }
    return undefined
  }
  return bindWithOptions(calls, kind, address, options)
}

/**
 * Creates and binds a socket with the given options, or returns the descriptor in the options. The caller sets the
 * buffers of a UDP socket.
 * @throws the error of bind (EADDRINUSE, ...)
 */
export function bindWithOptions(
  calls: Syscalls,
  kind: 'tcp' | 'udp',
  address: SocketAddress,
  options: SocketOptions | undefined,
): number {
  if (options?.fd !== undefined) return options.fd
  const fd = calls.socket(address.family === 4 ? AF_INET : AF_INET6, kind === 'udp' ? SOCK_DGRAM : SOCK_STREAM)
  try {
    // the system's default (net.ipv6.bindv6only) must not decide whether [::] serves IPv4
    if (address.family === 6) calls.setOption(fd, IPV6_V6ONLY, 0, IPPROTO_IPV6)
    if (kind === 'tcp') calls.setOption(fd, SO_REUSEADDR, 1)
    if (options !== undefined) {
      applyReuseport(calls, fd, options)
      applyDevice(calls, fd, options)
      applyMark(calls, fd, options.fwmark ?? 0, (why) => options.refused('fwmark', why))
      applyDscp(calls, fd, address.family, options)
      // connections inherit the buffers of the listener
      if (kind === 'tcp') applyBuffers(options, () => descriptorBuffers(calls, fd))
    }
    calls.bind(fd, address, formatAddress(address))
    return fd
  } catch (error) {
    calls.close(fd)
    throw error
  }
}

/** Index of the interface `netdev`; 0 if it is not set, does not exist or cannot be looked up. */
export function deviceIndex(os: { libc(): Libc } | undefined, netdev: string | undefined): number {
  if (os === undefined || netdev === undefined || netdev === '') return 0
  try {
    return syscallsOf(os).interfaceIndex(netdev)
  } catch {
    return 0
  }
}

/** Descriptor of a runtime's socket object, if exposed. */
export function descriptorOf(socket: object | null | undefined): number | undefined {
  const fd: unknown = socket ? Reflect.get(socket, 'fd') : undefined
  return typeof fd === 'number' && fd >= 0 ? fd : undefined
}
