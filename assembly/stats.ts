/* The counters, u64 each. Hosts read them in place. */
import { SESSIONS_CONNECT } from './counters'

export * from './counters'

/** Gauges of sessions by state: state s (1..4) is counter SESSIONS_BY_STATE + s - 1. */
export const SESSIONS_BY_STATE: u32 = SESSIONS_CONNECT

export const counters: usize = memory.data(64 * 8, 8)

/** Adds 1 to a counter. */
export function count(index: u32): void {
  add(index, 1)
}

/** Adds to a counter. */
export function add(index: u32, n: u32): void {
  const at = counters + ((<usize>index) << 3)
  store<u64>(at, load<u64>(at) + n)
}

/** Sets a gauge. */
export function set(index: u32, value: u64): void {
  store<u64>(counters + ((<usize>index) << 3), value)
}

export function gauge(index: u32): u64 {
  return load<u64>(counters + ((<usize>index) << 3))
}

/** Changes a gauge by a signed amount. */
export function shift(index: u32, by: i32): void {
  const at = counters + ((<usize>index) << 3)
  store<u64>(at, load<u64>(at) + <u64>(<i64>by))
}
