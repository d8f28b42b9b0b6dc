/** Live charts of figures of two lanes, of the last half minute. */

import uPlot from 'uplot'

export interface Chart {
  /** Adds a value of each lane at `time`, s. null: none. */
  add(time: number, ours: number | null, plain: number | null): void
  /** Takes the colours of the page again. */
  repaint(): void
}

const WINDOW_S = 30
const HEIGHT_PX = 130

const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)
const round = (value: number): string => String(Math.round(value * 100) / 100)

/** Puts a chart into an element. */
export function makeChart(parent: HTMLElement): Chart {
  const data: [number[], (number | null)[], (number | null)[]] = [[], [], []]
  const axis = (size: number): uPlot.Axis => ({
    stroke: () => colour('muted'),
    grid: { stroke: () => colour('grid'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
    size,
  })
  const line = (name: string): uPlot.Series => ({ stroke: () => colour(name), width: 2, points: { show: false } })
  const width = (): number => Math.max(parent.clientWidth, 200)
  // uPlot leaves room for labels that are not there
  const padding: uPlot.Padding = [6, 16, 0, 0]
  const plot = new uPlot(
    {
      width: width(),
      height: HEIGHT_PX,
      padding,
      legend: { show: false },
      cursor: { show: false },
      series: [{}, line('ours'), line('plain')],
      scales: {
        x: { time: false, range: (_plot, _min, max) => [Math.max(0, max - WINDOW_S), Math.max(WINDOW_S, max)] },
        y: { range: (_plot, _min, max) => [0, Math.max(max, 0.1) * 1.1] },
      },
      axes: [
        { ...axis(22), values: (_plot, at) => at.map((time) => `${time} s`) },
        { ...axis(40), values: (_plot, at) => at.map(round), space: 30 },
      ],
    },
    data,
    parent,
  )
  new ResizeObserver(() => plot.setSize({ width: width(), height: HEIGHT_PX })).observe(parent)
  return {
    add(time, ours, plain) {
      data[0].push(time)
      data[1].push(ours)
      data[2].push(plain)
      while ((data[0][0] ?? time) < time - WINDOW_S) for (const column of data) column.shift()
      plot.setData(data)
    },
    repaint: () => plot.redraw(),
  }
}
