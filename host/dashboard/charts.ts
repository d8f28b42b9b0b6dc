/** The three charts (uPlot), with theme colours, a synchronized cursor and legends accessible to screen readers. */
import uPlot from 'uplot'
import { byId, make, setText } from './dom.ts'
import { count, ms, percent, rateText } from './format.ts'
import { type Column, type History, KEPT_S, PROBLEMS } from './history.ts'

/** Minimum span of the time axis, s. */
const SPAN_MIN_S = 30
/** Ratio of the axis maximum to the largest value. */
const HEADROOM = 1.12
const SYNC_KEY = 'kcptun'
const FONT = '12px system-ui, sans-serif'

interface Series {
  readonly column: Column
  readonly label: string
  /** CSS custom property of the colour. */
  readonly tone: string
  readonly style: 'area' | 'line' | 'dashed' | 'bar'
  readonly scale: string
  /** Drawn below the axis. */
  readonly down?: boolean
  show(value: number): string
}

interface Scale {
  /** Minimum of the axis maximum. */
  readonly least: number
  /** The axis extends equally below 0. */
  readonly both?: boolean
  readonly side: 1 | 3
  /** Width of the axis, px. */
  readonly size: number
  show(value: number): string
}

interface Chart {
  readonly id: string
  readonly title: string
  readonly series: readonly Series[]
  readonly scales: Readonly<Record<string, Scale>>
}

const percentText = (value: number): string => `${percent(value / 100)} %`
const msText = (value: number): string => `${ms(value)} ms`
const axisRate = (value: number): string =>
  rateText(Math.abs(value))
    .replace(/(\.\d*?)0+(?= )/, '$1')
    .replace('. ', ' ')
const whole = (value: number): string => count(Math.round(value))

const CHARTS: readonly Chart[] = [
  {
    id: 'throughput',
    title:
      'Throughput of the last minutes in bits per second, of payload and of whole datagrams: received above the axis, sent below',
    scales: { rate: { least: 1e5, both: true, side: 3, size: 74, show: axisRate } },
    series: [
      { column: 'receiving', label: 'Receiving', tone: '--receiving', style: 'area', scale: 'rate', show: rateText },
      { column: 'wireReceiving', label: 'wire', tone: '--receiving', style: 'dashed', scale: 'rate', show: rateText },
      {
        column: 'sending',
        label: 'Sending',
        tone: '--sending',
        style: 'area',
        scale: 'rate',
        down: true,
        show: rateText,
      },
      {
        column: 'wireSending',
        label: 'wire',
        tone: '--sending',
        style: 'dashed',
        scale: 'rate',
        down: true,
        show: rateText,
      },
    ],
  },
  {
    id: 'trip',
    title: 'Round trip time in ms, and the share of segments that were lost in percent, of the last minutes',
    scales: {
      rtt: { least: 5, side: 3, size: 60, show: msText },
      loss: { least: 5, side: 1, size: 48, show: (value) => `${Number(value.toFixed(1))} %` },
    },
    series: [
      { column: 'loss', label: 'Loss', tone: '--loss', style: 'bar', scale: 'loss', show: percentText },
      { column: 'rtt', label: 'Round trip', tone: '--trip', style: 'line', scale: 'rtt', show: msText },
    ],
  },
  {
    id: 'window',
    title: 'Congestion window and queue of the last minutes, in segments',
    scales: { segments: { least: 32, side: 3, size: 60, show: whole } },
    series: [
      { column: 'queue', label: 'Queue', tone: '--queue', style: 'area', scale: 'segments', show: whole },
      { column: 'window', label: 'Window', tone: '--accent', style: 'line', scale: 'segments', show: whole },
    ],
  },
]

const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

function seriesOptions({ label, tone, style, scale }: Series): uPlot.Series {
  const stroke = (): string => colour(tone)
  const options: uPlot.Series = { label, scale, stroke, width: style === 'dashed' ? 1 : 2, points: { show: false } }
  if (style === 'area') options.fill = () => `${colour(tone)}22`
  if (style === 'dashed') options.dash = [3, 3]
  if (style === 'bar') {
    options.width = 0
    options.fill = () => `${colour(tone)}aa`
    const bars = uPlot.paths.bars?.({ size: [0.8, 6, 2] })
    if (bars !== undefined) options.paths = bars
  }
  return options
}

function axisOptions(name: string, { side, size, show }: Scale): uPlot.Axis {
  return {
    scale: name,
    side,
    size,
    font: FONT,
    gap: 6,
    space: 44,
    stroke: () => colour('--muted'),
    grid: { show: side === 3, stroke: () => colour('--grid'), width: 1 },
    ticks: { show: false },
    values: (_, splits) => splits.map((value) => (value === 0 ? '0' : show(value))),
  }
}

class Plot {
  readonly #chart: Chart
  readonly #history: History
  readonly #plot: uPlot
  readonly #values: HTMLElement[]
  /** Width of the time axis, s. */
  span = KEPT_S

