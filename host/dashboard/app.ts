/**
 * The dashboard page: displays the samples of `/events`. Read-only and self-contained; bundled by build/pages.mjs.
 */
import { openCharts } from './charts.ts'
import { choose, chosenTunnel, showChooser } from './chooser.ts'
import { byId, make, setPairs, setText } from './dom.ts'
import { bytes, count, duration, ms, percent, rate, rateText } from './format.ts'
import { explain, explainHeadings } from './help.ts'
import { History } from './history.ts'
import type { Hello, Sample, Warning } from './sample.ts'
import { Stream } from './stream.ts'
import { SessionTable, showContexts, showServers, showUsers } from './table.ts'
import { detailPairs, emptyText, endPairs, linkText, stripPairs } from './texts.ts'

const TOKEN_KEY = 'kcptun-http-token'
const THEME_KEY = 'kcptun-theme'
/** Without an event for this time the connection counts as lost, ms. */
const LOST_MS = 2500
/** A hidden page disconnects after this time, ms. */
const HIDDEN_MS = 10_000
const RANGE_KEY = 'kcptun-range'
/** Number of samples over which the loss is computed. */
const LOSS_SAMPLES = 20

const history = new History()
const charts = openCharts(history)
const table = new SessionTable()
let about: Hello['about'] = {}
let recent: Sample[] = []
let heardAt = performance.now()
let paused = false
let unseenWarnings: readonly Warning[] | undefined

function say(mood: string, state: string, detail: string): void {
  document.body.dataset['state'] = mood
  setText(byId('state'), state)
  setText(byId('detail'), detail)
}

function showWarnings(warnings: readonly Warning[]): void {
  byId('warnings-empty').hidden = warnings.length > 0
  byId('warnings').hidden = warnings.length === 0
  byId('warnings').replaceChildren(
    ...warnings.toReversed().map(({ at, level, text }) => {
      const item = make('li', level < 3 ? 'error' : '')
      const when = new Date(at)
      const time = make('time', '', when.toLocaleTimeString('en-GB'))
      time.setAttribute('datetime', when.toISOString())
      item.append(time, make('p', '', text))
      return item
    }),
  )
}

function big(id: string, text: string, value: number | null): void {
  const place = byId(id)
  setText(place, text)
  place.dataset['value'] = String(value ?? '')
}

/** The line below a figure. @param rest is left out where there is little room */
function showSub(id: string, text: string, rest: string): void {
  const place = byId(`${id}-sub`)
  if (place.textContent !== text + rest) place.replaceChildren(text, make('span', 'minor', rest))
}

/** Shows payload rate, wire rate and total of one direction. */
function showDirection(id: 'rx' | 'tx', bits: number, wire: number, total: number): void {
  const [value, unit] = rate(bits)
  big(id, value, bits)
  setText(byId(`${id}-unit`), unit)
  byId(`${id}-sub`).dataset['value'] = String(total)
  showSub(id, `${rateText(wire)} on the wire`, ` · ${bytes(total)}`)
}

function showLoss(sample: Sample): void {
  const first = recent[0] ?? sample
  const grown = (name: string): number => (sample.counters[name] ?? 0) - (first.counters[name] ?? 0)
  const sent = grown('segments_sent') - grown('segments_redundant')
  const share = sent > 0 ? grown('segments_retransmitted') / sent : 0
  big('loss', percent(share), share)
  const lost = sample.counters['segments_retransmitted'] ?? 0
  const once = (sample.counters['segments_sent'] ?? 0) - (sample.counters['segments_redundant'] ?? 0)
  if (once === 0) setText(byId('loss-sub'), 'nothing sent yet')
  else showSub('loss', `${count(lost)} of ${count(once)}`, ' segments')
}

function showTrip(sample: Sample): void {
  const rtt = sample.link.state === 'silent' ? null : sample.link.rtt_ms
  big('rtt', ms(rtt), rtt)
  const seen = history.columns.rtt.filter((value) => value !== null)
  const lowest = seen.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY)
  const variation = sample.path === null ? '' : `± ${ms(sample.path.rttvar_ms)} · `
  setText(byId('rtt-sub'), seen.length === 0 ? 'not measured yet' : `${variation}lowest ${ms(lowest)} ms`)
}

function showSample(sample: Sample): void {
  // the history is by the program's clock
  const at = Date.parse(sample.time)
  const { program, counters } = sample
  const before = recent.findLast(({ uptime_ms }) => sample.uptime_ms - uptime_ms >= 1000) ?? recent[0]
  if (before !== undefined && before.uptime_ms > sample.uptime_ms) recent = []
  const row = history.add(at, sample)
  if (sample.warnings !== undefined) unseenWarnings = sample.warnings
  if (!paused) {
    setText(byId('mode'), program.mode)
    byId('mode').hidden = false
    document.body.dataset['mode'] = program.mode
    document.body.dataset['carries'] = ['client', 'server', 'tunnels'].includes(program.mode) ? 'yes' : 'no'
    document.title = `${chosenTunnel || program.mode} · ${program.name}`
    showChooser(sample.tunnels)
    setText(
      byId('meta'),
      `${program.version} · ${program.runtime} ${program.runtime_version} · up ${duration(sample.uptime_ms / 1000)}`,
    )
    const { mood, state, detail } = linkText(sample, about)
    say(mood, state, detail)
    setPairs(byId('ends'), endPairs(sample, about))
    showDirection('rx', row.receiving ?? 0, row.wireReceiving ?? 0, counters['tcp_written_bytes'] ?? 0)
    showDirection('tx', row.sending ?? 0, row.wireSending ?? 0, counters['tcp_read_bytes'] ?? 0)
    showTrip(sample)
    showLoss(sample)
    setPairs(byId('strip'), stripPairs(sample, before, about), explain)
    setPairs(
      byId('details'),
      detailPairs(sample, about, Math.max(row.wireReceiving ?? 0, row.wireSending ?? 0)),
      explain,
    )
    table.show(sample, emptyText(program.mode, about))
    showServers(sample)
    showUsers(sample)
    showContexts(sample)
    if (unseenWarnings !== undefined) showWarnings(unseenWarnings)
    unseenWarnings = undefined
    charts.draw()
  }
  recent = [...recent.slice(1 - LOSS_SAMPLES), sample]
}

