/**
 * One process of the simulation. `FIRST COUNT STEP ROLES` runs seeds and prints a line of JSON for each, also for those it
 * skips because their role does not begin with ROLES; `--show SEED` prints the log of one; `--shrink SEED` makes one that fails smaller.
 */
import { crypto } from '../../runtime-node/crypto.ts'
import type { Reached } from '../../testkit/world/coverage.ts'
import { drawScenario, type Scenario } from '../../testkit/world/scenario.ts'
import { shrink } from '../../testkit/world/shrink.ts'
import { type Result, World } from '../../testkit/world/world.ts'

/** A line for run.mjs. */
export interface Report extends Reached {
  readonly seed: number
  readonly violations: readonly string[]
  readonly streams: number
  readonly bytes: number
  readonly events: number
}

async function run(scenario: Scenario): Promise<Result> {
  return (await World.make(scenario, crypto)).run()
}

function reportOf(scenario: Scenario, result: Result): Report {
  const { violations, streams, bytes, events } = result
  return {
    seed: scenario.seed,
    topology: scenario.topology,
    kinds: [...result.kinds],
    reloaded: [...result.reloaded],
    states: [...result.states],
    acts: [...result.acts],
    violations,
    streams,
    bytes,
    events,
  }
}

async function show(scenario: Scenario): Promise<void> {
  const result = await run(scenario)
  for (const line of result.logs) console.log(line)
  console.log(JSON.stringify({ ...scenario, streams: scenario.streams.length }, undefined, 1))
  for (const text of result.violations) console.log(`VIOLATION ${text}`)
  console.log(
    `seed ${scenario.seed}: ${scenario.topology}, ${result.violations.length} violations, ${result.events} events`,
  )
  process.exitCode = result.violations.length > 0 ? 1 : 0
}

const [mode = '', ...rest] = process.argv.slice(2)
if (mode === '--show') await show(drawScenario(Number(rest[0])))
else if (mode === '--shrink') {
  const fails = async (smaller: Scenario): Promise<boolean> => (await run(smaller)).violations.length > 0
  await show(await shrink(drawScenario(Number(rest[0])), fails))
} else {
  const [first = 0, count = 1, step = 1] = [mode, ...rest].map(Number)
  const [, , roles = ''] = rest
  for (let i = 0; i < count; i++) {
    const scenario = drawScenario(first + i * step)
    const isWanted = scenario.topology.startsWith(roles)
    console.log(JSON.stringify(isWanted ? reportOf(scenario, await run(scenario)) : { isSkipped: true }))
  }
}
