/**
 * Watches what the operating system reports by itself: changes of interfaces and addresses (rtnetlink(7)), and steps of
 * the wall clock, which it makes when the machine resumes from a suspension (timerfd_create(2)). Nothing is polled.
 */

import { messageOf } from '../errors.ts'
import type { Libc, OperatingSystem, Watch } from '../runtime.ts'
import { SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './libc.ts'
import { syscallsOf } from './syscalls.ts'

const AF_NETLINK = 16
/** RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR */
const INTERFACE_GROUPS = 0x1 | 0x10 | 0x100
/** Size of struct sockaddr_nl, and its member nl_groups. */
const SOCKADDR_NL_BYTES = 12
const NL_GROUPS = 8

const CLOCK_REALTIME = 0
const TFD_TIMER_ABSTIME = 1
/** The timer also becomes readable when the clock is set, and when the machine resumes. */
const TFD_TIMER_CANCEL_ON_SET = 2
/** Size of struct itimerspec, and its member it_value.tv_sec. */
const ITIMERSPEC_BYTES = 32
const VALUE_SECONDS = 16
/** An expiration that is never reached, seconds since 1970. */
const NEVER_S = 2 ** 40

type Os = Pick<OperatingSystem, 'libc' | 'watch'>

/** Watches a new descriptor, and closes it with the watch. */
function own(os: Os, fd: number, set: () => void, onReadable: () => void): Watch {
  const syscalls = syscallsOf(os)
  try {
    set()
    const watch = os.watch(fd, onReadable)
    return {
      keepAlive: (isKept) => watch.keepAlive?.(isKept),
      close() {
        watch.close()
        syscalls.close(fd)
      },
    }
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}

function check(libc: Libc, call: string, result: number): number {
  if (result < 0) throw new Error(`${call} ${libc.errorName(libc.errno())}`)
  return result
}

export interface SystemHandlers {
  /** Interfaces or their addresses changed. */
  onInterfaces(): void
  /** The wall clock was set, or the machine resumed. */
  onClock(): void
  /** `what` cannot be watched here. */
  onMissing(what: string, reason: string): void
}

/** Watches both, as far as the system permits it. */
export function watchSystem(os: Os, handlers: SystemHandlers): Watch {
  const watches: Watch[] = []
  const begin = (what: string, watch: () => Watch): void => {
    try {
      watches.push(watch())
    } catch (error) {
      handlers.onMissing(what, messageOf(error))
    }
  }
  begin('interfaces are', () => watchInterfaces(os, handlers.onInterfaces))
  begin('the wall clock is', () => watchClock(os, handlers.onClock))
  return {
    keepAlive(isKept) {
      for (const watch of watches) watch.keepAlive?.(isKept)
    },
    close() {
      for (const watch of watches) watch.close()
    },
  }
}

/**
 * Calls back when interfaces or their addresses change; what changed is for the callback to find out.
 * @throws NotAvailable, or the error of a call that a sandbox refuses
 */
export function watchInterfaces(os: Os, onChange: () => void): Watch {
  const libc = os.libc()
  const syscalls = syscallsOf(os)
  const fd = syscalls.socket(AF_NETLINK, SOCK_RAW)
  const address = new DataView(new ArrayBuffer(SOCKADDR_NL_BYTES))
  address.setUint16(0, AF_NETLINK, syscalls.littleEndian)
  address.setUint32(NL_GROUPS, INTERFACE_GROUPS, syscalls.littleEndian)
  const bind = (): void =>
    void check(libc, 'bind rtnetlink', libc.bind(fd, libc.address(address.buffer), SOCKADDR_NL_BYTES))
  return own(os, fd, bind, () => {
    try {
      while (syscalls.receive(fd) !== undefined);
    } catch {
      // ENOBUFS: there were more messages than fit
    }
    onChange()
  })
}

/**
 * Calls back when the wall clock was set or the machine resumed.
 * @param expiry when the timer expires, which also calls back; seconds since 1970
 * @throws NotAvailable, or the error of a call that a sandbox refuses
 */
export function watchClock(os: Os, onStep: () => void, expiry = NEVER_S): Watch {
  const libc = os.libc()
  const time = new DataView(new ArrayBuffer(ITIMERSPEC_BYTES))
  let current: Watch | undefined
  let isKept = true
  const open = (seconds: number): Watch => {
    const fd = check(libc, 'timerfd_create', libc.timerfd_create(CLOCK_REALTIME, SOCK_NONBLOCK | SOCK_CLOEXEC))
    const set = (): void => {
      time.setBigInt64(VALUE_SECONDS, BigInt(seconds), syscallsOf(os).littleEndian)
      const flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
      check(libc, 'timerfd_settime', libc.timerfd_settime(fd, flags, libc.address(time.buffer), 0))
    }
    return own(os, fd, set, onReadable)
  }
  const onReadable = (): void => {
    // a cancelled timer is replaced; without descriptors the watch ends
    current?.close()
    current = undefined
    try {
      current = open(NEVER_S)
      if (!isKept) current.keepAlive?.(false)
    } finally {
      onStep()
    }
  }
  current = open(expiry)
  return {
    keepAlive: (isWanted) => {
      isKept = isWanted
      current?.keepAlive?.(isKept)
    },
    close: () => current?.close(),
  }
}
