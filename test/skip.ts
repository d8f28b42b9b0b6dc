/** Skips tests with a reason, without which the runner fails the file. */
import type { Test } from 'uvu'

/** Counts `name` as skipped and prints the reason. */
export function skip<T>(test: Test<T>, name: string, reason: string): void {
  console.log(`skip: ${name}: ${reason}`)
  test.skip(name)
}
