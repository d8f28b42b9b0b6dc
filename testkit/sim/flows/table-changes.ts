/** Tables `changes` and `rough`: links that change under a flow, and links with jitter, reordering, bursts. */
import type { Shape } from './bottleneck.ts'
import { link, MBIT, type Options, queueTarget, runner } from './links.ts'
import { baseRtt, bound, rampTime, settleTime, WIRE_SHARE } from './scenario.ts'
import { atLeast, atMost, type Figure, figure, type Table } from './table.ts'

export function changesTable(options: Options): Table {
  const run = runner(options)
  const base = link(20, 50, 0, 2)
  const phase = (shape: Shape): number => settleTime(shape) + (options.quick ? 3 : 8)
  const series = (name: string, steps: readonly { readonly label: string; readonly shape: Shape }[]): Table['rows'] => {
    let figures: Figure[][] = []
    const measure = (): void => {
      const starts: number[] = []
      let at = 0
      for (const { shape } of steps) {
        starts.push(at)
        at += phase(shape)
      }
      const first = steps[0]?.shape ?? {}
      const { bins, dropsFromStart } = run({
        seed: options.seed,
        shape: first,
        seconds: at,
        changes: steps.map(({ shape }, i) => ({ at: starts[i] ?? 0, shape })),
      })
      figures = steps.map(({ shape }, i) => {
        const from = starts[i] ?? 0
        const to = from + phase(shape)
        return phaseFigures(bins, shape, from, to, i === steps.length - 1 ? 100 * dropsFromStart : Number.NaN)
      })
    }
    return steps.map(({ label }, i) => ({
      label: `${name}: ${label}`,
      run: () => {
        if (i === 0) measure()
        return figures[i] ?? []
      },
    }))
  }
  const rate = (mbits: number): Shape => ({ ...base, rate: mbits * MBIT })
  const rtt = (ms: number): Shape => ({ ...base, delay: ms / 2, queueBytes: 250_000 })
  return {
    name: 'changes',
    title:
      'one flow; settle: from the change to the first window of max(100 ms, RTT) at 90 % of the wire; share: of the wire after that',
    columns: ['settle s', 'share', 'drop %'],
    labelWidth: 26,
    rows: [
      ...series('rate', [
        { label: '20 Mbit/s', shape: rate(20) },
        { label: '100 Mbit/s', shape: rate(100) },
        { label: '20 Mbit/s', shape: rate(20) },
      ]),
      ...series('RTT', [
        { label: '20 ms', shape: rtt(20) },
        { label: '200 ms', shape: rtt(200) },
        { label: '20 ms', shape: rtt(20) },
      ]),
      {
        label: 'blackhole of 5 s',
        run: () => {
          const seconds = 10 + phase(base)
          const changes = [
            { at: 5, blackhole: true },
            { at: 10, blackhole: false },
          ]
          const { bins, dropsFromStart } = run({ seed: options.seed, shape: base, seconds, changes })
          return phaseFigures(bins, base, 10, seconds, 100 * dropsFromStart)
        },
      },
    ],
  }
}

/** Time to settle, share of the wire in a phase, and drops if known. */
function phaseFigures(bins: readonly number[], shape: Shape, from: number, to: number, drops: number): Figure[] {
  const settled = Math.round((from + settleTime(shape)) * 50)
  const end = Math.round(to * 50)
  const bytes = bins.slice(settled, end).reduce((a, b) => a + b, 0)
  const share = (bytes * 8 * 50) / (end - settled) / MBIT / bound(shape)
  const part = bins.slice(0, end)
  return [
    atMost(rampTime(part, from, 0.9 * bound(shape), Math.max(0.1, baseRtt(shape))), 2, settleTime(shape)),
    atLeast(share, 3, 0.9 / WIRE_SHARE),
    figure(drops, 2),
  ]
}

export function roughTable(options: Options): Table {
  const { quick, seed } = options
  const run = runner(options)
  const row = (label: string, change: Shape): Table['rows'][number] => ({
    label,
    run: () => {
      const shape = { ...link(quick ? 20 : 100, 50, 0, 1), ...change }
      const result = run({ seed, shape, seconds: settleTime(shape) + (quick ? 5 : 15) })
      const rate = (shape.rate * (1 - result.lost)) / MBIT
      return [
        figure(result.goodput, 1),
        atLeast(result.goodput / rate, 3, 0.9),
        atLeast(result.efficiency / (1 - result.lost), 3, 0.95),
        atMost(100 * result.drops, 2, 2),
        figure(100 * result.lost, 2),
        atMost(result.queueMean, 1, queueTarget(shape, 1)),
        atMost(result.ramp, 2, settleTime(shape)),
      ]
    },
  })
  return {
    name: 'rough',
    title: `one flow over ${quick ? 20 : 100} Mbit/s, 50 ms, queue 1 BDP, with one further impairment each`,
    columns: ['Mbit/s', 'share', 'eff', 'drop %', 'lost %', 'queue ms', 'ramp s'],
    labelWidth: 30,
    rows: [
      row('jitter 10 ms, in order', { jitter: 10, inOrder: true }),
      row('jitter 10 ms, reordering', { jitter: 10 }),
      row('jitter 40 ms, reordering', { jitter: 40 }),
      row('5 % held back by 10 ms', { reorder: 0.05, reorderDelay: 10 }),
      row('5 % twice', { duplicate: 0.05 }),
      row('bursts of 5 ms every 500 ms', { burst: 5, burstEvery: 500 }),
      row('bursts of 20 ms every 1 s', { burst: 20, burstEvery: 1000 }),
      row('2 %, bursts, jitter 10 ms', { loss: 0.02, burst: 5, burstEvery: 500, jitter: 10 }),
    ],
  }
}
