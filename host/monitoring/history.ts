/**
 * The last minutes of an endpoint by the second, for those who look after something has happened. Recorded only where
 * there is a monitoring server.
 *
 * It has no timer: it looks when the driver has drained the engine, or when it is asked. A second without traffic and
 * without a change has no row. What a drain costs is a few loads and additions, and nothing is allocated; the rows are
 * one block of a fixed size.
 */

import { COUNTERS, type Core, type CounterName, Info, SessionState, TICKS_PER_MS } from '../engine/core.ts'

/** Length of the history, s. As a second has one row at most, also the maximum number of rows. */
export const HISTORY_S = 900
/** What a row holds: the second since 1970, growth of counters in it, gauges at its end, and the problem. */
export const HISTORY_COLUMNS = [
  'time',
  'tcp_written_bytes',
  'tcp_read_bytes',
  'pkt_received_bytes',
  'pkt_sent_bytes',
  'segments_sent',
  'segments_redundant',
  'segments_retransmitted',
  'rtt_ms',
  'cwnd_segments',
  'waitsnd_segments',
  'problem',
] as const
const WIDTH = HISTORY_COLUMNS.length

/** A row by HISTORY_COLUMNS; null: not known. */
export type HistoryRow = readonly (number | null)[]

/** Values of the last column. */
export const HistoryProblem = { none: 0, silent: 1, refused: 2, unreachable: 3 } as const

const GROWING = HISTORY_COLUMNS.slice(1, 8) as readonly CounterName[]
const COLUMN = { growth: 1, received: 3, rtt: 8, window: 9, queue: 10, problem: 11 } as const

/** Seconds without a datagram, while data or pings are unanswered, after which the peer counts as silent. */
const SILENT_S = 2
/** Sessions are looked at this often for the round trip time, ms, and this many at a time. */
const PATH_MS = 250
const PATH_SLOTS = 64
/** Maximum idle time of a session that is representative of the path, s. */
const FRESH_S = 3
const NO_TICKS = 0xffffffff
/** No row has this value: NaN would not equal itself. */
const UNKNOWN = -1

/** What is recorded. */
export interface HistorySource {
  readonly core: Core
  readonly dead: boolean
  /** Round trip time of the last answered PING, ms. */
  readonly pongRtt: number | undefined
  readonly peerLog: { readonly problem: { readonly kind: string } | undefined }
  now(): number
}

const wordOf = (name: CounterName): number => 2 * COUNTERS.indexOf(name)
const GROWING_WORDS = GROWING.map(wordOf)
const WAITSND = wordOf('waitsnd')
const SILENT_PINGS = wordOf('peer_silent_pings')
const PONGS = wordOf('pongs_received')

export class History {
  readonly #source: HistorySource
  readonly #wall: () => number
  /** A ring of rows. */
  readonly #rows = new Float64Array(HISTORY_S * WIDTH)
  #newest = -1
  #count = 0
  /** The row of the current second. */
  readonly #row = new Float64Array(WIDTH)
  /** Low words of the counters when they were last read, which suffice for differences. */
  readonly #seen = new Uint32Array(GROWING.length + 1)
  #core: Core | undefined
  /** The last second in which a datagram arrived. */
  #heardAt = 0
  #slot = 0
  /** The slot of the session that was most active when sessions were last looked at. */
  #activeSlot = 0
  #pathAt = 0
  /** Activity of the session that the current row has its path from: idle time, then bytes. */
  #idle = 0
  #bytes = 0

  /** @param wall ms since 1970 */
  constructor(source: HistorySource, wall: () => number) {
    this.#source = source
    this.#wall = wall
    this.#heardAt = Math.floor(wall() / 1000)
    this.#begin(this.#heardAt)
    if (!source.dead) this.#read()
    this.#row.fill(0, COLUMN.growth, COLUMN.rtt)
  }

