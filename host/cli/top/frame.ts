/**
 * Renders one frame of `top`: lines of text for a terminal of a given size. Pure: the same state gives the same lines.
 * The output never exceeds the terminal; the least important parts are omitted first.
 */
import { bytes, ms, rateText, percent as share } from '../../dashboard/format.ts'
import { LIVE_STATES } from '../../format.ts'
import { keyOf, type Rates, type Sample, type Session } from './sample.ts'

/** Sort orders of the sessions, in the order that the key `s` selects them. */
export const ORDERS = ['rate', 'rtt', 'queue', 'lost', 'age'] as const
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

const BITS = 8
const rate = (bytesPerSecond: number): string => rateText(BITS * bytesPerSecond)
const percent = (value: number): string => `${share(value)} %`

interface Column {
  readonly head: string
  readonly width: number
  /** Right-aligned. */
  readonly right: boolean
  /** Columns with a high rank are omitted first on a narrow terminal. */
  readonly rank: number
  text(session: Session, rates: Rates | undefined): string
}

const PEER: Column = { head: 'PEER', width: 21, right: false, rank: 4, text: (session) => session.peer }
const TUNNEL: Column = { head: 'TUNNEL', width: 12, right: false, rank: 4, text: (session) => session.tunnel }
const USER: Column = { head: 'USER', width: 12, right: false, rank: 6, text: (session) => session.user }
const tcpColumn = (head: string): Column => ({ ...PEER, head, text: (session) => session.tcpPeer || '-' })
/** The peer of a client is always the same: the application tells its sessions apart. */
const ADDRESSES: Readonly<Record<string, readonly [first: Column, second: Column]>> = {
  client: [tcpColumn('APPLICATION'), PEER],
  server: [PEER, tcpColumn('TARGET')],
  tunnels: [TUNNEL, PEER],
}
/** Rank of the second address. */
const SECOND_RANK = 10

const columnsOf = ({ mode, users }: Sample): readonly Column[] => {
  const [first, second] = ADDRESSES[mode] ?? [PEER]
  const own = [...(users.length > 0 ? [USER] : []), first, ...(second ? [{ ...second, rank: SECOND_RANK }] : [])]
  return FIXED.flatMap((column) => (column.head !== 'AGE' ? column : [...own, column]))
}

const FIXED: readonly Column[] = [
  { head: 'CONV', width: 8, right: false, rank: 1, text: (session) => session.conv },
  { head: 'STATE', width: 11, right: false, rank: 6, text: (session) => session.state },
  { head: 'AGE', width: 5, right: true, rank: 5, text: (session) => formatAge(session.ageSeconds) },
  { head: 'IDLE', width: 5, right: true, rank: 9, text: (session) => formatAge(session.idleSeconds) },
  { head: 'RTT', width: 6, right: true, rank: 3, text: ({ rttMs }) => (rttMs === undefined ? '-' : ms(rttMs)) },
  { head: 'QUEUE', width: 5, right: true, rank: 8, text: (session) => String(session.waiting) },
  { head: 'LOST', width: 6, right: true, rank: 7, text: (session) => String(session.lost) },
  {
    head: 'RECEIVING',
    width: 11,
    right: true,
    rank: 2,
    text: (session, rates) => rate(rateOf(session, rates).received),
  },
  { head: 'SENDING', width: 11, right: true, rank: 2, text: (session, rates) => rate(rateOf(session, rates).sent) },
]

const NO_RATE = { received: 0, sent: 0 }

const rateOf = (session: Session, rates: Rates | undefined): { received: number; sent: number } =>
  rates?.sessions.get(keyOf(session)) ?? NO_RATE

