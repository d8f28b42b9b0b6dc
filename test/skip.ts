/**
 * Skipping a test aloud: the runner accepts a skipped test only with its reason.
 */
import type { Test } from 'uvu'

/** Counts `name` as skipped and prints why. */
export function skip<T>(test: Test<T>, name: string, reason: string): void {
  console.log(`skip: ${name}: ${reason}`)
  test.skip(name)
}
