/** The page: sliders of the link, a transfer in both lanes, and what is measured. */

import { makeChart } from './charts.ts'
import type { Lane } from './lane.ts'
import type { LinkSettings } from './link.ts'
import { Meter } from './meter.ts'
import { Ours } from './ours.ts'
import { Plain } from './plain.ts'

const SAMPLE_MS = 250
const MIB = 1 << 20
const KB = 1000

function element<Type extends HTMLElement>(id: string): Type {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`no element ${id}`)
  return found as Type
}

const settings: LinkSettings = { roundTrip: 0, loss: 0, rate: 0, queue: 0 }
/** Factors from the numbers of the sliders. */
const FACTORS = { roundTrip: 1, loss: 0.01, rate: 1, queue: KB }

for (const name of ['roundTrip', 'loss', 'rate', 'queue'] as const) {
  const slider = element<HTMLInputElement>(name)
  const apply = (): void => {
    settings[name] = slider.valueAsNumber * FACTORS[name]
    const text = `${slider.value} ${slider.dataset['unit']}`
    element(`${name}-value`).textContent = text
    slider.setAttribute('aria-valuetext', text)
  }
  slider.addEventListener('input', apply)
  apply()
}

const FIGURES = ['goodput', 'roundTrip', 'lost', 'queued'] as const
const charts = FIGURES.map((name) => makeChart(element(`${name}-chart`)))
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const chart of charts) chart.repaint()
})

const [ours, plain] = [await Ours.open(settings), new Plain(settings)]
const meters = { ours: new Meter(ours), plain: new Meter(plain) }

function show(lane: keyof typeof meters): readonly (number | null)[] {
  const meter = meters[lane]
  const { goodput, roundTrip, lost, queued } = meter.sample()
  element(`${lane}-goodput`).textContent = (meter.isFinished ? meter.average : goodput).toFixed(1)
  element(`${lane}-roundTrip`).textContent = roundTrip === null ? '–' : `${Math.round(roundTrip)} ms`
  element(`${lane}-lost`).textContent = `${lost.toFixed(1)} %`
  element(`${lane}-state`).textContent = meter.state
  const bar = element<HTMLProgressElement>(`${lane}-progress`)
  bar.value = meter.progress
  return [goodput, roundTrip, lost, queued / KB]
}

const began = performance.now()
setInterval(() => {
  const [left, right] = [show('ours'), show('plain')]
  const time = (performance.now() - began) / 1000
  charts.forEach((chart, i) => {
    chart.add(time, left[i] ?? null, right[i] ?? null)
  })
}, SAMPLE_MS)

const size = element<HTMLSelectElement>('size')
const start = (): void => {
  const bytes = size.value === '' ? Number.POSITIVE_INFINITY : Number(size.value) * MIB
  const lanes: readonly [Lane, Meter][] = [
    [ours, meters.ours],
    [plain, meters.plain],
  ]
  for (const [lane, meter] of lanes) {
    void lane.start(bytes)
    meter.begin(bytes)
  }
}
element('start').addEventListener('click', start)
start()
