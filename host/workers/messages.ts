/**
 * Messages between the first process and its workers, and the aggregation of worker statistics. Messages are JSON:
 * Infinity arrives as null.
 */

import type { Config } from '../config/config.ts'
import type { HostCounters } from '../driver/diagnostics.ts'
import { sumOfTotals } from '../endpoint/key-figures.ts'
import type { RateParts, RateUse } from '../engine/rate-share.ts'
import type { SecretPart } from '../engine/secret.ts'
import type { HistoryRow } from '../monitoring/history.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { KeyStatus, ServerStatus } from '../monitoring/source.ts'
import type { Counters, Health, SessionStats } from '../monitoring/stats.ts'
import type { SocketAddress } from '../net/address.ts'

/**
 * From the first process. `level`: log level. `secret`: the worker's part of the shared secret. `addresses`: those of
 * its sockets.
 */
export type ToWorker =
  | {
      readonly kind: 'start'
      readonly config: Config
      readonly level: number
      readonly secret: SecretPart
      readonly addresses: readonly SocketAddress[]
      /** Whether a history is recorded. */
      readonly records: boolean
    }
  | { readonly kind: 'reload'; readonly config: Config }
  | { readonly kind: 'level'; readonly level: number }
  | { readonly kind: 'stats'; readonly id: number; readonly sessions: boolean; readonly history: boolean }
  /** The worker's parts of the rate limits. */
  | { readonly kind: 'rate'; readonly parts: RateParts }
  /** Client: send an extra PING. */
  | { readonly kind: 'ping' }

/** From a worker. */
export type FromWorker =
  /** Ready to receive `start`. */
  | { readonly kind: 'hello' }
  | { readonly kind: 'serving' }
  /** What it retries; empty: nothing. */
  | { readonly kind: 'status'; readonly text: string }
  /** The worker ends for this reason. */
  | { readonly kind: 'failed'; readonly text: string }
  /** `failure`: why the configuration was rejected; the previous one stays in force. */
  | { readonly kind: 'reloaded'; readonly failure?: string }
  /** With rate limits, while something passes: what passed. */
  | { readonly kind: 'rate'; readonly use: RateUse }
  /** The worker ends on request. */
  | { readonly kind: 'bye' }
  | { readonly kind: 'log'; readonly level: number; readonly text: string }
  /** Some of its sessions, sent before `stats`. */
  | { readonly kind: 'sessions'; readonly id: number; readonly sessions: readonly SessionStats[] }
  /** The last minutes, sent before `stats`. */
  | { readonly kind: 'history'; readonly id: number; readonly rows: readonly HistoryRow[] }
  | { readonly kind: 'stats'; readonly id: number; readonly part: Part }

/** Statistics of one worker. */
export interface Part {
  /** ms */
  readonly cpu: number
  /** Resident memory in bytes; undefined if unknown. */
  readonly rss?: number | undefined
  readonly counters: Counters
  readonly host: HostCounters
  readonly health: Health
  readonly path: LinkStatus
  /** Of a client with several servers. */
  readonly servers?: readonly ServerStatus[] | undefined
  /** Of a server with several keys. */
  readonly keys?: readonly KeyStatus[] | undefined
}

/** Sums counters by name. */
export function sumHost(parts: readonly HostCounters[], none: HostCounters): HostCounters {
  const sums = { ...none }
  for (const part of parts) for (const name of Object.keys(sums) as (keyof HostCounters)[]) sums[name] += part[name]
  return sums
}

/** The health of the group is that of its worst worker: connections of a worker that receives nothing are dead. */
export function worstHealth(parts: readonly Health[], none: Health): Health {
  const ages = parts.map(({ lastReceived }) => lastReceived)
  const known = ages.filter((age) => age !== undefined)
  const all = known.length > 0 && known.length === ages.length
  return { ...none, ...parts[0], lastReceived: all ? Math.max(...known) : undefined }
}

/** The state of each server as several workers see it: it is up if one of them gets answers. */
export function joinServers(parts: readonly (readonly ServerStatus[])[]): readonly ServerStatus[] | undefined {
  const joined = new Map<string, ServerStatus>()
  for (const status of parts.flat()) {
    const before = joined.get(status.server)
    if (before === undefined) {
      joined.set(status.server, status)
      continue
    }
    const shown = before.state !== 'up' && status.state === 'up' ? status : before
    const trips = [before.rtt_ms, status.rtt_ms].filter((ms) => ms !== null)
    joined.set(status.server, {
      ...shown,
      rtt_ms: trips.length === 0 ? null : Math.min(...trips),
      sessions: before.sessions + status.sessions,
      used: before.used || status.used,
    })
  }
  return joined.size === 0 ? undefined : [...joined.values()]
}

/**
 * The figures of each key that a worker has, as several workers count them.
 * @param past of workers that have ended
 */
export function joinKeys(
  parts: readonly (readonly KeyStatus[])[],
  past: readonly KeyStatus[] = [],
): readonly KeyStatus[] | undefined {
  const joined = new Map<string, KeyStatus>()
  const add = (status: KeyStatus): void => {
    const before = joined.get(status.name)
    joined.set(status.name, before === undefined ? status : sumOf(before, status))
  }
  for (const status of parts.flat()) add(status)
  for (const status of past) if (joined.has(status.name)) add(status)
  return joined.size === 0 ? undefined : [...joined.values()]
}

/** @param one whose settings are shown */
function sumOf(one: KeyStatus, other: KeyStatus): KeyStatus {
  const seen = [one.last_seen_seconds, other.last_seen_seconds].filter((age) => age !== null)
  return {
    ...one,
    ...sumOfTotals(one, other),
    sessions: one.sessions + other.sessions,
    last_seen_seconds: seen.length === 0 ? null : Math.min(...seen),
  }
}

/** What remains of the figures of a worker that ended. */
export const pastKeys = (keys: readonly KeyStatus[]): readonly KeyStatus[] =>
  keys.map((key) => ({ ...key, sessions: 0, last_seen_seconds: null }))
