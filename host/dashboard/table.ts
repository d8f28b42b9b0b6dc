/** The session table: sortable by every column; the row of a session is reused. */
import { byId, make, setText } from './dom.ts'
import { bytes, count, duration, ms, NONE, rateText } from './format.ts'
import type { Fields, Sample, Session } from './sample.ts'

/** A session with its rates, bits per second. */
interface Line extends Session {
  readonly receiving: number
  readonly sending: number
}

interface Column {
  readonly title: string
  readonly className: string
  /** Sort key. Texts are first sorted ascending, numbers descending. */
  key(line: Line): string | number
  show(line: Line): string
}

const STATES: Readonly<Record<string, string>> = {
  connect: 'connecting',
  established: 'connected',
  linger: 'closing',
  time_wait: 'closed',
}

const tcpOf = (line: Line): string => line.tcp_peer ?? NONE

const tunnelOf = ({ tunnel }: Line): string => tunnel ?? NONE

const userOf = ({ user }: Line): string => user ?? NONE

const COLUMNS: readonly Column[] = [
  { title: 'Session', className: 'text code minor', key: (line) => line.conv, show: (line) => line.conv },
  { title: 'State', className: 'text', key: (line) => line.state, show: (line) => STATES[line.state] ?? line.state },
  { title: 'Tunnel', className: 'text at-tunnels', key: tunnelOf, show: tunnelOf },
  { title: 'User', className: 'text at-users', key: userOf, show: userOf },
  { title: 'Client', className: 'text code at-server', key: (line) => line.peer, show: (line) => line.peer },
  { title: 'Application', className: 'text code at-client', key: tcpOf, show: tcpOf },
  { title: 'Target', className: 'text code minor at-server', key: tcpOf, show: tcpOf },
  { title: 'Receiving', className: '', key: (line) => line.receiving, show: (line) => rateCell(line.receiving) },
  { title: 'Sending', className: '', key: (line) => line.sending, show: (line) => rateCell(line.sending) },
  { title: 'Round trip', className: '', key: (line) => line.rtt_ms ?? -1, show: (line) => tripText(line.rtt_ms) },
  {
    title: 'Queue',
    className: 'minor',
    key: (line) => line.waitsnd_segments,
    show: (line) => count(line.waitsnd_segments),
  },
  { title: 'Window', className: 'minor', key: (line) => line.cwnd_segments, show: (line) => count(line.cwnd_segments) },
  {
    title: 'Lost',
    className: 'minor',
    key: (line) => line.retransmitted_segments,
    show: (line) => count(line.retransmitted_segments),
  },
  {
    title: 'Received',
    className: 'minor',
    key: (line) => line.tcp_written_bytes,
    show: (line) => bytes(line.tcp_written_bytes),
  },
  { title: 'Sent', className: 'minor', key: (line) => line.tcp_read_bytes, show: (line) => bytes(line.tcp_read_bytes) },
  { title: 'Idle', className: 'minor', key: (line) => line.idle_seconds, show: (line) => duration(line.idle_seconds) },
  { title: 'Age', className: 'minor', key: (line) => line.age_seconds, show: (line) => duration(line.age_seconds) },
]

/** Many lines without traffic are easier to read without units. */
const rateCell = (bits: number): string => (bits === 0 ? '0' : rateText(bits))
const tripText = (value: number | null): string => (value === null ? NONE : `${ms(value)} ms`)
/** Whether nothing of it is left to do. */
const isClosed = ({ state, waitsnd_segments }: Session): boolean =>
  state === 'time_wait' || (state === 'linger' && waitsnd_segments === 0)
const isOpen = ({ state }: Session): boolean => state === 'connect' || state === 'established'
const keyOf = ({ tunnel, conv, peer }: Session): string => `${tunnel} ${conv} ${peer}`

export class SessionTable {
  readonly #body = byId('sessions-body')
  readonly #heads: HTMLElement[]
  readonly #rows = new Map<string, HTMLElement>()
  #before = new Map<string, { readonly at: number; readonly line: Line }>()
  #lines: Line[] = []
  /** Number of sessions by state. */
  #counts: number[] = []
  #empty = ''
  /** Sort column and direction; initially the order of the samples. */
  #by = -1
  #up = false
  /** Whether closed sessions are listed. */
  #withClosed = false

