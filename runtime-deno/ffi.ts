/**
 * libc by Deno.dlopen, bound at the first call that needs it, and only on Linux. The typed calls on this table are in
 * host/linux/syscalls.ts.
 */

import { constants } from 'node:os'
import { NotAvailable } from '../host/errors.ts'
import { SYS_PIDFD_OPEN } from '../host/linux/libc.ts'
import { type Syscalls, syscallsOf } from '../host/linux/syscalls.ts'
import type { Libc } from '../host/runtime.ts'
import { assertNative } from '../runtime-shared/native.ts'
import { deno } from './deno.ts'

const errorNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))
// EAGAIN and EWOULDBLOCK share a number
errorNames.set(constants.errno.EAGAIN, 'EAGAIN')

const CLOCK_MONOTONIC = 1

/** Deno is built for glibc alone. */
const LIBRARY = 'libc.so.6'

const SYMBOLS = {
  socket: { parameters: ['i32', 'i32', 'i32'], result: 'i32' },
  bind: { parameters: ['i32', 'usize', 'u32'], result: 'i32' },
  connect: { parameters: ['i32', 'usize', 'u32'], result: 'i32' },
  listen: { parameters: ['i32', 'i32'], result: 'i32' },
  setsockopt: { parameters: ['i32', 'i32', 'i32', 'usize', 'u32'], result: 'i32' },
  getsockopt: { parameters: ['i32', 'i32', 'i32', 'usize', 'usize'], result: 'i32' },
  getsockname: { parameters: ['i32', 'usize', 'usize'], result: 'i32' },
  send: { parameters: ['i32', 'usize', 'usize', 'i32'], result: 'isize' },
  recv: { parameters: ['i32', 'usize', 'usize', 'i32'], result: 'isize' },
  recvmmsg: { parameters: ['i32', 'usize', 'u32', 'i32', 'usize'], result: 'i32' },
  sendmmsg: { parameters: ['i32', 'usize', 'u32', 'i32'], result: 'i32' },
  if_nametoindex: { parameters: ['usize'], result: 'u32' },
  poll: { parameters: ['usize', 'usize', 'i32'], result: 'i32' },
  waitFor: { name: 'poll', parameters: ['usize', 'usize', 'i32'], result: 'i32', nonblocking: true },
  eventfd: { parameters: ['u32', 'i32'], result: 'i32' },
  eventfd_write: { parameters: ['i32', 'usize'], result: 'i32' },
  timerfd_create: { parameters: ['i32', 'i32'], result: 'i32' },
  timerfd_settime: { parameters: ['i32', 'i32', 'usize', 'usize'], result: 'i32' },
  syscall: { parameters: ['isize', 'i32', 'u32'], result: 'isize' },
  fcntl: { parameters: ['i32', 'i32', 'i32'], result: 'i32' },
  clock_gettime: { parameters: ['i32', 'usize'], result: 'i32' },
  close: { parameters: ['i32'], result: 'i32' },
  setgroups: { parameters: ['usize', 'usize'], result: 'i32' },
  initgroups: { parameters: ['usize', 'u32'], result: 'i32' },
  __errno_location: { parameters: [], result: 'pointer' },
} as const

/** Libc, and the calls that watches and the identity need. */
export interface DenoLibc extends Libc {
  /** poll(2) on a thread of its own, without a time limit. */
  waitFor(descriptors: number, count: number): Promise<number>
  eventfd(): number
  eventfdWrite(fd: number): void
  setgroups(groups: readonly number[]): number
  initgroups(user: string, group: number): number
}

/** Why functions cannot be bound; undefined if they can. Does not make Deno ask for the permission. */
export function ffiRefusal(): string | undefined {
  const { state } = deno.permissions.querySync({ name: 'ffi' })
  return state === 'granted' ? undefined : 'not available: Deno was started without --allow-ffi'
}

/** Address of a buffer. */
export const addressOf = (bytes: Uint8Array<ArrayBuffer>): number =>
  Number(deno.UnsafePointer.value(deno.UnsafePointer.of(bytes)))

function open() {
  try {
    return deno.dlopen(LIBRARY, SYMBOLS).symbols
  } catch (error) {
    throw new NotAvailable(`not available: libc cannot be bound: ${String(error)}`)
  }
}

function bindLibc(): DenoLibc {
  const c = open()
  // that of the thread which makes all calls
  const errno = new Int32Array(deno.UnsafePointerView.getArrayBuffer(c.__errno_location(), 4))
  const time = new BigInt64Array(2)
  const timeAt = addressOf(new Uint8Array(time.buffer))
  return {
    // Deno does not support 32-bit systems
    pointerBytes: 8,
    address: (buffer) => addressOf(new Uint8Array(buffer)),
    socket: c.socket,
    bind: c.bind,
    connect: c.connect,
    listen: c.listen,
    setsockopt: c.setsockopt,
    getsockopt: c.getsockopt,
    getsockname: c.getsockname,
    send: (fd, data, length, flags) => Number(c.send(fd, data, length, flags)),
    recv: (fd, data, length, flags) => Number(c.recv(fd, data, length, flags)),
    recvmmsg: c.recvmmsg,
    sendmmsg: c.sendmmsg,
    if_nametoindex: c.if_nametoindex,
    poll: c.poll,
    timerfd_create: c.timerfd_create,
    timerfd_settime: c.timerfd_settime,
    pidfd_open: (pid, flags) => Number(c.syscall(SYS_PIDFD_OPEN, pid, flags)),
    fcntl: c.fcntl,
    close: c.close,
    monotonic() {
      // process.hrtime starts at 0 in Deno, so it is not the system's clock
      c.clock_gettime(CLOCK_MONOTONIC, timeAt)
      return (time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n)
    },
    errno: () => errno[0] ?? 0,
    errorName: (number) => errorNames.get(number) ?? `errno ${number}`,
    waitFor: (descriptors, count) => c.waitFor(descriptors, count, -1),
    eventfd: () => c.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
    eventfdWrite: (fd) => void c.eventfd_write(fd, 1),
    setgroups(groups) {
      const numbers = Uint32Array.from(groups)
      return c.setgroups(groups.length, groups.length === 0 ? 0 : addressOf(new Uint8Array(numbers.buffer)))
    },
    initgroups: (user, group) => c.initgroups(addressOf(new TextEncoder().encode(`${user}\0`)), group),
  }
}

const EFD_CLOEXEC = 0o2000000
const EFD_NONBLOCK = 0o4000

let loaded: DenoLibc | undefined

/**
 * libc, bound at first use.
 * @throws NotAvailable
 */
export function libc(): DenoLibc {
  if (process.platform !== 'linux') throw new NotAvailable('not available: only on Linux')
  assertNative()
  if (loaded === undefined) {
    const why = ffiRefusal()
    if (why !== undefined) throw new NotAvailable(why)
    loaded = bindLibc()
  }
  return loaded
}

/**
 * System calls on this libc.
 * @throws NotAvailable
 */
export const syscalls = (): Syscalls => syscallsOf({ libc })