/** Sessions in the given order, then by conv. */
export function sorted(sample: Sample, rates: Rates | undefined, order: Order): readonly Session[] {
  const value = (session: Session): number => {
    if (order === 'rtt') return session.rttMs ?? -1
    if (order === 'queue') return session.waiting
    if (order === 'lost') return session.lost
    if (order === 'age') return session.ageSeconds
    const { received, sent } = rateOf(session, rates)
    return received + sent
  }
  const values = new Map(sample.sessions.map((session) => [session, value(session)]))
  const of = (session: Session): number => values.get(session) ?? 0
  return sample.sessions.toSorted((a, b) => of(b) - of(a) || (a.conv < b.conv ? -1 : 1))
}

/** The columns that fit, in display order. */
function fittingColumns(sample: Sample, width: number): readonly Column[] {
  const all = columnsOf(sample)
  const chosen = new Set<Column>()
  let left = width
  for (const column of all.toSorted((a, b) => a.rank - b.rank)) {
    if (column.width + 1 > left + (chosen.size === 0 ? 1 : 0)) continue
    left -= column.width + 1
    chosen.add(column)
  }
  return all.filter((column) => chosen.has(column))
}

function row(columns: readonly Column[], text: (column: Column) => string, spare: number): string {
  return columns
    .map((column) => {
      const width = column.width + (column.width === PEER.width && column.rank === PEER.rank ? spare : 0)
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
  const fitting = fittingColumns(sample, columns)
  const used = fitting.reduce((sum, column) => sum + column.width + 1, -1)
  // the remaining width goes to the first address, for IPv6 addresses
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

/** A line for each of several tunnels, those that do not work first; at most `rows` of them. */
function tunnelLines({ sample, rates }: View, columns: number, rows: number, style: Style): string[] {
  const all = sample?.tunnels ?? []
  if (all.length === 0 || rows < 2) return []
  const line = (name: string, mode: string, open: string, rx: string, tx: string, state: string): string =>
    cut(
      `${cut(name, 20).padEnd(20)} ${mode.padEnd(17)} ${open.padStart(5)} ${rx.padStart(11)} ${tx.padStart(11)} ${state}`,
      columns,
    )
  const shown = all.toSorted((a, b) => Number(a.ready) - Number(b.ready)).slice(0, rows - 1)
  return [
    paint(style, REVERSE, line('TUNNEL', 'MODE', 'OPEN', 'RECEIVING', 'SENDING', 'STATE').padEnd(columns)),
    ...shown.map(({ name, mode, sessions, ready, health }) => {
      const { received, sent } = rates?.tunnels.get(name) ?? NO_RATE
      const text = line(name, mode, String(sessions), rate(received), rate(sent), health)
      return ready ? text : paint(style, RED, text)
    }),
  ]
}

/** A line for each of several servers of a client, in the order of the configuration; at most `rows` of them. */
function serverLines({ sample }: View, columns: number, rows: number, style: Style): string[] {
  const all = sample?.servers ?? []
  if (all.length === 0 || rows < 2) return []
  const named = all.some(({ tunnel }) => tunnel !== '')
  const width = named ? 27 : 38
  const line = (tunnel: string, name: string, open: string, rtt: string, since: string, state: string): string => {
    const first = named ? `${cut(tunnel, 12).padEnd(12)} ` : ''
    return cut(
      `${first}${cut(name, width).padEnd(width)} ${open.padStart(5)} ${rtt.padStart(6)} ${since.padStart(5)} ${state}`,
      columns,
    )
  }
  return [
    paint(style, REVERSE, line('TUNNEL', 'SERVER', 'OPEN', 'RTT', 'SINCE', 'STATE').padEnd(columns)),
    ...all.slice(0, rows - 1).map(({ tunnel, name, sessions, rttMs, sinceSeconds, state, isUsed }) => {
      const rtt = rttMs === undefined ? '-' : ms(rttMs)
      const shown = isUsed ? `${state}, in use` : state
      const text = line(tunnel, name, String(sessions), rtt, formatAge(sinceSeconds), shown)
      return state === 'down' ? paint(style, RED, text) : text
    }),
  ]
}

/** A line for each of several users, those with the most traffic first; at most `rows` of them. */
function userLines({ sample, rates }: View, columns: number, rows: number, style: Style): string[] {
  const all = sample?.users ?? []
  if (all.length === 0 || rows < 2) return []
  const line = (name: string, open: string, rx: string, tx: string, seen: string, until: string): string =>
    cut(
      `${cut(name, 20).padEnd(20)} ${open.padStart(9)} ${rx.padStart(11)} ${tx.padStart(11)} ${seen.padStart(5)} ${until}`,
      columns,
    )
  const rateFor = (name: string): { received: number; sent: number } => rates?.users.get(name) ?? NO_RATE
  const sum = (name: string): number => rateFor(name).received + rateFor(name).sent
  const shown = all.toSorted((a, b) => sum(b.name) - sum(a.name) || b.sessions - a.sessions).slice(0, rows - 1)
  return [
    paint(style, REVERSE, line('USER', 'OPEN', 'RECEIVING', 'SENDING', 'SEEN', 'UNTIL').padEnd(columns)),
    ...shown.map(({ name, sessions, most, seenSeconds, until }) => {
      const { received, sent } = rateFor(name)
      const open = most === undefined ? String(sessions) : `${sessions}/${most}`
      return line(
        name,
        open,
        rate(received),
        rate(sent),
        seenSeconds === undefined ? '-' : formatAge(seenSeconds),
        until,
      )
    }),
  ]
}

/** Median round trip time of the sessions, ms. */
function typicalRtt(sample: Sample): string {
  const times = sample.sessions.flatMap(({ rttMs }) => rttMs ?? []).toSorted((a, b) => a - b)
  const median = times[Math.floor(times.length / 2)]
  return median === undefined ? '-' : `${ms(median)} ms`
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
    sample.problem ?? sample.health,
    columns,
  )
  lines.push(
    paint(style, BOLD, title) + paint(style, sample.ready && sample.problem === undefined ? GREEN : RED, health),
    ...troubleLines,
  )
  for (const [label, history, now] of [
    ['receiving', view.received, rates?.received ?? 0],
    ['sending', view.sent, rates?.sent ?? 0],
  ] as const) {
    const head = `${label.padEnd(9)} ${rate(now).padStart(11)} `
    lines.push(cut(head, columns) + sparkline(history, columns - head.length, style.blocks))
  }
  const facts = [
    `wire ${rate(rates?.wireReceived ?? 0)}, ${rate(rates?.wireSent ?? 0)}`,
    `rtt ${typicalRtt(sample)}`,
    `loss ${percent(rates?.loss ?? 0)}`,
    `sent twice on purpose ${percent(rates?.redundant ?? 0)}`,
    `queue ${gauge('waitsnd')} segments`,
    `engine ${bytes(gauge('memory_used'))}`,
    ...(sample.rssBytes === 0 ? [] : [`process ${bytes(sample.rssBytes)}`]),
    `cpu ${percent(rates?.cpu ?? 0)}`,
  ]
  lines.push(...flow(facts, columns))
  const counts = LIVE_STATES.map((state) => [state, gauge(`sessions_${state}`)] as const)
  const sum = counts.reduce((all, [, count]) => all + count, 0)
  const states = counts.filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`)
  const from = view.offset > 0 ? `, from #${view.offset + 1}` : ''
  const open = sum - gauge('sessions_time_wait')
  const rest = open > sample.sessions.length ? `, the ${sample.sessions.length} liveliest are listed` : ''
  lines.push(cut(`${sum} sessions${states.length > 0 ? `: ${states.join(', ')}` : ''}${rest}${from}`, columns))
  lines.push(...tunnelLines(view, columns, Math.ceil((rows - lines.length) / 2), style))
  lines.push(...serverLines(view, columns, Math.ceil((rows - lines.length) / 2), style))
  lines.push(...userLines(view, columns, Math.ceil((rows - lines.length) / 2), style))
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
