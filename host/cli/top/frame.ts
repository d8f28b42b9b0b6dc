/**
 * Renders one frame of `top`: lines of text for a terminal of a given size. Pure: the same state gives the same lines.
 * The output never exceeds the terminal; the least important parts are omitted first.
 */
import { formatBytes, LIVE_STATES } from '../../format.ts'
import { keyOf, type Rates, type Sample, type Session } from './sample.ts'

/** Sort orders of the sessions, in the order that the key `s` selects them. */
export const ORDERS = ['rate', 'rtt', 'waiting', 'retransmitted', 'age'] as const
export type Order = (typeof ORDERS)[number]

/** Maximum number of rates kept for a sparkline: the columns of a very wide terminal. */
export const HISTORY_MAX = 512

/** The state that is rendered. */
export interface View {
  /** Source of the statistics. */
  readonly url: string
  readonly sample: Sample | undefined
  readonly rates: Rates | undefined
  /** Bytes a second, oldest first. */
  readonly received: readonly number[]
  readonly sent: readonly number[]
  readonly order: Order
  /** Index of the first session shown. */
  readonly offset: number
  /** Error of the last request. */
  readonly trouble: string | undefined
}

export interface Style {
  readonly color: boolean
  /** Use block characters, which require UTF-8. */
  readonly blocks: boolean
  /** Show the line of keys. */
  readonly keys: boolean
}

const BLOCKS = '▁▂▃▄▅▆▇█'
const ASCII_BLOCKS = '_.-~=+*#'
const RESET = '\x1b[0m'
const BOLD = '\x1b[1m'
const REVERSE = '\x1b[7m'
const RED = '\x1b[31m'
const GREEN = '\x1b[32m'

/** Adds colour if enabled. The text must be cut to width before: colour codes take no columns. */
const paint = (style: Style, code: string, text: string): string => (style.color ? `${code}${text}${RESET}` : text)

/** Truncates to `width` characters; `~` marks a truncation. */
export function cut(text: string, width: number): string {
  if (text.length <= width) return text
  return width < 1 ? '' : `${text.slice(0, width - 1)}~`
}

/** The last `width` values as blocks, the newest at the right, scaled to the largest value shown. */
export function sparkline(values: readonly number[], width: number, blocks = true): string {
  const shown = width > 0 ? values.slice(-width) : []
  const ramp = blocks ? BLOCKS : ASCII_BLOCKS
  const top = Math.max(...shown, 0)
  const steps = ramp.length - 1
  return shown.map((value) => ramp[top > 0 ? Math.ceil((value / top) * steps) : 0] ?? '').join('')
}

/** Formats seconds as `5s`, `12m`, `3h05`, `4d`. */
export function formatAge(seconds: number): string {
  if (seconds < 60) return `${Math.floor(seconds)}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${String(Math.floor(seconds / 60) % 60).padStart(2, '0')}`
  return `${Math.floor(seconds / 86_400)}d`
}

const rate = (bytes: number): string => `${formatBytes(Math.round(bytes))}/s`
const percent = (share: number): string => `${(share * 100).toFixed(1)}%`

interface Column {
  readonly head: string
  readonly width: number
  /** Right-aligned. */
  readonly right: boolean
  /** Columns with a high rank are omitted first on a narrow terminal. */
  readonly rank: number
  text(session: Session, rates: Rates | undefined): string
}

const COLUMNS: readonly Column[] = [
  { head: 'CONV', width: 8, right: false, rank: 1, text: (session) => session.conv },
  { head: 'STATE', width: 11, right: false, rank: 6, text: (session) => session.state },
  { head: 'PEER', width: 21, right: false, rank: 4, text: (session) => session.peer },
  { head: 'AGE', width: 5, right: true, rank: 5, text: (session) => formatAge(session.ageSeconds) },
  { head: 'IDLE', width: 5, right: true, rank: 9, text: (session) => formatAge(session.idleSeconds) },
  { head: 'RTT', width: 6, right: true, rank: 3, text: ({ rttMs }) => (rttMs === undefined ? '-' : rttMs.toFixed(1)) },
  { head: 'WAIT', width: 5, right: true, rank: 8, text: (session) => String(session.waiting) },
  { head: 'RETR', width: 6, right: true, rank: 7, text: (session) => String(session.retransmitted) },
  {
    head: 'RECEIVED',
    width: 10,
    right: true,
    rank: 2,
    text: (session, rates) => rate(rateOf(session, rates).received),
  },
  { head: 'SENT', width: 10, right: true, rank: 2, text: (session, rates) => rate(rateOf(session, rates).sent) },
]

const NO_RATE = { received: 0, sent: 0 }

const rateOf = (session: Session, rates: Rates | undefined): { received: number; sent: number } =>
  rates?.sessions.get(keyOf(session)) ?? NO_RATE

/** Sessions in the given order, then by conv. */
export function sorted(sample: Sample, rates: Rates | undefined, order: Order): readonly Session[] {
  const value = (session: Session): number => {
    if (order === 'rtt') return session.rttMs ?? -1
    if (order === 'waiting') return session.waiting
    if (order === 'retransmitted') return session.retransmitted
    if (order === 'age') return session.ageSeconds
    const { received, sent } = rateOf(session, rates)
    return received + sent
  }
  const values = new Map(sample.sessions.map((session) => [session, value(session)]))
  const of = (session: Session): number => values.get(session) ?? 0
  return sample.sessions.toSorted((a, b) => of(b) - of(a) || (a.conv < b.conv ? -1 : 1))
}

