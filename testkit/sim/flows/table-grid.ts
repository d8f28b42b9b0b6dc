/** Table `grid`: one flow over links of every rate, RTT, loss and queue. */
import { MSS } from './engine.ts'
import { link, MBIT, type Options, queueTarget, runner } from './links.ts'
import { baseRtt, bound, settleTime, WIRE_SHARE } from './scenario.ts'
import { atLeast, atMost, figure, type Table } from './table.ts'

/** Largest window, segments. */
const WINDOW_MAX = 65535

/** Bound of a full window, Mbit/s: W mss / (k RTT). */
function windowBound(rtt: number, loss: number): number {
  const k = loss === 0 ? 1.1 : loss <= 0.02 ? 3 : 3.5
  return (WINDOW_MAX * MSS * 8) / (k * rtt) / MBIT
}

export function gridTable(options: Options): Table {
  const { quick, seed } = options
  const run = runner(options)
  const rows: Table['rows'][number][] = []
  const add = (mbits: number, rtt: number, loss: number, queue: number): void => {
    rows.push({
      label: `${mbits}/${rtt} ${loss * 100}% q${queue}`,
      run: () => {
        const shape = link(mbits, rtt, loss, queue)
        const lossless = mbits * (1 - loss)
        const limit = Math.min(lossless, windowBound(rtt / 1000, loss))
        const linkIsLimit = limit === lossless
        const after = mbits >= 1000 ? (quick ? 1 : 5 + 10 * baseRtt(shape)) : (quick ? 3 : 10) + 10 * baseRtt(shape)
        const result = run({
          seed,
          shape,
          seconds: settleTime(shape) + after,
          full: linkIsLimit ? bound(shape) : limit * WIRE_SHARE,
        })
        const efficiency = result.efficiency / (1 - loss)
        return [
          figure(result.goodput, 1),
          atLeast(result.goodput / lossless, 3, (0.9 * limit) / lossless),
          figure(result.fromStart, 1),
          linkIsLimit ? atLeast(efficiency, 3, 0.95) : figure(efficiency, 3),
          atMost(100 * result.drops, 2, 2),
          figure(100 * result.dropsFromStart, 2),
          atMost(result.queueMean, 1, queueTarget(shape, 1)),
          figure(result.queueMax, 1),
          atMost(result.ramp, 2, settleTime(shape)),
        ]
      },
    })
  }
  if (quick) {
    for (const mbits of [5, 20, 100]) {
      for (const rtt of [5, 50, 200, 600]) {
        for (const [loss, queue] of [
          [0, 0.25],
          [0, 1],
          [0.02, 1],
          [0.1, 4],
        ] as const) {
          add(mbits, rtt, loss, queue)
        }
      }
    }
    add(1000, 5, 0, 1)
    add(1000, 50, 0.02, 1)
    add(1000, 50, 0.1, 1)
  } else {
    for (const mbits of [5, 20, 100, 1000]) {
      for (const rtt of [5, 50, 200, 600]) {
        for (const queue of [0.25, 1, 4]) for (const loss of [0, 0.01, 0.02, 0.1]) add(mbits, rtt, loss, queue)
      }
    }
  }
  return {
    name: 'grid',
    title: 'one flow, kcptun-wasm at both ends; rate Mbit/s / RTT ms, loss, queue in BDP (16 packets at least)',
    columns: ['Mbit/s', 'share', 'first', 'eff', 'drop %', 'start %', 'queue ms', 'max ms', 'ramp s'],
    labelWidth: 22,
    rows,
  }
}
