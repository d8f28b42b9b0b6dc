/*
 * The engine's clock: u32 ticks that wrap, their arithmetic, and the same time counted on in 64 bits.
 */
import { MAX_SLEEP_TICKS, TICKS_PER_SECOND } from './abi'

/** "No time": later than anything. */
export const NEVER: u32 = 0xffffffff

/** Ticks from `now` until `time`, 0 if it has passed. */
export function until(time: u32, now: u32): u32 {
  const ticks = <i32>(time - now)
  return ticks > 0 ? ticks : 0
}

/**
 * Ticks left of a period of `limit` ticks that began at `since`; periods may be longer than half the clock's circle.
 */
export function remaining(since: u32, limit: u32, now: u32): u32 {
  const age = now - since
  return age >= limit ? 0 : limit - age
}

/** Ticks since the endpoint started, without wrap. */
export let elapsed: u64 = 0
let lastNow: u32 = 0

export function startClock(now: u32): void {
  lastNow = now
}

/**
 * Takes in the time of a call. True if the host was suspended: then deadlines more than half a circle away would seem
 * to lie ahead.
 */
export function advanceClock(now: u32): bool {
  const step = now - lastNow
  elapsed += step
  lastNow = now
  return step > 2 * MAX_SLEEP_TICKS
}

/** Seconds since the endpoint started. */
export function seconds(): u32 {
  return <u32>(elapsed / TICKS_PER_SECOND)
}
