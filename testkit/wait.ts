/** Waiting for conditions instead of fixed delays. */

const POLL_MS = 20

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

/**
 * Polls until `condition` is true. Rejects if it throws, or after `timeoutMs` with `what` and the result of `describe`.
 */
export async function waitFor(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
  describe?: () => string | Promise<string>,
): Promise<void> {
  const end = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > end) {
      const more = describe === undefined ? '' : `: ${await describe()}`
      throw new Error(`timeout after ${timeoutMs} ms: ${what}${more}`)
    }
    await sleep(POLL_MS)
  }
}

/** The result of a promise; rejects with `what` after `timeoutMs`. */
export async function within<T>(what: string, timeoutMs: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timeout after ${timeoutMs} ms: ${what}`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
