/**
 * What the first process and its workers say to each other, and how the numbers of the workers add up. Messages are JSON:
 * Infinity arrives as null.
 */

import type { Config } from '../config/config.ts'
import type { HostCounters } from '../driver/diagnostics.ts'
import type { SecretPart } from '../engine/secret.ts'
import type { LinkStatus } from '../monitoring/live.ts'
import type { Counters, Health, SessionStats } from '../monitoring/stats.ts'

/** From the first process. `level`: that of the log. `secret`: the worker's part of that of all. */
export type ToWorker =
  | { readonly kind: 'start'; readonly config: Config; readonly level: number; readonly secret: SecretPart }
  | { readonly kind: 'reload'; readonly config: Config }
  | { readonly kind: 'level'; readonly level: number }
  | { readonly kind: 'stats'; readonly id: number; readonly sessions: boolean }
  /** Client: one PING beside the keepalive. */
  | { readonly kind: 'ping' }

/** From a worker. */
export type FromWorker =
  /** It listens to messages: `start` is wanted. */
  | { readonly kind: 'hello' }
  | { readonly kind: 'serving' }
  /** It ends, for this reason. */
  | { readonly kind: 'failed'; readonly text: string }
  /** `failure`: why the configuration was refused; the one before stays in force. */
  | { readonly kind: 'reloaded'; readonly failure?: string }
  /** It ends on request. */
  | { readonly kind: 'bye' }
  | { readonly kind: 'log'; readonly level: number; readonly text: string }
  /** Some of its sessions, before the answer to `stats`. */
  | { readonly kind: 'sessions'; readonly id: number; readonly sessions: readonly SessionStats[] }
  | { readonly kind: 'stats'; readonly id: number; readonly part: Part }

/** The numbers of one worker. */
export interface Part {
  /** ms */
  readonly cpu: number
  readonly counters: Counters
  readonly host: HostCounters
  readonly health: Health
  readonly path: LinkStatus
}

/** Sums, name by name. */
export function sumHost(parts: readonly HostCounters[], none: HostCounters): HostCounters {
  const sums = { ...none }
  for (const part of parts) for (const name of Object.keys(sums) as (keyof HostCounters)[]) sums[name] += part[name]
  return sums
}

/** The health of all is that of the worst: connections of a worker that receives nothing are dead. */
export function worstHealth(parts: readonly Health[], none: Health): Health {
  const ages = parts.map(({ lastReceived }) => lastReceived)
  const known = ages.filter((age) => age !== undefined)
  const all = known.length > 0 && known.length === ages.length
  return { ...none, ...parts[0], lastReceived: all ? Math.max(...known) : undefined }
}
