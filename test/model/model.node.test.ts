// time limit: 300 s
/**
 * All states of a session at small bounds, with the shipped engine: no data is lost, every session ends, no memory is
 * leaked. `npm run model` explores more.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SessionState } from '../../host/engine/core.ts'
import { buildEngines, engineModule } from './engines.ts'
import { mutants } from './patches.mjs'
import { quick, type Scenario, scenarios } from './scenario.ts'
import { enabled, type Result, Search, trace } from './search.ts'
import type { State } from './state.ts'
import { World } from './world.ts'

const test = suite('model')

buildEngines()
const clean = engineModule('clean')

/** Scenarios that take too long here; `npm run model` runs them. */
const LONG = ['plain, late', 'sealed, restart of the server, late', 'sealed, migration, idle']
/** Flags of a session (assembly/session/session.ts) that the scenarios have to reach. */
const FLAGS = { EOF_SENT: 2, EOF_RECEIVED: 4, HALF_OPEN: 4096, RESET_CHALLENGED: 32768, MOVING: 65536, MOVED: 131072 }
const STATES_MIN = 900

const reached = { states: 0, flags: 0 }

function lines(module: WebAssembly.Module, scenario: Scenario, { failure }: Result, plant = 0): string {
  return failure ? [failure.text, ...trace(module, scenario, failure.actions, plant)].join('\n') : ''
}

for (const scenario of quick.filter(({ name }) => !LONG.includes(name))) {
  test(`no state leads to a violation: ${scenario.name}`, () => {
    const result = new Search(clean, scenario).run()
    assert.is(result.failure, undefined, lines(clean, scenario, result))
    assert.ok(result.isComplete)
    assert.ok(result.states > STATES_MIN, `${result.states} states`)
    reached.states |= result.reached.states
    reached.flags |= result.reached.flags
    console.log(`${scenario.name}: ${result.states} states, depth ${result.depth}, ${result.seconds.toFixed(1)} s`)
  })
}

test('together the scenarios reach every state and flag of a session', () => {
  for (const [name, state] of Object.entries(SessionState)) assert.ok(reached.states & (1 << state), name)
  for (const [name, flag] of Object.entries(FLAGS)) assert.ok(reached.flags & flag, name)
})

mutants.forEach(({ name, violation, scenario: wanted, bounds }, index) => {
  test(`a planted defect is found: ${name}`, () => {
    const scenario = (bounds === 'full' ? scenarios : quick).find((other) => other.name === wanted)
    assert.ok(scenario)
    const module = engineModule('mutants')
    const result = new Search(module, scenario, {}, index + 1).run()
    assert.ok(result.failure, `not found in ${result.states} states`)
    assert.ok(result.failure.text.includes(violation), lines(module, scenario, result, index + 1))
  })
})

/** @returns the states along a random path. @param isDisturbed other states are loaded in between */
function walk(world: World, seed: number, isDisturbed: boolean): State[] {
  const start = world.start()
  const path: State[] = [start]
  world.load(start)
  let random = seed
  for (;;) {
    const actions = enabled(world)
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0
    const action = actions[(random >>> 8) % actions.length]
    if (!action) return path
    world.apply(action)
    path.push(world.save())
    if (!isDisturbed) continue
    world.load(start)
    world.load(path[path.length - 1] ?? start)
  }
}

test('a restored engine continues like one that was never saved', () => {
  const scenario = quick.find(({ name }) => name === 'sealed, loss')
  assert.ok(scenario)
  let steps = 0
  for (let seed = 1; seed <= 20; seed++) {
    const straight = walk(new World(clean, scenario), seed, false)
    const restored = walk(new World(clean, scenario), seed, true)
    assert.equal(restored, straight)
    steps += straight.length
  }
  assert.ok(steps > 200, `${steps} steps`)
})

test.run()
