/**
 * Notifies the service manager of state changes (sd_notify(3)): one datagram of `KEY=value` lines to the socket in
 * $NOTIFY_SOCKET. Does nothing if the variable is not set.
 */

import { messageOf } from '../errors.ts'
import { AF_UNIX, SOCK_DGRAM } from '../linux/libc.ts'
import { syscallsOf } from '../linux/syscalls.ts'
import type { Log } from '../log/log.ts'
import type { OperatingSystem } from '../runtime.ts'

const VARIABLE = 'NOTIFY_SOCKET'

export class ServiceNotifier {
  readonly #os: OperatingSystem | undefined
  readonly #log: Log
  readonly #path: string | undefined
  #warned = false

  constructor(os: OperatingSystem | undefined, log: Log) {
    this.#os = os
    this.#log = log
    this.#path = os?.env(VARIABLE) || undefined
  }

  /**
   * Reports that startup or a reload is complete. The pid is needed if this is not the process started (-d).
   * @param status what is retried; empty: nothing
   */
  ready(status = ''): void {
    this.#tell(() => `READY=1\n${status === '' ? '' : `STATUS=retrying: ${status}\n`}MAINPID=${this.#os?.pid}`)
  }

  /** Reports a change of what is retried; empty: nothing. */
  status(status: string): void {
    this.#tell(() => `STATUS=${status === '' ? 'running' : `retrying: ${status}`}`)
  }

  /** Reports the start of a reload; ready() reports its end. */
  reloading(): void {
    // required by Type=notify-reload to order messages
    this.#tell((microseconds) => `RELOADING=1\nMONOTONIC_USEC=${microseconds()}`)
  }

  /** Reports that the program is stopping. */
  stopping(): void {
    this.#tell(() => 'STOPPING=1')
  }

  #tell(message: (microseconds: () => bigint) => string): void {
    if (this.#os === undefined || this.#path === undefined) return
    try {
      const syscalls = syscallsOf(this.#os)
      const fd = syscalls.socket(AF_UNIX, SOCK_DGRAM)
      try {
        syscalls.connectUnix(fd, this.#path)
        syscalls.send(fd, new TextEncoder().encode(message(() => syscalls.monotonicMicroseconds())))
      } finally {
        syscalls.close(fd)
      }
    } catch (error) {
      if (this.#warned) return
      this.#warned = true
      const why = messageOf(error)
      this.#log.warning(`cannot notify the service manager (${VARIABLE}): ${why}`)
    }
  }
}
