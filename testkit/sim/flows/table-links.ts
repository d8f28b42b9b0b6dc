/** Table `links`: the named links with kcptun-wasm at both ends, with a small window, and with a kcptun-libev model. */
import type { Shape } from './bottleneck.ts'
import { MSS, WINDOW_256 } from './engine.ts'
import { link, MBIT, type Options, runner } from './links.ts'
import { baseRtt, type PairSpec, type Result, settleTime } from './scenario.ts'
import { atLeast, atMost, type Figure, figure, type Table } from './table.ts'

/** Replaces the rate of a link without bottleneck. */
const UNLIMITED_MBITS = 1000
const UNLIMITED_QUICK_MBITS = 200

interface NamedLink {
  readonly name: string
  readonly shape: Shape
  readonly seconds: number
  /** Mbit/s: target of auto, figure of "window 256 tuned", figure of kcptun-libev at both ends */
  readonly auto: number
  readonly window256: number
  readonly libev: number
}

function namedLinks(quick: boolean): NamedLink[] {
  const top = quick ? UNLIMITED_QUICK_MBITS : UNLIMITED_MBITS
  const seconds = quick ? 5 : 8
  const access = { rate: 20 * MBIT, delay: 25, queueBytes: 64 << 10 }
  const sat = { rate: 50 * MBIT, delay: 300, loss: 0.01, queueBytes: 512 << 10 }
  const make = (
    name: string,
    shape: Shape,
    duration: number,
    auto: number,
    window256: number,
    libev: number,
  ): NamedLink => ({ name, shape, seconds: duration, auto: Math.min(auto, 0.8 * top), window256, libev })
  return [
    make('wan', link(top, 50, 0, 1), seconds, 300, 52.4, 26.7),
    make('lossy', link(top, 50, 0.02, 1), seconds, 200, 28.3, 7.8),
    make('bad', link(top, 50, 0.1, 1), seconds, 100, 17.9, 2.2),
    make('long', link(top, 200, 0, 1), 8, 100, 12.8, 8.2),
    make('longlossy', link(top, 200, 0.02, 1), 8, 60, 7.2, 3.6),
    make('access', access, seconds, 18, 8.4, 2.4),
    make('accesslossy', { ...access, loss: 0.02 }, seconds, 17.5, 9.5, 2.4),
    make('sat', sat, 30, 36, 2.6, 1.6),
  ]
}

const LIBEV_INTERVAL = 0.1
/** Phases of its flush interval relative to the start, ms: throughput must not depend on the phase. */
const LIBEV_PHASES = [5, 37, 70]

/** Target of sending to kcptun-libev, Mbit/s: one window per RTT rounded up to its flush interval. */
function toLibevTarget({ name, shape, libev }: NamedLink): number {
  if (name.startsWith('access')) return 4 * libev
  const intervals = Math.floor(baseRtt(shape) / LIBEV_INTERVAL + 1e-9) + 1
  const full = (0.85 * 256 * MSS * 8) / (intervals * LIBEV_INTERVAL) / MBIT
  return (shape.loss ?? 0) > 0 ? full / 2 : full
}

function fromLibevTarget({ name, libev }: NamedLink): number {
  return libev * (name === 'wan' ? 1.9 : name === 'long' ? 1.4 : 0.9)
}

export function linksTable(options: Options): Table {
  const links = namedLinks(options.quick)
  const run = runner(options)
  const measure = (pair: PairSpec): Result[] =>
    links.map(({ shape, seconds }) => run({ seed: options.seed, shape, seconds, settled: 0, pairs: [pair] }))
  const targets = (results: readonly Result[], limit: (link: NamedLink) => number): Figure[] =>
    results.map((result, i) => {
      const at = links[i]
      return at === undefined ? figure(result.fromStart, 1) : atLeast(result.fromStart, 1, limit(at))
    })
  /** The slowest of all phases. */
  const toLibev = (): Result[] =>
    LIBEV_PHASES.map((phase) => measure({ server: 'libev', phase })).reduce((least, results) =>
      results.map((result, i) => {
        const other = least[i]
        return other !== undefined && other.fromStart < result.fromStart ? other : result
      }),
    )
  let auto: readonly Result[] = []
  const rows: Table['rows'] = [
    {
      label: 'auto, Mbit/s',
      run: () => {
        auto = measure({})
        return targets(auto, (at) => at.auto)
      },
    },
    {
      label: '  settled, Mbit/s',
      run: () =>
        links.map(({ shape, seconds }, i) => {
          const bytes = (auto[i]?.bins ?? []).slice(Math.round(settleTime(shape) * 50)).reduce((a, b) => a + b, 0)
          return figure((bytes * 8) / (seconds - settleTime(shape)) / MBIT, 1)
        }),
    },
    {
      label: '  drops, %',
      run: () =>
        auto.map(({ drops }, i) => (links[i]?.name === 'access' ? atMost(100 * drops, 2, 3) : figure(100 * drops, 2))),
    },
    { label: '  payload/sent', run: () => auto.map(({ efficiency }) => figure(efficiency, 3)) },
    { label: '  mean queue, ms', run: () => auto.map(({ queueMean }) => figure(queueMean, 1)) },
    {
      label: 'window 256',
      run: () => targets(measure({ tuning: WINDOW_256 }), (at) => 0.9 * at.window256),
    },
    { label: 'auto -> libev', run: () => targets(toLibev(), toLibevTarget) },
    { label: 'libev -> auto', run: () => targets(measure({ client: 'libev' }), fromLibevTarget) },
    {
      label: 'libev -> libev',
      run: () => measure({ client: 'libev', server: 'libev' }).map(({ fromStart }) => figure(fromStart, 1)),
    },
  ]
  return {
    name: 'links',
    title: `from the first byte, Mbit/s; no bottleneck counts as ${
      options.quick ? UNLIMITED_QUICK_MBITS : UNLIMITED_MBITS
    } Mbit/s with a queue of 1 BDP`,
    columns: links.map(({ name }) => name),
    labelWidth: 22,
    rows,
  }
}
