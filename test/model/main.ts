/** `npm run model`: the search, bundled and started by test/model/run.mjs. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { quick, scenarios } from './scenario.ts'
import { Search, trace } from './search.ts'

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    thorough: { type: 'boolean', default: false },
    only: { type: 'string' },
    seconds: { type: 'string', default: 'Infinity' },
    states: { type: 'string', default: 'Infinity' },
    plant: { type: 'string', default: '0' },
  },
})

const plant = Number(values.plant)
const module = new WebAssembly.Module(readFileSync(`.cache/model/${plant ? 'mutants' : 'clean'}.wasm`))
for (const scenario of values.quick ? quick : scenarios) {
  if (values.only !== undefined && !scenario.name.includes(values.only)) continue
  const limits = {
    seconds: Number(values.seconds),
    states: Number(values.states),
    isThorough: values.thorough,
  }
  const result = new Search(module, scenario, limits, plant).run()
  const { states, transitions, depth, seconds, isComplete, failure } = result
  const extent = isComplete ? 'complete' : failure ? 'FAILED' : 'cut off'
  console.log(
    `${scenario.name}: ${states} states, ${transitions} transitions, depth ${depth}, ${seconds.toFixed(1)} s, ${extent}`,
  )
  if (failure) {
    console.log(failure.text)
    console.log(trace(module, scenario, failure.actions, plant).join('\n'))
    process.exitCode = 1
  }
}
