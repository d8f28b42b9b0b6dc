/** The command behind `npm run soak`, see run.mjs. */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Program } from '../../testkit/process.ts'
import { type SoakResult, soak } from './soak.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    runtime: { type: 'string', default: 'both' },
    seed: { type: 'string', default: '1' },
    rate: { type: 'string', default: '40' },
    samples: { type: 'string' },
  },
})

const runtimes: readonly Program[] = values.runtime === 'both' ? ['node', 'bun'] : [values.runtime as Program]
const [minutes = 0, seed = 0, rate = 0] = [values.minutes, values.seed, values.rate].map(Number)
if (!['node', 'bun', 'both'].includes(values.runtime) || !(minutes > 0) || !Number.isInteger(seed) || !(rate > 0)) {
  console.error('soak: --minutes and --rate are positive numbers, --seed an integer, --runtime node, bun or both')
  process.exit(2)
}

/**
 * V8 resizes the young generation between 1 and 32 MiB by load and idle time, which hides what the program keeps: it is
 * held small here.
 */
process.env['NODE_OPTIONS'] = `${process.env['NODE_OPTIONS'] ?? ''} --max-semi-space-size=2`.trim()

const mebi = (kibi: number): string => (kibi / 1024).toFixed(1).padStart(7)

function table(runtime: Program, { connections, reloads, ends }: SoakResult): string {
  const { opened, complete, refused } = connections
  const lines = [
    `${runtime}: ${opened} connections (${complete} complete, ${refused} refused), ${reloads} reloads`,
    '  process   RSS MiB: 1st    2nd    3rd third  change   descriptors   engine memory, bytes   CPU',
    '                                                       base  end     base       end',
  ]
  for (const [name, end] of Object.entries(ends)) {
    const { base, drained, samples } = end
    const last = samples.at(-1) ?? drained
    const cpu = (last.cpuMs - base.cpuMs) / (last.at * 10)
    const cells = [
      name.padEnd(11),
      end.thirds.map(mebi).join(''),
      `${(100 * end.growth).toFixed(1)} %`.padStart(14),
      String(base.descriptors).padStart(7),
      String(drained.descriptors).padStart(5),
      String(base.memory).padStart(11),
      String(drained.memory).padStart(11),
      `${cpu.toFixed(0)} %`.padStart(7),
    ]
    lines.push(`  ${cells.join('')}`)
  }
  return lines.join('\n')
}

const options = {
  seed,
  rate,
  seconds: minutes * 60,
  sampleMs: 5000,
  reloadSeconds: 60,
  lingerSeconds: 30,
  idleSeconds: 30,
  longSeconds: 240,
}
const results = await Promise.all(
  runtimes.map(async (runtime) => {
    const report = (line: string): void => console.log(line)
    const started = (pids: object): void => console.log(`${runtime}: process ids ${JSON.stringify(pids)}`)
    return { runtime, result: await soak({ ...options, runtime, report, started }) }
  }),
)
for (const { runtime, result } of results) {
  console.log(table(runtime, result))
  const problems = [...result.problems, ...result.rssProblems]
  for (const problem of problems) console.log(`FAILED: ${problem}`)
  if (problems.length > 0) process.exitCode = 1
}
if (values.samples !== undefined) {
  const all = results.map(({ runtime, result }) => ({ runtime, ...result }))
  writeFileSync(values.samples, JSON.stringify(all))
}