/** Shows either the token form or the statistics. */
function lock(locked: boolean, text = ''): void {
  byId('token').hidden = !locked
  byId('all').hidden = locked
  if (!locked) return
  if (text !== '') setText(byId('token-text'), text)
  byId('token-input').focus()
}

function onEvent(name: string, data: string): void {
  heardAt = performance.now()
  document.body.classList.remove('stale')
  if (!byId('token').hidden) lock(false)
  if (name === 'hello') {
    const hello: Hello = JSON.parse(data)
    about = hello.about
    unseenWarnings = hello.warnings
    if (hello.history !== undefined) history.load(hello.history)
  } else if (name === 'sample') {
    showSample(JSON.parse(data))
  }
}

function onEnd(status: number | undefined): void {
  if (status === 401) {
    lock(true, stream.token === '' ? '' : 'That is not the token. Enter the http_token of its configuration.')
    sessionStorage.removeItem(TOKEN_KEY)
  } else if (status === 404 && chosenTunnel !== '') {
    // a reload of the program removed it
    choose('')
  } else if (status !== undefined) {
    say('bad', `The program answers ${status}`, 'Reload the page, or look at its log.')
  }
}

function onCrowded(): void {
  say(
    'warn',
    'Too many dashboards',
    'Another one took the place of this one. Close some; this one tries again in a minute.',
  )
}

const stream = new Stream({ onEvent, onEnd, onCrowded }, chosenTunnel)

function watchForLoss(): void {
  if (document.hidden || !byId('token').hidden || performance.now() - heardAt < LOST_MS) return
  document.body.classList.add('stale')
  if (byId('state').textContent === 'Too many dashboards') return
  say('bad', 'Lost contact with the program', 'It has ended, or cannot be reached from here. Trying again.')
}

// Theme, pause, token, visibility

const darkPreferred = matchMedia('(prefers-color-scheme: dark)')

function theme(): 'light' | 'dark' {
  const chosen = localStorage.getItem(THEME_KEY)
  if (chosen === 'light' || chosen === 'dark') return chosen
  return darkPreferred.matches ? 'dark' : 'light'
}

function applyTheme(): void {
  const now = theme()
  document.documentElement.dataset['theme'] = now
  const other = now === 'dark' ? 'Light' : 'Dark'
  setText(byId('theme'), other)
  byId('theme').setAttribute('aria-label', `${other} colours`)
  charts.repaint()
}

byId('theme').addEventListener('click', () => {
  localStorage.setItem(THEME_KEY, theme() === 'dark' ? 'light' : 'dark')
  applyTheme()
})
darkPreferred.addEventListener('change', applyTheme)

for (const button of byId('range').querySelectorAll('button')) {
  button.addEventListener('click', () => {
    localStorage.setItem(RANGE_KEY, button.value)
    applyRange()
  })
}

/** Shows as many minutes as were chosen. */
function applyRange(): void {
  const chosen = localStorage.getItem(RANGE_KEY)
  const buttons = [...byId('range').querySelectorAll('button')]
  const current = buttons.find(({ value }) => value === chosen) ?? buttons.at(-1)
  for (const button of buttons) button.setAttribute('aria-pressed', String(button === current))
  charts.setSpan(60 * Number(current?.value))
}

byId('pause').addEventListener('click', () => {
  paused = !paused
  setText(byId('pause'), paused ? 'Resume' : 'Pause')
})

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault()
  const input = byId('token-input')
  if (!(input instanceof HTMLInputElement)) return
  stream.token = input.value
  sessionStorage.setItem(TOKEN_KEY, input.value)
  input.value = ''
  stream.stop()
  stream.start()
})

let letGo: number | undefined
document.addEventListener('visibilitychange', () => {
  clearTimeout(letGo)
  if (document.hidden) letGo = window.setTimeout(() => stream.stop(), HIDDEN_MS)
  else {
    heardAt = performance.now()
    if (byId('token').hidden) stream.start()
  }
})

// scrollable regions must be focusable for keyboard scrolling
for (const id of ['warnings', 'contexts-scroll']) byId(id).tabIndex = 0

explainHeadings()
applyTheme()
applyRange()
stream.token = sessionStorage.getItem(TOKEN_KEY) ?? ''
stream.start()
setInterval(watchForLoss, 500)
