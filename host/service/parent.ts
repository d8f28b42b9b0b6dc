/**
 * The process that started this one, as its end is ours. Where system calls are available its descriptor (pidfd_open(2))
 * reports it, and nothing is polled; elsewhere it is looked at every few seconds. A signal at its death
 * (PR_SET_PDEATHSIG) would come already when the thread ends that started this process.
 */

import { messageOf } from '../errors.ts'
import { syscallsOf } from '../linux/syscalls.ts'
import type { Clock, OperatingSystem, Watch } from '../runtime.ts'

/** Interval of polling, ms. */
const POLL_MS = 2000

export interface ParentWatch extends Watch {
  /** Why it is polled; undefined: it is not. */
  readonly polled: string | undefined
}

type Os = Pick<OperatingSystem, 'parentPid' | 'isAlive' | 'libc' | 'watch'>

/**
 * Calls back once when the parent has ended.
 * @param parent its process id, read when this process began
 */
export function watchParent(os: Os, clock: Clock, parent: number, onEnd: () => void): ParentWatch {
  let stop = (): void => {}
  let isOver = false
  const end = (): void => {
    if (isOver) return
    isOver = true
    stop()
    onEnd()
  }
  const isGone = (): boolean => os.parentPid?.() !== parent || os.isAlive?.(parent) === false
  const close = (): void => {
    isOver = true
    stop()
  }
  try {
    const libc = os.libc()
    const fd = libc.pidfd_open(parent, 0)
    if (fd < 0) throw new Error(`pidfd_open ${libc.errorName(libc.errno())}`)
    const watch = os.watch(fd, end)
    stop = () => {
      watch.close()
      syscallsOf(os).close(fd)
    }
    // it may have ended before, and its number may belong to another process
    if (isGone()) clock.defer(end)
    return { polled: undefined, close }
  } catch (error) {
    const poll = (): void => {
      if (isGone()) end()
      else later(POLL_MS)
    }
    const later = (ms: number): void => {
      const timer = clock.setTimer(poll, ms)
      stop = () => clock.clearTimer(timer)
    }
    later(0)
    return { polled: messageOf(error), close }
  }
}
