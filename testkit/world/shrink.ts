/** Minimizes a failing scenario: removes faults and streams while it still fails. */
import type { Scenario } from './scenario.ts'

/** Limit of runs. */
const RUNS_MAX = 120

/**
 * @param fails whether a scenario still fails
 * @returns the smallest one found
 */
export async function shrink(scenario: Scenario, fails: (smaller: Scenario) => Promise<boolean>): Promise<Scenario> {
  let best = scenario
  let runs = 0
  const isWorse = async (smaller: Scenario): Promise<boolean> => {
    if (runs++ >= RUNS_MAX || !(await fails(smaller))) return false
    best = smaller
    return true
  }
  for (let i = best.faults.length - 1; i >= 0; i--) {
    await isWorse({ ...best, faults: best.faults.filter((_, at) => at !== i) })
  }
  for (let part = Math.ceil(best.streams.length / 2); part >= 1; part = Math.floor(part / 2)) {
    for (let from = 0; from < best.streams.length && best.streams.length > 1; ) {
      const streams = best.streams.filter((_, at) => at < from || at >= from + part)
      if (streams.length === 0 || !(await isWorse({ ...best, streams }))) from += part
    }
  }
  const unimpaired = { jitter: 0, loss: 0, burst: 1, duplicate: 0, reorder: 0, rate: 0 }
  await isWorse({ ...best, conditions: { ...best.conditions, ...unimpaired } })
  await isWorse({ ...best, config: {} })
  return best
}
