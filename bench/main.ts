/** `npm run bench -- NAME`: the benchmarks by name. */
import { benchCore } from './core.ts'
import { benchSim } from './sim.ts'

const benches: ReadonlyMap<string, () => void | Promise<void>> = new Map([
  ['core', () => benchCore()],
  ['sim', () => benchSim(process.argv.slice(3))],
])

const name = process.argv[2]
const bench = name === undefined ? undefined : benches.get(name)
if (!bench) {
  console.error(`usage: npm run bench -- NAME\n  NAME: ${[...benches.keys()].join(', ')}`)
  process.exit(1)
}
await bench()
