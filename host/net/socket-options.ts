/**
 * Socket options from the configuration to the socket: what a runtime cannot set by its own calls is set by system
 * calls on a socket that is made and bound here, for the runtime to adopt (protocol.md 10.2). An option that is not in
 * force never keeps a socket from opening; it gives one warning.
 */

import type { TcpConfig, UdpConfig } from '../config/config.ts'
import { quote } from '../config/error.ts'
import {
  AF_INET,
  AF_INET6,
  NotAvailable,
  SO_RCVBUF,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SO_SNDBUF,
  SOCK_DGRAM,
  SOCK_STREAM,
  type Sys,
} from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import type { SocketAddress, SocketTuning } from '../runtime.ts'
import { formatAddress } from './address.ts'

/** IFNAMSIZ: a longer name, with its NUL, is no interface's, bytes. */
const NETDEV_BYTES = 16

/**
 * Receive buffer of a UDP socket whose size the user leaves to us, bytes; best effort. A burst of one window overflows the usual default of 208 KiB, and what is lost
 * there looks like loss on the path.
 */
export const UDP_RCVBUF_BYTES = 4 << 20

const BUFFERS = ['sndbuf', 'rcvbuf'] as const
type BufferOption = (typeof BUFFERS)[number]

/** The limit of each buffer on Linux (socket(7)). */
const SYSCTLS = { sndbuf: 'net.core.wmem_max', rcvbuf: 'net.core.rmem_max' } as const
const BUFFER_NAMES = { sndbuf: SO_SNDBUF, rcvbuf: SO_RCVBUF } as const

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * What the configuration asks of the sockets of one kind. Each option that is not in force is logged once for this
 * object.
 * @returns undefined when nothing is asked
 */
export function tuningOf(
  kind: 'tcp' | 'udp',
  config: TcpConfig | Omit<UdpConfig, 'path'>,
  netdev: string | undefined,
  log: Log,
): SocketTuning | undefined {
  const { reuseport, sndbuf } = config
  const isOurs = kind === 'udp' && config.rcvbuf === 0
  const rcvbuf = isOurs ? UDP_RCVBUF_BYTES : config.rcvbuf
  const wanted = { reuseport, sndbuf, rcvbuf, netdev: kind === 'udp' ? (netdev ?? '') : '' }
  if (!reuseport && sndbuf === 0 && rcvbuf === 0 && wanted.netdev === '') return undefined
  const told = new Set<string>()
  return {
    ...wanted,
    refused(option, why) {
      if (told.has(option) || (isOurs && option === 'rcvbuf')) return
      told.add(option)
      const value = wanted[option]
      const key = option === 'netdev' ? option : `${kind}.${option}`
      log.warning(`config key ${key} = ${typeof value === 'string' ? quote(value) : value}: ${why}`)
    },
  }
}

/** How the buffers of an open socket are set and read. */
export interface BufferCalls {
  set(option: BufferOption, bytes: number): void
  /** Bytes that were granted, without the bookkeeping share that Linux adds. */
  get(option: BufferOption): number
}

/** The buffers of a descriptor. The kernel doubles what it grants (socket(7)). */
export function descriptorBuffers(sys: Sys, fd: number): BufferCalls {
  return {
    set: (option, bytes) => sys.setOption(fd, BUFFER_NAMES[option], bytes),
    get: (option) => sys.getOption(fd, BUFFER_NAMES[option]) / 2,
  }
}

/** Sets the buffers that are asked for, reads back what was granted. `open` may throw NotAvailable. Never throws. */
export function tuneBuffers(tuning: SocketTuning, open: () => BufferCalls): void {
  for (const option of BUFFERS) {
    const bytes = tuning[option]
    if (bytes === 0) continue
    try {
      const calls = open()
      calls.set(option, bytes)
      const granted = calls.get(option)
      if (granted < bytes) {
        const name = SYSCTLS[option]
        tuning.refused(option, `the kernel granted only ${granted} bytes; raise it: sysctl -w ${name}=${bytes}`)
      }
    } catch (error) {
      tuning.refused(option, messageOf(error))
    }
  }
}

