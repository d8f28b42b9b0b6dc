/** A time series of one run of the grid, to explain a figure of the tables. */
import { Info, TICKS_PER_MS } from '../../../host/engine/core.ts'
import type { Counters } from './bottleneck.ts'
import { link, MBIT, type Options, runner } from './links.ts'
import type { Change, PairSpec } from './scenario.ts'

const LABEL = /^([\d.]+)\/([\d.]+) ([\d.]+)% q([\d.]+)$/

export interface TraceOptions extends Options {
  /** a label of the grid: `100/50 2% q1` */
  readonly label: string
  readonly seconds: number
  /** ms between two lines */
  readonly every: number
  readonly pairs?: readonly PairSpec[]
  readonly changes?: readonly Change[]
}

/** Runs the link of a label and prints each line. */
export function trace(options: TraceOptions, print: (text: string) => void): void {
  const match = LABEL.exec(options.label)
  if (match === null) throw new Error(`${options.label}: a label like '100/50 2% q1' is wanted`)
  const [mbits = 0, rtt = 0, loss = 0, queue = 0] = match.slice(1).map(Number)
  const names = [
    's',
    'sent',
    'deliv',
    'queue ms',
    'drop',
    'lost',
    'srtt ms',
    'rto ms',
    'cwnd',
    'rmtwnd',
    'waitsnd',
    'retrans',
  ]
  const row = (values: readonly string[]): string => values.map((text) => text.padStart(9)).join('')
  print(row(names))
  const every = options.every / 1000
  let before: Counters | undefined
  let delivered = 0
  let retransmitted = 0
  const result = runner(options)({
    seed: options.seed,
    shape: link(mbits, rtt, loss / 100, queue),
    seconds: options.seconds,
    pairs: options.pairs ?? [{}],
    changes: options.changes ?? [],
    trace: {
      every,
      see: ({ at, line, delivered: total, info }) => {
        const mbitsOf = (bytes: number): string => ((bytes * 8) / every / MBIT).toFixed(1)
        const word = (offset: number): number => info?.getUint32(offset, true) ?? 0
        const since = (name: keyof Counters): number => line[name] - (before?.[name] ?? 0)
        const resent = word(Info.retransmissions)
        print(
          row([
            at.toFixed(2),
            mbitsOf(since('bytes')),
            mbitsOf(total - delivered),
            (since('waited') / Math.max(1, since('served')) / TICKS_PER_MS).toFixed(1),
            String(since('dropped')),
            String(since('lost')),
            (word(Info.srtt) / TICKS_PER_MS).toFixed(1),
            (word(Info.rto) / TICKS_PER_MS).toFixed(1),
            String(word(Info.cwnd)),
            String(word(Info.rmtWnd)),
            String(word(Info.waitsnd)),
            String(resent - retransmitted),
          ]),
        )
        before = { ...line }
        delivered = total
        retransmitted = resent
      },
    },
  })
  print(`goodput ${result.goodput.toFixed(1)} Mbit/s, efficiency ${result.efficiency.toFixed(3)}`)
}
