/** The recent history as columns for the charts: rates between samples, gauges at samples. */
import type { Sample } from './sample.ts'

/** Length of the history, s. */
const KEPT_S = 300
/** Interval over which rates are averaged, ms. */
const RATE_SPAN_MS = 1000
/** A longer interval between samples is shown as a gap, ms. */
const GAP_MS = 3000

export const COLUMNS = [
  'receiving',
  'sending',
  'wireReceiving',
  'wireSending',
  'rtt',
  'again',
  'window',
  'queue',
] as const
export type Column = (typeof COLUMNS)[number]

export type Row = Record<Column, number | null>

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
    again: [],
    window: [],
    queue: [],
  }
  #marks: Mark[] = []

  /**
   * Adds a sample.
   * @returns the new row
   */
  add(at: number, sample: Sample): Row {
    const last = this.#marks.at(-1)
    // the program was restarted, or samples are missing
    if (last !== undefined && (sample.uptime_ms < last.sample.uptime_ms || at - last.at > GAP_MS)) {
      this.#marks = []
      this.#push(last.at + 1, undefined)
    }
    const base =
      this.#marks.findLast((mark) => sample.uptime_ms - mark.sample.uptime_ms >= RATE_SPAN_MS) ?? this.#marks[0]
    this.#marks = [...this.#marks.slice(-4), { at, sample }]
    const row = rowOf(sample, base?.sample)
    this.#push(at, row)
    return row
  }

  #push(at: number, row: Row | undefined): void {
    this.times.push(at / 1000)
    for (const name of COLUMNS) this.columns[name].push(row?.[name] ?? null)
    let old = 0
    while ((this.times[old] ?? at) < at / 1000 - KEPT_S) old++
    if (old === 0) return
    this.times.splice(0, old)
    for (const name of COLUMNS) this.columns[name].splice(0, old)
  }
}

/** Rate of a counter per second. */
export function perSecond(now: Sample, before: Sample | undefined, name: string): number {
  const ms = now.uptime_ms - (before?.uptime_ms ?? now.uptime_ms)
  if (before === undefined || ms <= 0) return 0
  return (((now.counters[name] ?? 0) - (before.counters[name] ?? 0)) * 1000) / ms
}

function rowOf(sample: Sample, before: Sample | undefined): Row {
  const bits = (name: string): number => 8 * perSecond(sample, before, name)
  const sent = perSecond(sample, before, 'segments_sent') - perSecond(sample, before, 'segments_redundant')
  const again = perSecond(sample, before, 'segments_retransmitted')
  return {
    receiving: bits('tcp_written_bytes'),
    sending: bits('tcp_read_bytes'),
    wireReceiving: bits('pkt_received_bytes'),
    wireSending: bits('pkt_sent_bytes'),
    rtt: sample.link.state === 'silent' ? null : sample.link.rtt_ms,
    again: sent > 0 ? (100 * again) / sent : 0,
    window: sample.path?.cwnd_segments ?? null,
    queue: sample.gauges['waitsnd'] ?? 0,
  }
}
