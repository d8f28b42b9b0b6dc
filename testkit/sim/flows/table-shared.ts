/** Tables `several` and `cubic`: flows that share a bottleneck. */
import { link, type Options, queueTarget, runner } from './links.ts'
import { settleTime } from './scenario.ts'
import { atLeast, atMost, figure, type Table } from './table.ts'

export function severalTable(options: Options): Table {
  const { quick, seed } = options
  const run = runner(options)
  const rows: Table['rows'][number][] = []
  const add = (mbits: number, rtt: number, queue: number, flows: number, related: boolean): void => {
    rows.push({
      label: `${mbits}/${rtt} q${queue} ${flows} ${related ? 'related' : 'unrelated'}`,
      run: () => {
        const shape = link(mbits, rtt, 0, queue)
        const startAt = (i: number): number => (2 * i) / flows
        const specs = Array.from({ length: flows }, (_, i) => ({ startAt: startAt(i) }))
        const settled = (related ? 2 + settleTime(shape) : 30) / (quick ? 1.5 : 1)
        const result = run({
          seed,
          shape,
          seconds: settled + (quick ? 4 : 15),
          settled,
          pairs: related ? [{ flows: specs }] : specs.map((spec) => ({ flows: [spec] })),
        })
        const shares = result.flows.map(({ goodput }) => (goodput * flows) / Math.max(1e-9, result.goodput))
        return [
          atLeast(result.goodput / mbits, 3, 0.9),
          atLeast(result.jain, 3, 0.9),
          figure(Math.min(...shares), 2),
          figure(Math.max(...shares), 2),
          atLeast(result.efficiency, 3, 0.95),
          atMost(100 * result.drops, 2, 2),
          atMost(result.queueMean, 1, queueTarget(shape, flows)),
          figure(result.queueMax, 1),
        ]
      },
    })
  }
  if (quick) {
    for (const queue of [0.25, 1, 4]) add(20, 50, queue, 4, true)
    add(100, 50, 1, 16, true)
    add(20, 50, 1, 2, false)
    add(20, 50, 1, 4, false)
  } else {
    for (const [mbits, rtt] of [
      [20, 50],
      [100, 50],
      [100, 200],
    ] as const) {
      for (const queue of [0.25, 1, 4]) {
        for (const flows of [2, 4, 16]) add(mbits, rtt, queue, flows, true)
        for (const flows of [2, 4]) add(mbits, rtt, queue, flows, false)
      }
    }
  }
  return {
    name: 'several',
    title:
      'connections of one pair (related) or of separate pairs (unrelated), started over 2 s; lowest and highest share of the mean',
    columns: ['share', 'Jain', 'low', 'high', 'eff', 'drop %', 'queue ms', 'max ms'],
    labelWidth: 26,
    rows,
  }
}

export function cubicTable(options: Options): Table {
  const { quick, seed } = options
  const run = runner(options)
  const links = quick
    ? ([[20, 50]] as const)
    : ([
        [20, 50],
        [100, 50],
        [50, 200],
      ] as const)
  const rows = links.flatMap(([mbits, rtt]) =>
    [1, 2, 4].flatMap((queue) =>
      [true, false].map((oursFirst) => ({
        label: `${mbits}/${rtt} q${queue} ${oursFirst ? 'ours' : 'TCP'} first`,
        run: () => {
          const settled = quick ? 15 : 20
          const result = run({
            seed,
            shape: link(mbits, rtt, 0, queue),
            seconds: settled + (quick ? 15 : 40),
            settled,
            pairs: [
              { flows: [{ startAt: oursFirst ? 0 : 4 }] },
              { client: 'tcp', server: 'tcp', flows: [{ startAt: oursFirst ? 4 : 0 }] },
            ],
          })
          const [ours, theirs] = result.flows.map(({ goodput }) => goodput)
          const share = (ours ?? 0) / Math.max(1e-9, result.goodput)
          return [
            figure(ours ?? 0, 1),
            figure(theirs ?? 0, 1),
            { ...atLeast(100 * share, 1, 15), target: '15..85', missed: !(share >= 0.15 && share <= 0.85) },
            figure(100 * result.drops, 2),
            figure(result.queueMean, 1),
          ]
        },
      })),
    ),
  )
  return {
    name: 'cubic',
    title: 'one kcptun-wasm flow beside one TCP CUBIC flow; Mbit/s and share',
    columns: ['ours', 'TCP', 'ours %', 'drop %', 'queue ms'],
    labelWidth: 22,
    rows,
  }
}
