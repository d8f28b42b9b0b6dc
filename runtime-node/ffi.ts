/**
 * libc by koffi, an optional dependency that is loaded at the first call that needs it, and only on Linux. The typed
 * calls on this table are in host/linux/syscalls.ts.
 */

import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { codeOf, NotAvailable } from '../host/errors.ts'
import { SYS_PIDFD_OPEN } from '../host/linux/libc.ts'
import { type Syscalls, syscallsOf } from '../host/linux/syscalls.ts'
import type { Libc } from '../host/runtime.ts'
import { assertNative } from '../runtime-shared/native.ts'
import { isOneFile } from '../runtime-shared/program.ts'

const require = createRequire(import.meta.url)

const errorNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))
// EAGAIN and EWOULDBLOCK share a number
errorNames.set(constants.errno.EAGAIN, 'EAGAIN')

/** @throws NotAvailable */
export function loadKoffi(): typeof import('koffi') {
  assertNative()
  // other runtimes load the package too, but end the process at its calls of libuv
  const other = ['bun', 'deno'].find((name) => name in process.versions)
  if (other !== undefined) throw new NotAvailable(`not available: this is the build for Node, started by ${other}`)
  if (isOneFile()) throw new NotAvailable('not available: an executable of Node has no native packages')
  try {
    return require('koffi')
  } catch (error) {
    const missing = codeOf(error) === 'MODULE_NOT_FOUND'
    const why = missing ? 'is not installed (npm install koffi)' : `cannot be loaded: ${String(error)}`
    throw new NotAvailable(`not available: the optional package koffi ${why}`)
  }
}

function bindLibc(): Libc {
  const koffi = loadKoffi()
  // null: the libc of this process, glibc or musl
  const c = koffi.load(null)
  const syscall = c.func('long syscall(long, int, uint32_t)')
  return {
    pointerBytes: koffi.sizeof('void *'),
    address: (buffer) => Number(koffi.address(buffer)),
    socket: c.func('int socket(int, int, int)'),
    bind: c.func('int bind(int, uintptr_t, uint32_t)'),
    connect: c.func('int connect(int, uintptr_t, uint32_t)'),
    listen: c.func('int listen(int, int)'),
    setsockopt: c.func('int setsockopt(int, int, int, uintptr_t, uint32_t)'),
    getsockopt: c.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)'),
    getsockname: c.func('int getsockname(int, uintptr_t, uintptr_t)'),
    send: c.func('intptr_t send(int, uintptr_t, size_t, int)'),
    recv: c.func('intptr_t recv(int, uintptr_t, size_t, int)'),
    recvmmsg: c.func('int recvmmsg(int, uintptr_t, uint32_t, int, uintptr_t)'),
    sendmmsg: c.func('int sendmmsg(int, uintptr_t, uint32_t, int)'),
    if_nametoindex: c.func('uint32_t if_nametoindex(uintptr_t)'),
    poll: c.func('int poll(uintptr_t, unsigned long, int)'),
    timerfd_create: c.func('int timerfd_create(int, int)'),
    timerfd_settime: c.func('int timerfd_settime(int, int, uintptr_t, uintptr_t)'),
    pidfd_open: (pid, flags) => syscall(SYS_PIDFD_OPEN, pid, flags),
    fcntl: c.func('int fcntl(int, int, int)'),
    close: c.func('int close(int)'),
    monotonic: () => process.hrtime.bigint(),
    errno: () => koffi.errno(),
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
  loaded ??= bindLibc()
  return loaded
}

/**
 * System calls on this libc.
 * @throws NotAvailable
 */
export const syscalls = (): Syscalls => syscallsOf({ libc })