  constructor() {
    byId('closed').addEventListener('click', () => {
      this.#withClosed = !this.#withClosed
      this.#summarize()
      this.#draw()
    })
    const head = byId('sessions-head')
    this.#heads = COLUMNS.map(({ title, className, key }, i) => {
      const cell = make('th', className.replace('code', ''))
      cell.setAttribute('scope', 'col')
      const button = make('button', '', title)
      button.setAttribute('type', 'button')
      button.addEventListener('click', () => {
        const [line] = this.#lines
        this.#up = this.#by === i ? !this.#up : line !== undefined && typeof key(line) === 'string'
        this.#by = i
        this.#draw()
      })
      cell.append(button)
      head.append(cell)
      return cell
    })
  }

  show({ sessions, gauges, uptime_ms: at }: Sample, empty: string): void {
    const before = this.#before
    this.#before = new Map()
    this.#lines = sessions.map((session) => {
      const key = keyOf(session)
      const old = before.get(key)
      // the session list may be updated less often than samples
      const same =
        old !== undefined && old.line.age_seconds === session.age_seconds && total(old.line) === total(session)
      if (same && at - old.at < 2000) {
        this.#before.set(key, old)
        return { ...session, receiving: old.line.receiving, sending: old.line.sending }
      }
      const bits = (now: number, then: number | undefined): number =>
        old === undefined || then === undefined ? 0 : Math.max(0, ((now - then) * 8000) / (at - old.at))
      const line = {
        ...session,
        receiving: bits(session.tcp_written_bytes, old?.line.tcp_written_bytes),
        sending: bits(session.tcp_read_bytes, old?.line.tcp_read_bytes),
      }
      this.#before.set(key, { at, line })
      return line
    })
    this.#counts = Object.keys(STATES).map((state) => gauges[`sessions_${state}`] ?? 0)
    this.#empty = empty
    this.#summarize()
    this.#draw()
  }

  /** The sessions that are listed. */
  get #listed(): Line[] {
    return this.#withClosed ? [...this.#lines] : this.#lines.filter((line) => !isClosed(line))
  }

  /** The line above the table. */
  #summarize(): void {
    const listed = this.#listed
    const { length } = listed
    const [connecting = 0, connected = 0, ...over] = this.#counts
    const ended = over.reduce((sum, value) => sum + value, 0)
    const isHiding = this.#lines.some(isClosed)
    const names = Object.values(STATES)
    const parts = this.#counts.flatMap((value, i) => (value === 0 ? [] : [`${count(value)} ${names[i]}`]))
    const open = connecting + connected
    const rest = this.#withClosed ? open + ended - length : open - listed.filter(isOpen).length
    const more = rest > 0 ? `; the ${length} liveliest are listed, ${count(rest)} more are not` : ''
    setText(byId('sessions-sub'), `${parts.join(', ')}${more}`)
    const button = byId('closed')
    button.hidden = !isHiding
    setText(button, this.#withClosed ? 'Hide closed' : 'Show closed')
    button.setAttribute('aria-pressed', String(this.#withClosed))
    byId('sessions').hidden = length === 0
    byId('sessions-empty').hidden = length > 0
    setText(byId('sessions-empty'), isHiding ? 'No open session.' : this.#empty)
  }

  #draw(): void {
    const column = COLUMNS[this.#by]
    const lines = this.#listed
    if (column !== undefined) {
      const order = this.#up ? 1 : -1
      lines.sort((a, b) => {
        const [x, y] = [column.key(a), column.key(b)]
        return order * (x < y ? -1 : x > y ? 1 : 0)
      })
    }
    this.#heads.forEach((cell, i) => {
      if (i === this.#by) cell.setAttribute('aria-sort', this.#up ? 'ascending' : 'descending')
      else cell.removeAttribute('aria-sort')
    })
    const kept = new Set<string>()
    lines.forEach((line, place) => {
      const key = keyOf(line)
      kept.add(key)
      const row = this.#rows.get(key) ?? this.#add(key)
      COLUMNS.forEach(({ title, show }, i) => {
        const cell = row.children[i]
        if (cell === undefined) return
        const target = title === 'State' ? (cell.firstElementChild ?? cell) : cell
        if (title === 'State') target.className = `pill ${STATES[line.state] === undefined ? 'unknown' : line.state}`
        setText(target, show(line))
      })
      if (this.#body.children[place] !== row) this.#body.insertBefore(row, this.#body.children[place] ?? null)
    })
    for (const [key, row] of this.#rows) {
      if (kept.has(key)) continue
      row.remove()
      this.#rows.delete(key)
    }
  }

  #add(key: string): HTMLElement {
    const row = make('tr')
    for (const { title, className } of COLUMNS) {
      const cell = make('td', className)
      if (title === 'State') cell.append(make('span'))
      row.append(cell)
    }
    this.#rows.set(key, row)
    return row
  }
}

const total = (session: Session): number => session.tcp_read_bytes + session.tcp_written_bytes

/** Formats a field of a context by the unit in its name. */
function fieldText(name: string, value: Fields[string] | undefined): string {
  if (value === undefined || value === null) return NONE
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (typeof value !== 'number') return value
  if (name.endsWith('_bytes')) return bytes(value)
  if (name.endsWith('_ms')) return ms(value)
  return name.endsWith('_seconds') ? duration(value) : count(value)
}

const titleOf = (name: string): string =>
  name
    .replace(/_(?:bytes|seconds)$/, '')
    .replace(/_ms$/, ' (ms)')
    .replaceAll('_', ' ')

/**
 * Shows a list; each field becomes a column.
 * @param minor fields for which a narrow screen has no room
 */
function showList(
  id: 'contexts' | 'servers' | 'users',
  list: readonly Fields[],
  summary: string,
  minor: readonly string[] = [],
): void {
  const names = Object.keys(list[0] ?? {})
  const classOf = (name: string): string => (minor.includes(name) ? 'text minor' : 'text')
  byId(`${id}-scroll`).hidden = names.length === 0
  byId(`${id}-head`).replaceChildren(
    ...names.map((name) => {
      const cell = make('th', classOf(name))
      cell.setAttribute('scope', 'col')
      cell.append(make('span', '', titleOf(name)))
      return cell
    }),
  )
  byId(`${id}-body`).replaceChildren(
    ...list.map((line) => {
      const row = make('tr')
      row.append(...names.map((name) => make('td', classOf(name), fieldText(name, line[name]))))
      return row
    }),
  )
  setText(byId(`${id}-sub`), summary)
}

/** Shows the contexts of the obfuscator. */
export function showContexts({ contexts, gauges }: Sample): void {
  byId('contexts').hidden = contexts === undefined
  if (contexts === undefined) return
  const all = gauges['obfs_contexts'] ?? contexts.length
  const rest = all > contexts.length ? `, ${contexts.length} are listed` : ''
  showList('contexts', contexts, `${count(all)} ${all === 1 ? 'context' : 'contexts'}${rest}`)
}

/** Shows the servers of a client with several. */
export function showServers({ servers }: Sample): void {
  byId('servers').hidden = servers === undefined
  if (servers === undefined) return
  const up = servers.filter(({ state }) => state === 'up').length
  showList('servers', servers, `${up} of ${servers.length} up`)
}

/** Those of the previous sample, for their rates. */
let usersBefore: { readonly uptime_ms: number; readonly keys: Sample['keys'] | undefined } | undefined

/** Shows who uses a server with several keys. */
export function showUsers({ keys, uptime_ms }: Sample): void {
  byId('users').hidden = keys === undefined
  document.body.toggleAttribute('data-users', keys !== undefined)
  const before = usersBefore
  usersBefore = { uptime_ms, keys }
  if (keys === undefined) return
  const elapsed = uptime_ms - (before?.uptime_ms ?? uptime_ms)
  const lines = keys.map((key) => {
    const then = before?.keys?.find(({ name }) => name === key.name)
    const rateOf = (now: number, old = now): string =>
      rateCell(elapsed > 0 ? (Math.max(0, now - old) * 8000) / elapsed : 0)
    return {
      user: key.name,
      sessions:
        key.max_sessions === null ? count(key.sessions) : `${count(key.sessions)} of ${count(key.max_sessions)}`,
      receiving: rateOf(key.tcp_written_bytes, then?.tcp_written_bytes),
      sending: rateOf(key.tcp_read_bytes, then?.tcp_read_bytes),
      received_bytes: key.tcp_written_bytes,
      sent_bytes: key.tcp_read_bytes,
      refused: key.sessions_refused,
      last_seen_seconds: key.last_seen_seconds,
      valid_until: key.not_after,
    }
  })
  const used = keys.filter(({ sessions }) => sessions > 0).length
  const minor = ['received_bytes', 'sent_bytes', 'refused', 'last_seen_seconds', 'valid_until']
  showList('users', lines, `${used} of ${keys.length} ${used === 1 ? 'has' : 'have'} sessions`, minor)
}
