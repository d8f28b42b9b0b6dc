/**
 * `npm run fuzz -- --guided`: the process that does the work. test/fuzz/run.mjs starts it and watches over it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { fromHex } from '../../../testkit/sim/wire.ts'
import { ENGINE_TARGETS } from './engine-targets.ts'
import { HOST_TARGETS, PLANTED } from './host-targets.ts'
import { fuzz, type Options, replay, type Target, textOf } from './loop.ts'

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    inputs: { type: 'string', default: '200000' },
    seconds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    /** Hexadecimal, several with commas between them; or @FILE. */
    input: { type: 'string' },
    /** For comparison: coverage is counted, and not followed. */
    unguided: { type: 'boolean', default: false },
  },
})

const FAILURES = '.cache/fuzz'
/** Longest text of inputs on the command line. */
const TEXT_MAX = 2000

const all = [...ENGINE_TARGETS, ...HOST_TARGETS]
const wanted = values.target?.split(',')
const targets = wanted === undefined ? all : [...all, PLANTED].filter(({ name }) => wanted.includes(name))
if (targets.length === 0) {
  console.log(`FAILED: no target ${values.target}; there are ${all.map(({ name }) => name).join(', ')}`)
  process.exit(1)
}

/** @returns the argument that replays inputs: themselves, or a file with them */
function argumentOf(name: string, text: string): string {
  if (text.length <= TEXT_MAX) return text === '' ? "''" : text
  mkdirSync(FAILURES, { recursive: true })
  const file = `${FAILURES}/${name}.inputs`
  writeFileSync(file, text)
  return `@${file}`
}

async function run(target: Target): Promise<void> {
  const options: Options = {
    seed: Number(values.seed),
    inputs: Number(values.inputs),
    seconds: Number(values.seconds),
    isGuided: !values.unguided,
    onProgress: (inputs) => process.send?.(`${target.name} --inputs ${inputs + 256}`),
  }
  const { inputs, seconds, edges, corpus, failure } = await fuzz(target, options)
  const rate = Math.round(inputs / seconds)
  console.log(`${target.name}: ${inputs} inputs, ${rate} a second, ${edges} edges, corpus ${corpus}`)
  if (failure === undefined) return
  const argument = argumentOf(target.name, textOf(failure.inputs))
  console.log(`FAILED: ${failure.reason}`)
  console.log(
    `${failure.inputs.length} inputs; again: npm run fuzz -- --guided --target ${target.name} --input ${argument}`,
  )
  process.exitCode = 1
}

if (values.input === undefined) for (const target of targets) await run(target)
else {
  const text = values.input.startsWith('@') ? readFileSync(values.input.slice(1), 'utf8') : values.input
  for (const target of targets) {
    const reason = await replay(target, text.split(',').map(fromHex))
    console.log(`${target.name}: ${reason === undefined ? 'passes' : `FAILED: ${reason}`}`)
    if (reason !== undefined) process.exitCode = 1
  }
}
// the HTTP server of a target keeps its socket
process.exit()
