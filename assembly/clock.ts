/*
 * The engine's clock: u32 ticks that wrap, their arithmetic, and the same time in 64 bits.
 *
 * Deadlines are computed relative to `now`, because the clock wraps: a function named ...Deadline returns the ticks
 * left until its deadline, 0 if that has passed, NEVER if there is none.
 */

import { MAX_SLEEP_TICKS, TICKS_PER_SECOND } from './abi'
import { ElapsedTicks, Seconds, Ticks } from './units'

/** "No time": later than any other. */
export const NEVER: Ticks = 0xffffffff

/** @returns ticks from `now` until `time`, 0 if it has passed */
export function ticksUntil(time: Ticks, now: Ticks): Ticks {
  const ticks = <i32>(time - now)
  return ticks > 0 ? ticks : 0
}

/**
 * @returns ticks left of a period of `limit` ticks that began at `since`; the period may be longer than half the range
 *   of the clock
 */
export function remaining(since: Ticks, limit: Ticks, now: Ticks): Ticks {
  const age = now - since
  return age >= limit ? 0 : limit - age
}

let ticks: ElapsedTicks = 0
let lastNow: Ticks = 0

/** Starts the clock; to be called once, before `advanceClock`. */
export function startClock(now: Ticks): void {
  lastNow = now
}

/**
 * Advances the clock to the time of a call.
 * @returns true if the host was suspended for so long that deadlines may be on the wrong side of the wrap
 */
export function advanceClock(now: Ticks): bool {
  const step = now - lastNow
  ticks += step
  lastNow = now
  return step > 2 * MAX_SLEEP_TICKS
}

/** @returns the time of the last call */
export function latestTime(): Ticks {
  return lastNow
}

/** @returns ticks since the endpoint started, without wrap */
export function elapsed(): ElapsedTicks {
  return ticks
}

/** @returns seconds since the endpoint started */
export function seconds(): Seconds {
  return <u32>(ticks / TICKS_PER_SECOND)
}