function tuneDevice(sys: Sys, fd: number, tuning: SocketTuning): void {
  if (tuning.netdev === '') return
  const { length } = new TextEncoder().encode(tuning.netdev)
  if (length >= NETDEV_BYTES) {
    tuning.refused('netdev', `not bound: names of interfaces have at most ${NETDEV_BYTES - 1} bytes`)
    return
  }
  try {
    sys.bindToDevice(fd, tuning.netdev)
  } catch (error) {
    const unknown = error instanceof Error && 'code' in error && error.code === 'ENODEV'
    tuning.refused('netdev', `not bound: ${unknown ? 'no such interface' : messageOf(error)}`)
  }
}

function tuneReuse(sys: Sys, fd: number, tuning: SocketTuning): void {
  if (!tuning.reuseport) return
  try {
    sys.setOption(fd, SO_REUSEPORT, 1)
  } catch (error) {
    tuning.refused('reuseport', messageOf(error))
  }
}

/**
 * Makes, tunes and binds a socket when the tuning needs that to happen before a bind, or hands on the one that it brings.
 * @param ownReuseport the runtime can set SO_REUSEPORT itself, when there are no system calls
 * @returns the descriptor, for the runtime to adopt; undefined: it opens the socket itself
 * @throws the error of bind (EADDRINUSE, ...)
 */
export function openTuned(
  sys: () => Sys,
  kind: 'tcp' | 'udp',
  address: SocketAddress,
  tuning: SocketTuning | undefined,
  ownReuseport: boolean,
): number | undefined {
  if (tuning?.fd !== undefined) return tuning.fd
  if (tuning === undefined || (!tuning.reuseport && tuning.netdev === '' && kind === 'udp')) return undefined
  let calls: Sys
  try {
    calls = sys()
  } catch (error) {
    if (!(error instanceof NotAvailable)) throw error
    if (tuning.reuseport && !ownReuseport) tuning.refused('reuseport', error.message)
    if (tuning.netdev !== '') tuning.refused('netdev', `not bound: ${error.message}`)
    if (kind === 'tcp') {
      for (const option of BUFFERS) if (tuning[option] > 0) tuning.refused(option, error.message)
    }
    return undefined
  }
  return bindTuned(calls, kind, address, tuning)
}

/**
 * A bound socket with what the tuning asks for, or the one that it brings. The buffers of a UDP socket are the caller's.
 * @throws the error of bind (EADDRINUSE, ...)
 */
export function bindTuned(
  calls: Sys,
  kind: 'tcp' | 'udp',
  address: SocketAddress,
  tuning: SocketTuning | undefined,
): number {
  if (tuning?.fd !== undefined) return tuning.fd
  const fd = calls.socket(address.family === 4 ? AF_INET : AF_INET6, kind === 'udp' ? SOCK_DGRAM : SOCK_STREAM)
  try {
    if (kind === 'tcp') calls.setOption(fd, SO_REUSEADDR, 1)
    if (tuning !== undefined) {
      tuneReuse(calls, fd, tuning)
      tuneDevice(calls, fd, tuning)
      // connections inherit the buffers of their listener
      if (kind === 'tcp') tuneBuffers(tuning, () => descriptorBuffers(calls, fd))
    }
    calls.bind(fd, address, formatAddress(address))
    return fd
  } catch (error) {
    calls.close(fd)
    throw error
  }
}

/** The descriptor of a runtime's socket object, where it shows one. */
export function descriptorOf(socket: object | null | undefined): number | undefined {
  const fd: unknown = socket ? Reflect.get(socket, 'fd') : undefined
  return typeof fd === 'number' && fd >= 0 ? fd : undefined
}
