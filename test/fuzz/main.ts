/**
 * `npm run fuzz`: the worker process, started and supervised by test/fuzz/run.mjs.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { fuzz, maker, replay } from './fuzz.ts'

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '1e7' },
    seconds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    episode: { type: 'string' },
    log: { type: 'string', default: '40' },
    outputs: { type: 'boolean', default: false },
    debug: { type: 'boolean', default: false },
    checked: { type: 'boolean', default: false },
    wasm: { type: 'string' },
  },
})

const build = values.debug ? 'debug' : values.checked ? 'checked' : undefined
const file = values.wasm ?? (build && `dist/core.${build}.wasm`)
const make = file === undefined ? undefined : maker(readFileSync(file))
const seed = Number(values.seed)
if (values.episode !== undefined) {
  console.log(replay(seed, Number(values.episode), make, Number(values.log), values.outputs))
} else {
  let shown = 0
  const result = fuzz({
    seed,
    inputs: Number(values.inputs),
    seconds: Number(values.seconds),
    ...(make ? { make, words: values.wasm === undefined ? ` --${build}` : ` --wasm ${file}` } : {}),
    onEpisode: (episode, inputs) => {
      process.send?.(episode)
      if (inputs - shown < 500_000) return
      shown = inputs
      console.log(`${inputs} inputs, episode ${episode}`)
    },
  })
  const rate = Math.round(result.inputs / result.seconds)
  console.log(`seed ${seed}: ${result.inputs} inputs in ${result.episodes} episodes, ${rate} a second`)
  const kinds = [...result.counters].filter(([name]) => !/memory_used|age|entropy|ping/.test(name))
  console.log(kinds.map(([name, value]) => `${name} ${value}`).join(', '))
  if (result.failure !== undefined) {
    console.log(`FAILED: ${result.failure}`)
    process.exitCode = 1
  }
}
