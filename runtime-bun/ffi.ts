/**
 * libc by bun:ffi, bound at the first call that needs it, and only on Linux. The typed calls on this table are in
 * host/linux/syscalls.ts.
 */

import { dlopen, type Pointer, ptr, read } from 'bun:ffi'
import { constants } from 'node:os'
import { NotAvailable } from '../host/errors.ts'
import { SYS_PIDFD_OPEN } from '../host/linux/libc.ts'
import { type Syscalls, syscallsOf } from '../host/linux/syscalls.ts'
import type { Libc } from '../host/runtime.ts'
import { assertNative } from '../runtime-shared/native.ts'

const errorNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))
// EAGAIN and EWOULDBLOCK share a number
errorNames.set(constants.errno.EAGAIN, 'EAGAIN')

const CLOCK_MONOTONIC = 1

/** Library names of glibc and of musl, which contains the architecture. */
const MACHINES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' }
const LIBRARIES = ['libc.so.6', `libc.musl-${MACHINES[process.arch] ?? process.arch}.so.1`]

const SYMBOLS = {
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  bind: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  listen: { args: ['i32', 'i32'], returns: 'i32' },
  setsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'u32'], returns: 'i32' },
  getsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  getsockname: { args: ['i32', 'ptr', 'ptr'], returns: 'i32' },
  send: { args: ['i32', 'ptr', 'i64', 'i32'], returns: 'i64' },
  recv: { args: ['i32', 'ptr', 'i64', 'i32'], returns: 'i64' },
  recvmmsg: { args: ['i32', 'ptr', 'u32', 'i32', 'ptr'], returns: 'i32' },
  sendmmsg: { args: ['i32', 'ptr', 'u32', 'i32'], returns: 'i32' },
  if_nametoindex: { args: ['ptr'], returns: 'u32' },
  poll: { args: ['ptr', 'u64', 'i32'], returns: 'i32' },
  timerfd_create: { args: ['i32', 'i32'], returns: 'i32' },
  timerfd_settime: { args: ['i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  syscall: { args: ['i64', 'i32', 'u32'], returns: 'i64' },
  fcntl: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  clock_gettime: { args: ['i32', 'ptr'], returns: 'i32' },
  close: { args: ['i32'], returns: 'i32' },
  __errno_location: { args: [], returns: 'ptr' },
} as const

function open() {
  let reason: unknown
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS).symbols
    } catch (error) {
      reason ??= error
    }
  }
  throw new NotAvailable(`not available: libc cannot be bound: ${String(reason)}`)
}

function bindLibc(): Libc {
  const c = open()
  // Bun's pointer type differs from number only for the type checker
  const at = (address: number): Pointer => address as Pointer
  const location = c.__errno_location()
  const time = new BigInt64Array(2)
  return {
    // Bun does not support 32-bit systems
    pointerBytes: 8,
    address: (buffer) => ptr(buffer),
    socket: c.socket,
    bind: (fd, address, length) => c.bind(fd, at(address), length),
    connect: (fd, address, length) => c.connect(fd, at(address), length),
    listen: c.listen,
    setsockopt: (fd, level, name, value, length) => c.setsockopt(fd, level, name, at(value), length),
    getsockopt: (fd, level, name, value, length) => c.getsockopt(fd, level, name, at(value), at(length)),
    getsockname: (fd, address, length) => c.getsockname(fd, at(address), at(length)),
    send: (fd, data, length, flags) => Number(c.send(fd, at(data), length, flags)),
    recv: (fd, data, length, flags) => Number(c.recv(fd, at(data), length, flags)),
    recvmmsg: (fd, messages, count, flags, timeout) => c.recvmmsg(fd, at(messages), count, flags, at(timeout)),
    sendmmsg: (fd, messages, count, flags) => c.sendmmsg(fd, at(messages), count, flags),
    if_nametoindex: (name) => c.if_nametoindex(at(name)),
    poll: (descriptors, count, timeout) => c.poll(at(descriptors), count, timeout),
    timerfd_create: c.timerfd_create,
    timerfd_settime: (fd, flags, value, old) => c.timerfd_settime(fd, flags, at(value), at(old)),
    pidfd_open: (pid, flags) => Number(c.syscall(SYS_PIDFD_OPEN, pid, flags)),
    fcntl: c.fcntl,
    close: c.close,
    monotonic() {
      // process.hrtime starts at 0 in Bun, so it is not the system's clock
      c.clock_gettime(CLOCK_MONOTONIC, ptr(time))
      return (time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n)
    },
    errno: () => (location === null ? 0 : read.i32(location, 0)),
    errorName: (errno) => errorNames.get(errno) ?? `errno ${errno}`,
  }
}

let loaded: Libc | undefined

/**
 * libc, bound at first use.
 * @throws NotAvailable
 */
export function libc(): Libc {
  if (process.platform !== 'linux') throw new NotAvailable('not available: only on Linux')
  assertNative()
  loaded ??= bindLibc()
  return loaded
}

/**
 * System calls on this libc.
 * @throws NotAvailable
 */
export const syscalls = (): Syscalls => syscallsOf({ libc })

/** Bun.connect options that adopt a descriptor. Bun's type declarations lack them; the other keys are ignored. */
export function descriptor(fd: number): { fd: number; hostname: string; port: number } {
  return { fd, hostname: '', port: 0 }
}
