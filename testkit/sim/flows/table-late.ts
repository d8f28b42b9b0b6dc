/** Table `late`: connections that start when their pair has already measured the path. */
import { link, type Options, queueTarget, runner } from './links.ts'
import { bound, type FlowSpec } from './scenario.ts'
import { atLeast, atMost, figure, type Table } from './table.ts'

const KNOWN_AT = 6

export function lateTable(options: Options): Table {
  const run = runner(options)
  const links = options.quick
    ? ([[100, 50, 0]] as const)
    : ([
        [20, 50, 0],
        [100, 50, 0],
        [100, 50, 0.02],
        [100, 200, 0],
      ] as const)
  const rows = links.flatMap(([mbits, rtt, loss]) =>
    [1, 16].flatMap((flows) =>
      [true, false].map((beside) => ({
        label: `${mbits}/${rtt} ${loss * 100}% q1 ${flows} ${beside ? 'beside' : 'after'} 1`,
        run: () => {
          const shape = link(mbits, rtt, loss, 1)
          const first: FlowSpec = beside ? {} : { stopAt: KNOWN_AT - 2 }
          const late = Array.from({ length: flows }, () => ({ startAt: KNOWN_AT }))
          const result = run({
            seed: options.seed,
            shape,
            settled: KNOWN_AT,
            seconds: KNOWN_AT + 1,
            pairs: [{ flows: [first, ...late] }],
          })
          const fair = (bound(shape) * flows) / (beside ? flows + 1 : flows)
          const theirs = result.flows.slice(1).reduce((sum, { goodput }) => sum + goodput, 0)
          return [
            figure(theirs, 1),
            atLeast(theirs / fair, 2, 0.6),
            figure(result.goodput / bound(shape), 2),
            atMost(100 * result.drops, 2, 2),
            atMost(result.queueMean, 1, queueTarget(shape, flows)),
            figure(result.queueMax, 1),
          ]
        },
      })),
    ),
  )
  return {
    name: 'late',
    title:
      'the first second of connections of a pair that has measured the path, beside a bulk flow or 2 s after it ended',
    columns: ['Mbit/s', 'of fair', 'all', 'drop %', 'queue ms', 'max ms'],
    labelWidth: 28,
    rows,
  }
}