/** The columns that fit, in display order. */
function fittingColumns(width: number): readonly Column[] {
  const chosen = new Set<Column>()
  let left = width
  for (const column of COLUMNS.toSorted((a, b) => a.rank - b.rank)) {
    if (column.width + 1 > left + (chosen.size === 0 ? 1 : 0)) continue
    left -= column.width + 1
    chosen.add(column)
  }
  return COLUMNS.filter((column) => chosen.has(column))
}

function row(columns: readonly Column[], text: (column: Column) => string, spare: number): string {
  return columns
    .map((column) => {
      const width = column.width + (column.head === 'PEER' ? spare : 0)
      const shown = cut(text(column), width)
      return column.right ? shown.padStart(width) : shown.padEnd(width)
    })
    .join(' ')
}

/** Left and right text of one line; the left one is truncated if they do not fit. */
function ends(left: string, right: string, width: number): readonly [string, string] {
  const room = width - right.length - 1
  return room < 1 ? [cut(left, width), ''] : [cut(left, room).padEnd(width - right.length), right]
}

/** Lines of the session table: its head and as many sessions as fit. */
function tableLines(view: View, sample: Sample, columns: number, rows: number, style: Style): string[] {
  if (rows < 2) return []
  const fitting = fittingColumns(columns)
  const used = fitting.reduce((sum, column) => sum + column.width + 1, -1)
  // the remaining width goes to the peer column, for IPv6 addresses
  const spare = Math.max(Math.min(columns - used, 26), 0)
  const all = sorted(sample, view.rates, view.order)
  const shown = all.slice(view.offset, view.offset + rows - 1)
  const head = row(fitting, ({ head }) => head, spare)
  return [
    paint(style, REVERSE, cut(head, columns).padEnd(columns)),
    ...shown.map((session) =>
      cut(
        row(fitting, ({ text }) => text(session, view.rates), spare),
        columns,
      ),
    ),
  ]
}

/** Median round trip time of the sessions, ms. */
function typicalRtt(sample: Sample): string {
  const times = sample.sessions.flatMap(({ rttMs }) => rttMs ?? []).toSorted((a, b) => a - b)
  const median = times[Math.floor(times.length / 2)]
  return median === undefined ? '-' : `${median.toFixed(1)}ms`
}

/** Renders a frame of at most `rows` lines of at most `columns` characters. */
export function frame(view: View, columns: number, rows: number, style: Style): string[] {
  const { sample, rates, trouble } = view
  const lines: string[] = []
  const troubleLines = trouble === undefined ? [] : [paint(style, RED, cut(trouble, columns))]
  if (sample === undefined) {
    return [paint(style, BOLD, cut(`kcptun-wasm top: ${view.url}`, columns)), ...troubleLines].slice(0, rows)
  }
  const { gauges } = sample
  const gauge = (name: string): number => gauges[name] ?? 0
  const [title, health] = ends(
    `${sample.program} ${sample.mode}, ${sample.runtime}, up ${formatAge(sample.uptimeMs / 1000)}`,
    sample.health,
    columns,
  )
  lines.push(paint(style, BOLD, title) + paint(style, sample.ready ? GREEN : RED, health), ...troubleLines)
  for (const [label, history, now] of [
    ['received', view.received, rates?.received ?? 0],
    ['sent', view.sent, rates?.sent ?? 0],
  ] as const) {
    const head = `${label.padEnd(9)}${rate(now).padStart(10)} `
    lines.push(cut(head, columns) + sparkline(history, columns - head.length, style.blocks))
  }
  const facts = [
    `wire ${rate(rates?.wireReceived ?? 0)} ${rate(rates?.wireSent ?? 0)}`,
    `rtt ${typicalRtt(sample)}`,
    `retransmitted ${percent(rates?.retransmitted ?? 0)}`,
    `redundant ${percent(rates?.redundant ?? 0)}`,
    `waiting ${gauge('waitsnd')}`,
    `memory ${formatBytes(gauge('memory_used'))}`,
    `cpu ${percent(rates?.cpu ?? 0)}`,
  ]
  lines.push(...flow(facts, columns))
  const counts = LIVE_STATES.map((state) => [state, gauge(`sessions_${state}`)] as const)
  const sum = counts.reduce((all, [, count]) => all + count, 0)
  const states = counts.filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`)
  const from = view.offset > 0 ? `, from #${view.offset + 1}` : ''
  lines.push(cut(`${sum} sessions${states.length > 0 ? `: ${states.join(', ')}` : ''}${from}`, columns))
  const keys = style.keys && rows > lines.length + 3
  const room = rows - lines.length - (keys ? 1 : 0)
  lines.push(...tableLines(view, sample, columns, room, style))
  if (keys) {
    while (lines.length < rows - 1) lines.push('')
    lines.push(cut(`q quit   s sort order: ${view.order}   arrows scroll`, columns))
  }
  return lines.slice(0, Math.max(rows, 0))
}

/** Joins facts into lines, wrapped at `columns`. */
function flow(facts: readonly string[], columns: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const fact of facts) {
    if (line !== '' && line.length + 3 + fact.length > columns) {
      lines.push(cut(line, columns))
      line = ''
    }
    line = line === '' ? fact : `${line}   ${fact}`
  }
  lines.push(cut(line, columns))
  return lines
}
