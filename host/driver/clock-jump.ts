/** What follows a jump of the wall clock, which engine/clock-jump.ts finds. */

import type { Core } from '../engine/core.ts'
import { formatDuration } from '../format.ts'
import type { Log } from '../log/log.ts'

/** A wall clock that jumps ahead by more than this, ms: the machine was suspended. */
const SUSPENDED_MS = 5000

/** The part of the driver that a jump concerns. */
export interface ClockHost {
  readonly core: Core
  readonly log: Log
  /** Current time of the engine's clock. */
  now(): number
}

/**
 * The clock jumped by `ms`. The engine has fresh random bytes.
 * @returns whether the machine was suspended
 */
export function onClockJump(host: ClockHost, ms: number): boolean {
  const { core, log } = host
  log.info(`the clock jumped by ${formatDuration(ms)}: regenerating random bytes and nonces`)
  if (ms < SUSPENDED_MS) return false
  log.notice(`the machine was suspended for ${formatDuration(ms)}: probing the peer and all sessions`)
  core.calls.probe_sessions(host.now())
  core.refresh()
  return true
}