  /** The engine was drained. */
  readonly onDrained = (): void => {
    if (this.#source.dead) return
    const ms = this.#wall()
    const second = Math.floor(ms / 1000)
    if (second !== this.#row[0]) this.#turn(second)
    this.#read()
    // also when the clock was set back
    if (Math.abs(ms - this.#pathAt) < PATH_MS) return
    this.#pathAt = ms
    this.#readPath()
  }

  /** The rows of the last HISTORY_S seconds, oldest first; the current second is not over and has none. */
  rows(): HistoryRow[] {
    const second = Math.floor(this.#wall() / 1000)
    if (second !== this.#row[0]) this.#turn(second)
    const rows: HistoryRow[] = []
    for (let back = this.#count - 1; back >= 0; back--) {
      const at = ((this.#newest - back + HISTORY_S) % HISTORY_S) * WIDTH
      if ((this.#rows[at] ?? 0) < second - HISTORY_S) continue
      rows.push(Array.from(this.#rows.subarray(at, at + WIDTH), (value) => (value === UNKNOWN ? null : value)))
    }
    return rows
  }

  /** Ends the current second and begins another one. */
  #turn(second: number): void {
    // the clock was set back: what follows replaces the rows of those seconds
    while (this.#count > 0 && (this.#rows[this.#newest * WIDTH] ?? 0) >= second) {
      this.#newest = (this.#newest - 1 + HISTORY_S) % HISTORY_S
      this.#count--
    }
    const row = this.#row
    const ended = row[0] ?? 0
    // what sessions measured before is not the round trip now
    if (row[COLUMN.problem] !== HistoryProblem.none) row[COLUMN.rtt] = UNKNOWN
    if (second < ended) this.#heardAt = second
    else if (this.#isWorthKeeping()) {
      this.#newest = (this.#newest + 1) % HISTORY_S
      this.#count = Math.min(this.#count + 1, HISTORY_S)
      this.#rows.set(row, this.#newest * WIDTH)
    }
    this.#begin(second)
  }

  /** Whether there was traffic, or anything else than in the row before. */
  #isWorthKeeping(): boolean {
    for (let i = COLUMN.growth; i < COLUMN.rtt; i++) if (this.#row[i] !== 0) return true
    const before = this.#newest * WIDTH
    const isSame = (column: number, first: number): boolean =>
      this.#row[column] === (this.#count === 0 ? first : this.#rows[before + column])
    return !isSame(COLUMN.queue, 0) || !isSame(COLUMN.problem, HistoryProblem.none)
  }

  #begin(second: number): void {
    const row = this.#row
    row[0] = second
    row.fill(0, COLUMN.growth, COLUMN.rtt)
    row[COLUMN.rtt] = row[COLUMN.window] = UNKNOWN
    this.#idle = Number.POSITIVE_INFINITY
    this.#bytes = 0
  }

  /** Adds what the counters have grown by to the current second. */
  #read(): void {
    const { core, pongRtt } = this.#source
    core.refresh()
    // a fresh engine begins at 0
    if (core !== this.#core) this.#seen.fill(0)
    this.#core = core
    const { u32 } = core
    const seen = this.#seen
    const row = this.#row
    const base = core.statsPtr >>> 2
    for (let i = 0; i < GROWING_WORDS.length; i++) {
      const value = u32[base + (GROWING_WORDS[i] ?? 0)] ?? 0
      row[COLUMN.growth + i] = (row[COLUMN.growth + i] ?? 0) + ((value - (seen[i] ?? 0)) >>> 0)
      seen[i] = value
    }
    const isHeard = row[COLUMN.received] !== 0
    if (isHeard) this.#heardAt = row[0] ?? 0
    row[COLUMN.queue] = u32[base + WAITSND] ?? 0
    row[COLUMN.problem] = isHeard ? HistoryProblem.none : this.#problem(u32[base + SILENT_PINGS] ?? 0)
    const pongs = u32[base + PONGS] ?? 0
    if (pongs === seen[GROWING.length]) return
    seen[GROWING.length] = pongs
    if (row[COLUMN.rtt] === UNKNOWN && pongRtt !== undefined) row[COLUMN.rtt] = pongRtt
  }

  /** Why nothing arrived in the current second so far. @param lostPings pings without an answer */
  #problem(lostPings: number): number {
    const { problem } = this.#source.peerLog
    if (problem !== undefined) return problem.kind === 'refused' ? HistoryProblem.refused : HistoryProblem.unreachable
    const isWaiting = lostPings > 0 || this.#row[COLUMN.queue] !== 0
    const silence = (this.#row[0] ?? 0) - this.#heardAt
    return isWaiting && silence >= SILENT_S ? HistoryProblem.silent : HistoryProblem.none
  }

  /** Round trip time and window of the session that is most active, among the next few. */
  #readPath(): void {
    const { core } = this.#source
    const now = this.#source.now()
    const slots = core.calls.session_slots()
    // whichever the others are, so that the figures do not jump between sessions
    if (this.#activeSlot < slots && core.calls.session_info(this.#activeSlot, now) > 0)
      this.#compare(core, this.#activeSlot)
    for (let left = Math.min(slots, PATH_SLOTS); left > 0; left--) {
      this.#slot = this.#slot + 1 < slots ? this.#slot + 1 : 0
      if (core.calls.session_info(this.#slot, now) > 0) this.#compare(core, this.#slot)
    }
  }

  /** Takes the path from the session in the info block, if it is more active than the one before. */
  #compare(core: Core, slot: number): void {
    core.refresh()
    const { u32 } = core
    const base = core.calls.info_ptr() >>> 2
    const field = (offset: number): number => u32[base + (offset >>> 2)] ?? 0
    const idle = field(Info.idle)
    const rtt = field(Info.srtt)
    const bytes = field(Info.tcpRead) + field(Info.tcpWritten)
    if (field(Info.state) === SessionState.TIME_WAIT || idle > FRESH_S || rtt === 0 || rtt === NO_TICKS) return
    if (idle > this.#idle || (idle === this.#idle && bytes < this.#bytes)) return
    this.#activeSlot = slot
    this.#idle = idle
    this.#bytes = bytes
    this.#row[COLUMN.rtt] = rtt / TICKS_PER_MS
    this.#row[COLUMN.window] = field(Info.cwnd)
  }
}

/** The rows of several processes that share the work, as those of one. */
export function sumHistories(parts: readonly (readonly HistoryRow[])[]): HistoryRow[] {
  const sums = new Map<number, (number | null)[]>()
  for (const row of parts.flat()) {
    const second = row[0] ?? 0
    const sum = sums.get(second)
    if (sum === undefined) sums.set(second, [...row])
    else for (let i = 1; i < WIDTH; i++) sum[i] = joined(i, sum[i] ?? null, row[i] ?? null)
  }
  return [...sums.values()].sort((a, b) => (a[0] ?? 0) - (b[0] ?? 0)).slice(-HISTORY_S)
}

function joined(column: number, a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b
  return column === COLUMN.rtt || column === COLUMN.window || column === COLUMN.problem ? Math.max(a, b) : a + b
}
