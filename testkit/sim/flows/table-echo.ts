/** Table `echo`: round trips of a thin stream. */
import type { Shape } from './bottleneck.ts'
import { type Tuning, WINDOW_256 } from './engine.ts'
import { link, type Options, runner } from './links.ts'
import { baseRtt } from './scenario.ts'
import { atMost, figure, type Table } from './table.ts'

/** Time allowed for open and first byte beyond the round trip. */
const OPEN_SLACK_MS = 5

export function echoTable(options: Options): Table {
  const run = runner(options)
  const row = (
    label: string,
    shape: Shape,
    p99: number | undefined,
    bulk = false,
    tuning: Tuning = {},
  ): Table['rows'][number] => ({
    label,
    run: () => {
      const seconds = options.quick ? 30 : 120
      const flows = bulk ? [{ kind: 'echo' } as const, {}] : [{ kind: 'echo' } as const]
      const result = run({ seed: options.seed, shape, seconds, pairs: [{ flows, tuning }] })
      const [echo] = result.flows
      if (echo === undefined) return []
      const lossless = (shape.loss ?? 0) === 0 && !bulk
      const open = 1000 * baseRtt(shape) + OPEN_SLACK_MS
      return [
        lossless ? atMost(echo.first, 1, open) : figure(echo.first, 1),
        figure(echo.p50, 1),
        p99 === undefined ? figure(echo.p99, 1) : atMost(echo.p99, 1, p99),
        figure(result.packets / (seconds * 50), 2),
      ]
    },
  })
  return {
    name: 'echo',
    title:
      'echo of 64 bytes every 20 ms, ms; the first one opens the connection; datagrams of both directions per echo',
    columns: ['first', 'p50', 'p99', 'sent'],
    labelWidth: 26,
    rows: [
      row('50 ms, no loss', link(1000, 50, 0, 1), 55),
      row('50 ms, 2 % (lossy)', link(1000, 50, 0.02, 1), 80),
      row('50 ms, 10 % (bad)', link(1000, 50, 0.1, 1), 120),
      row('lossy, window 256', link(1000, 50, 0.02, 1), undefined, false, WINDOW_256),
      row('bad, window 256', link(1000, 50, 0.1, 1), undefined, false, WINDOW_256),
      row('beside bulk on 20/50 q1', link(20, 50, 0, 1), undefined, true),
    ],
  }
}
