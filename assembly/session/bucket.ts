/*
 * A token bucket: what may be passed on now at a rate, in integers that are exact. A token is 1/8000 bit, so a tick earns
 * as many tokens as the rate has bits per second, and nothing is ever rounded.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'

/** Tokens of a byte. */
const BYTE_TOKENS: i64 = 8 * TICKS_PER_SECOND
/** What a bucket collects while nobody waits: a few ms, and at least two segments. */
const BURST_TICKS: i64 = 4 * TICKS_PER_MS
const MIN_BURST_BYTES: i64 = 3000
/**
 * While somebody waits, or did until recently, so much more is made up for: a host may wake late, and reads again from
 * TCP only in its next turn.
 */
const CATCH_UP_TICKS: i64 = 250 * TICKS_PER_MS
const HELD_TICKS: Ticks = 300 * TICKS_PER_MS
/** A longer time fills any bucket, and its product with the highest rate fits. */
const MAX_PASSED: Ticks = 1 << 25
/** Calls may come with the times of earlier ones, which are at most this much older. */
const MAX_BACKWARD: i32 = TICKS_PER_SECOND
/** More than a bucket holds. */
const FULL: i64 = 1 << 60
const MAX_WAIT: i64 = 1 << 29

@unmanaged
export class Bucket {
  tokens: i64
  // when they were counted; when somebody waited last
  at: Ticks
  heldAt: Ticks
}

/** Fills a bucket. */
export function fillBucket(b: Bucket, now: Ticks): void {
  b.tokens = FULL
  b.at = now
}

/** Adds what `rate` bits per second have earned. */
export function refill(b: Bucket, rate: u64, now: Ticks): void {
  const step = <i32>(now - b.at)
  if (step < 0 && step > -MAX_BACKWARD) return
  const passed = min<u32>(now - b.at, MAX_PASSED)
  b.at = now
  const burst = now - b.heldAt <= HELD_TICKS ? CATCH_UP_TICKS : BURST_TICKS
  const most = max(<i64>rate * burst, MIN_BURST_BYTES * BYTE_TOKENS)
  b.tokens = min(b.tokens + <i64>rate * <i64>passed, most)
}

/** @returns true if the bucket is good for `bytes`; negative: if it is owed no more */
export function holds(b: Bucket, bytes: i32): bool {
  return b.tokens >= <i64>bytes * BYTE_TOKENS
}

/** @returns whole bytes that the bucket is good for */
export function bytesIn(b: Bucket): u32 {
  return b.tokens > 0 ? <u32>(b.tokens / BYTE_TOKENS) : 0
}

export function take(b: Bucket, bytes: u32): void {
  b.tokens -= <i64>bytes * BYTE_TOKENS
}

/** @returns ticks until the bucket is good for `bytes` */
export function bucketDeadline(b: Bucket, bytes: u32, rate: u64, now: Ticks): Ticks {
  const lacking = <i64>bytes * BYTE_TOKENS - b.tokens
  if (lacking <= 0) return 0
  const wait = min((lacking + <i64>rate - 1) / <i64>rate, MAX_WAIT) - <i64>(<i32>(now - b.at))
  return wait > 0 ? <u32>wait : 0
}
