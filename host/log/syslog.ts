/**
 * The system log: one datagram per line to /dev/log, in the local format of RFC 3164 (priority, time, tag with pid,
 * text; no host name). Lines that cannot be sent at once are dropped: a busy log never blocks the tunnel.
 */

import { codeOf } from '../errors.ts'
import { AF_UNIX, SOCK_DGRAM } from '../linux/libc.ts'
import { type Syscalls, syscallsOf } from '../linux/syscalls.ts'
import type { OperatingSystem } from '../runtime.ts'
import { PROGRAM } from '../version.ts'

export const SYSLOG_PATH = '/dev/log'
/** RFC 3164, 4.1.1: facility "user-level messages". */
const FACILITY_USER = 1
/** Severities of RFC 3164 by log level: critical, error, warning, notice, informational, debug. */
const SEVERITIES = [2, 2, 3, 4, 5, 6, 7, 7, 7] as const
const SEVERITY_DEBUG = 7
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'] as const

/** Writes one line; false means that it was dropped because the log is busy. */
export type SyslogWriter = (level: number, text: string) => unknown

/** Formats a record: `<14>Nov  2 11:10:08 kcptun-wasm[123]: text`. */
export function formatRecord(level: number, date: Date, pid: number, text: string): string {
  const severity = SEVERITIES[level] ?? SEVERITY_DEBUG
  const two = (number: number): string => String(number).padStart(2, '0')
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  const day = String(date.getDate()).padStart(2)
  return `<${FACILITY_USER * 8 + severity}>${MONTHS[date.getMonth()]} ${day} ${clock} ${PROGRAM}[${pid}]: ${text}`
}

function connect(syscalls: Syscalls, path: string): number {
  const fd = syscalls.socket(AF_UNIX, SOCK_DGRAM)
  try {
    syscalls.connectUnix(fd, path)
    return fd
  } catch (error) {
    syscalls.close(fd)
    throw error
  }
}

/**
 * Connects to the system log.
 * @throws Error if it is not reachable; NotAvailable without system calls
 */
export function openSyslog(os: OperatingSystem, now: () => Date, path = SYSLOG_PATH): SyslogWriter {
  const syscalls = syscallsOf(os)
  let fd = connect(syscalls, path)
  return (level, text) => {
    const record = new TextEncoder().encode(formatRecord(level, now(), os.pid, text))
    try {
      syscalls.send(fd, record)
    } catch (error) {
      // any other error: it may have been restarted
      if (codeOf(error) === 'EAGAIN') return false
      try {
        const fresh = connect(syscalls, path)
        syscalls.close(fd)
        fd = fresh
        syscalls.send(fd, record)
      } catch {
        // retried with the next line
      }
    }
    return true
  }
}
