/** Clock on the runtime's global functions. */
import type { Clock, Timer } from '../host/runtime.ts'

export const clock: Clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  setTimer: (callback, ms) => setTimeout(callback, ms),
  clearTimer: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout> | undefined),
  defer: (callback) => setImmediate(callback),
  clearDeferred(timer: Timer | undefined) {
    if (timer !== undefined) clearImmediate(timer as ReturnType<typeof setImmediate>)
  },
}
