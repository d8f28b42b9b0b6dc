/**
 * The last minutes as columns for the charts: the history that the program kept, then the samples of this page. Rates
 * between samples, gauges at samples.
 */
import type { Hello, Sample } from './sample.ts'

/** Length of the history, s. */
export const KEPT_S = 900
/** Interval over which rates are averaged, ms. */
const RATE_SPAN_MS = 1000
/** A longer interval between samples is shown as a gap, ms. */
const GAP_MS = 3000
/** Rates over less than this say nothing, ms. */
const RATE_SPAN_MIN_MS = 250

export const COLUMNS = [
  'receiving',
  'sending',
  'wireReceiving',
  'wireSending',
  'rtt',
  'loss',
  'window',
  'queue',
  'problem',
] as const
export type Column = (typeof COLUMNS)[number]

export type Row = Record<Column, number | null>

/** Values of the column `problem`: those of the program's history. */
const SILENT = 1
const REFUSED = 2
const UNREACHABLE = 3
export const PROBLEMS: Readonly<Record<number, string>> = {
  [SILENT]: 'no answer',
  [REFUSED]: 'refused',
  [UNREACHABLE]: 'unreachable',
}

interface Mark {
  readonly at: number
  readonly sample: Sample
}

export class History {
  /** s since the epoch */
  readonly times: number[] = []
  readonly columns: Record<Column, (number | null)[]> = {
    receiving: [],
    sending: [],
    wireReceiving: [],
    wireSending: [],
    rtt: [],
    loss: [],
    window: [],
    queue: [],
    problem: [],
  }
  #marks: Mark[] = []
  /** Nothing happened between the last row and the next sample. */
  #isIdle = false

  /** Takes what the program remembers and this page has not seen. */
  load({ since, columns, rows }: NonNullable<Hello['history']>): void {
    this.#marks = []
    const seen = this.times.at(-1)
    if (seen === undefined || seen < since) {
      // before that it did not run
      if (seen !== undefined) this.#push(seen + 1, undefined)
      this.#push(since, NOTHING)
    }
    for (const values of rows) {
      const row = Object.fromEntries(columns.map((name, i) => [name, values[i] ?? null]))
      // a row is shown at the end of its second
      const end = (row['time'] ?? 0) + 1
      if (end <= (this.times.at(-1) ?? 0)) continue
      this.#idleUntil(end - 1)
      this.#push(end, remembered(row))
    }
    this.#isIdle = true
  }

  /** A second without a row had no traffic. */
  #idleUntil(at: number): void {
    const last = this.times.length - 1
    const from = this.times[last] ?? at
    if (at - from < 0.5) return
    const idle = { ...NOTHING, queue: this.columns.queue[last] ?? 0, problem: this.columns.problem[last] ?? 0 }
    if (at - from > 2) this.#push(from + 1, idle)
    this.#push(at, idle)
  }

  /**
   * Adds a sample.
   * @param at ms since the epoch, by the clock of the program
   * @returns the new row
   */
  add(at: number, sample: Sample): Row {
    const last = this.#marks.at(-1)
    if (this.#isIdle) this.#idleUntil(at / 1000 - 1)
    this.#isIdle = false
    // the program was restarted, or samples are missing
    if (last !== undefined && (sample.uptime_ms < last.sample.uptime_ms || at - last.at > GAP_MS)) {
      this.#marks = []
      this.#push(last.at / 1000 + 0.001, undefined)
    }
    const base =
      this.#marks.findLast((mark) => sample.uptime_ms - mark.sample.uptime_ms >= RATE_SPAN_MS) ?? this.#marks[0]
    this.#marks = [...this.#marks.slice(-4), { at, sample }]
    const row = rowOf(sample, base?.sample, this.columns.problem.at(-1) ?? 0)
    const span = sample.uptime_ms - (base?.sample.uptime_ms ?? sample.uptime_ms)
    if (span >= RATE_SPAN_MIN_MS || this.times.length === 0) this.#push(at / 1000, row)
    return row
  }

  #push(at: number, row: Row | undefined): void {
    // the clock was set back
    while (this.times.length > 0 && (this.times.at(-1) ?? 0) >= at) {
      this.times.pop()
      for (const name of COLUMNS) this.columns[name].pop()
    }
    this.times.push(at)
    for (const name of COLUMNS) this.columns[name].push(row?.[name] ?? null)
    let old = 0
    while ((this.times[old] ?? at) < at - KEPT_S) old++
    if (old === 0) return
    this.times.splice(0, old)
    for (const name of COLUMNS) this.columns[name].splice(0, old)
  }
}

const NOTHING: Row = {
  receiving: 0,
  sending: 0,
  wireReceiving: 0,
  wireSending: 0,
  rtt: null,
  loss: 0,
  window: null,
  queue: 0,
  problem: 0,
}

/** Share of segments that were sent again because they counted as lost, in percent. */
const lossOf = (sent: number, redundant: number, again: number): number =>
  sent > redundant ? Math.min((100 * again) / (sent - redundant), 100) : 0

/** A row of the program's history. */
function remembered(row: Readonly<Record<string, number | null>>): Row {
  const number = (name: string): number => row[name] ?? 0
  return {
    receiving: 8 * number('tcp_written_bytes'),
    sending: 8 * number('tcp_read_bytes'),
    wireReceiving: 8 * number('pkt_received_bytes'),
    wireSending: 8 * number('pkt_sent_bytes'),
    rtt: row['rtt_ms'] ?? null,
    loss: lossOf(number('segments_sent'), number('segments_redundant'), number('segments_retransmitted')),
    window: row['cwnd_segments'] ?? null,
    queue: number('waitsnd_segments'),
    problem: number('problem'),
  }
}

/** Rate of a counter per second. */
export function perSecond(now: Sample, before: Sample | undefined, name: string): number {
  const ms = now.uptime_ms - (before?.uptime_ms ?? now.uptime_ms)
  if (before === undefined || ms <= 0) return 0
  return (((now.counters[name] ?? 0) - (before.counters[name] ?? 0)) * 1000) / ms
}

/** @param before the problem until now, which lasts until something arrives */
function problemOf({ link }: Sample, before: number): number {
  if (link.silent_ms > 0 && (link.state === 'up' || link.state === 'checking')) return before
  if (link.state !== 'silent') return 0
  if (link.problem == null) return SILENT
  return link.problem === 'refused' ? REFUSED : UNREACHABLE
}

function rowOf(sample: Sample, before: Sample | undefined, problem: number): Row {
  const grown = (name: string): number => perSecond(sample, before, name)
  const bits = (name: string): number => 8 * grown(name)
  return {
    receiving: bits('tcp_written_bytes'),
    sending: bits('tcp_read_bytes'),
    wireReceiving: bits('pkt_received_bytes'),
    wireSending: bits('pkt_sent_bytes'),
    rtt: sample.link.state === 'silent' ? null : sample.link.rtt_ms,
    loss: lossOf(grown('segments_sent'), grown('segments_redundant'), grown('segments_retransmitted')),
    window: sample.path?.cwnd_segments ?? null,
    queue: sample.gauges['waitsnd'] ?? 0,
    problem: problemOf(sample, problem),
  }
}
