/**
 * The identity of the process. Deno has neither setgroups nor initgroups: libc does both, for all threads (glibc), as
 * its setuid and setgid do.
 */
import { systemError } from '../host/errors.ts'
import type { IdentityCalls } from '../host/runtime.ts'
import { type DenoLibc, libc } from './ffi.ts'

function check(calls: DenoLibc, name: string, result: number): void {
  if (result === 0) return
  const code = calls.errorName(calls.errno())
  throw systemError(code, name, name)
}

function setgroups(groups: readonly number[]): void {
  const calls = libc()
  check(calls, 'setgroups', calls.setgroups(groups))
}

function initgroups(user: string | number, group: string | number): void {
  if (typeof group !== 'number') throw systemError('EINVAL', `initgroups: ${group} is not a number`, 'initgroups')
  const calls = libc()
  check(calls, 'initgroups', calls.initgroups(String(user), group))
}

/** Undefined on Windows. */
export function identityCalls(): IdentityCalls | undefined {
  const { getuid, geteuid, getgid, setgid, setuid } = process
  if (!getuid || !geteuid || !getgid || !setgid || !setuid) return undefined
  return { getuid, geteuid, getgid, setgroups, initgroups, setgid, setuid }
}
