/* Arithmetic on the engine's clock: u32 ticks that wrap. */

/** "No time": later than anything. */
export const NEVER: u32 = 0xffffffff

/** Ticks from `now` until `time`, 0 if it has passed. */
export function until(time: u32, now: u32): u32 {
  const ticks = <i32>(time - now)
  return ticks > 0 ? ticks : 0
}

/** Ticks left of a period of `limit` ticks that began at `since`; periods may be longer than half the clock's circle. */
export function remaining(since: u32, limit: u32, now: u32): u32 {
  const age = now - since
  return age >= limit ? 0 : limit - age
}
