/** What the batched UDP socket requires of a runtime and of the system. */

import type { Clock, Libc, Watch } from '../runtime.ts'
import type { LocalAddresses } from './local-addresses.ts'

/** What system and socket support. */
export interface Features {
  readonly gro: boolean
  readonly gso: boolean
  /** Undefined: the system selects the source of all datagrams. */
  readonly locals: LocalAddresses | undefined
}

/** Runtime services that a fast socket requires. */
export interface FastCalls {
  readonly clock: Clock
  libc(): Libc
  /** Like OperatingSystem.watch, but reads nothing. May not report data that a callback left unread. */
  watch(fd: number, onReadable: () => void): Watch
}
