/** The limit of the address space of this process: ulimit -v, or LimitAS= of systemd. */

import type { OperatingSystem } from '../runtime.ts'

const LIMITS = '/proc/self/limits'

/** @returns the limit in KiB; undefined if there is none, or it is unknown */
export function addressSpaceLimit(os: Pick<OperatingSystem, 'readText'> | undefined): number | undefined {
  try {
    const [, bytes] = /^Max address space +(\d+)/m.exec(os?.readText(LIMITS) ?? '') ?? []
    return bytes === undefined ? undefined : Math.floor(Number(bytes) / 1024)
  } catch {
    return undefined
  }
}

/** What to do about a limit. */
export const RAISE_LIMIT = 'ulimit -v unlimited, LimitAS=infinity of systemd'

/** A process under a higher limit, KiB, aborts for other reasons. */
const SCANT_KIB = 2_000_000

/** How the runtimes end when they get no memory: they abort. */
const ABORTS = /SIG(ABRT|ILL|SEGV|TRAP|BUS)/

/** @returns what a process that ended like that may have lacked, to append to how it ended; '' if nothing is known */
export function limitHint(os: Pick<OperatingSystem, 'readText'> | undefined, how: string): string {
  const limit = ABORTS.test(how) ? addressSpaceLimit(os) : undefined
  return limit === undefined || limit > SCANT_KIB
    ? ''
    : `; the address space is limited to ${limit} KiB: raise the limit (${RAISE_LIMIT})`
}