  constructor(chart: Chart, history: History) {
    this.#chart = chart
    this.#history = history
    const place = byId(chart.id)
    place.setAttribute('role', 'img')
    place.setAttribute('aria-label', chart.title)
    const scales: uPlot.Scales = { x: { time: true, range: () => this.#span() } }
    for (const [name, { least, both }] of Object.entries(chart.scales)) {
      const reach = (value: number | null): number => Math.max(least, Math.abs(value ?? 0) * HEADROOM)
      scales[name] = { range: (_, min, max) => [both === true ? -reach(min) : 0, reach(max)] }
    }
    this.#plot = new uPlot(
      {
        width: Math.max(place.clientWidth, 100),
        height: place.clientHeight,
        padding: [8, Object.keys(chart.scales).length > 1 ? 0 : 24, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: SYNC_KEY }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
        scales,
        series: [{}, ...chart.series.map(seriesOptions)],
        axes: [
          {
            font: FONT,
            stroke: () => colour('--muted'),
            grid: { show: false },
            ticks: { show: false },
            space: 110,
            size: 30,
            values: (_, splits) => splits.map(timeText),
          },
          ...Object.entries(chart.scales).map(([name, scale]) => axisOptions(name, scale)),
        ],
        hooks: { setCursor: [() => this.#tell()], drawClear: [(plot) => this.#shade(plot)] },
      },
      this.#data(),
      place,
    )
    this.#values = this.#legend()
    new ResizeObserver(() => {
      this.#plot.setSize({ width: Math.max(place.clientWidth, 100), height: place.clientHeight })
    }).observe(place)
  }

  #data(): uPlot.AlignedData {
    const { times, columns } = this.#history
    const downwards = (values: (number | null)[]): (number | null)[] =>
      values.map((value) => (value === null ? null : -value))
    const values = this.#chart.series.map(({ column, down }) => (down ? downwards(columns[column]) : columns[column]))
    return [times, ...values]
  }

  #span(): [number, number] {
    const { times } = this.#history
    const end = times.at(-1) ?? Date.now() / 1000
    const first = Math.max(times[0] ?? end, end - this.span)
    return [Math.min(first, end - SPAN_MIN_S), end]
  }

  /** Colours the ground while the peer did not answer. */
  #shade(plot: uPlot): void {
    const { times, columns } = this.#history
    const { ctx, bbox } = plot
    ctx.save()
    ctx.fillStyle = `${colour('--loss')}26`
    const at = (i: number): number => {
      const x = plot.valToPos(times[i] ?? 0, 'x', true)
      return Math.min(Math.max(x, bbox.left), bbox.left + bbox.width)
    }
    for (let i = 1; i < times.length; i++) {
      if ((columns.problem[i] ?? 0) === 0) continue
      const from = at(i - 1)
      ctx.fillRect(from, bbox.top, at(i) - from, bbox.height)
    }
    ctx.restore()
  }

  #legend(): HTMLElement[] {
    const list = byId(`${this.#chart.id}-legend`)
    return this.#chart.series.map(({ label, tone, style }) => {
      const item = make('li', style === 'dashed' ? 'minor' : '')
      const swatch = make('span', `swatch ${style}`)
      swatch.style.setProperty('--tone', `var(${tone})`)
      const value = make('b')
      item.append(swatch, make('span', '', label), value)
      list.append(item)
      return value
    })
  }

  /** Shows the values at the cursor in the legend, otherwise the newest ones. */
  #tell(): void {
    const at = this.#plot.cursor.idx ?? this.#history.times.length - 1
    this.#chart.series.forEach(({ column, show }, i) => {
      const value = this.#history.columns[column][at]
      const place = this.#values[i]
      if (place) setText(place, value === null || value === undefined ? '\u2013' : show(value))
    })
    const place = document.getElementById(`${this.#chart.id}-problem`)
    const problem = this.#history.columns.problem[at] ?? 0
    if (place === null) return
    place.hidden = problem === 0
    setText(place, PROBLEMS[problem] ?? '')
  }

  draw(): void {
    this.#plot.setData(this.#data())
    this.#tell()
  }

  repaint(): void {
    this.#plot.redraw(false, true)
  }
}

const timeText = (seconds: number): string => new Date(seconds * 1000).toTimeString().slice(0, 8)

export interface Charts {
  /** Shows the last `seconds`. */
  setSpan(seconds: number): void
  /** Redraws after the history has changed. */
  draw(): void
  /** Redraws after the colours have changed. */
  repaint(): void
}

export function openCharts(history: History): Charts {
  const plots = CHARTS.map((chart) => new Plot(chart, history))
  return {
    setSpan: (seconds) => {
      for (const plot of plots) {
        plot.span = seconds
        plot.draw()
      }
    },
    draw: () => {
      for (const plot of plots) plot.draw()
    },
    repaint: () => {
      for (const plot of plots) plot.repaint()
    },
  }
}
