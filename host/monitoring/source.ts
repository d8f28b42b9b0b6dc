/** Interface to the data that the monitoring server shows. */

import type { HostCounters } from '../driver/diagnostics.ts'
import type { ContextSteps } from '../transport/obfs/context-stats.ts'
import type { LiveSource } from './live.ts'
import type { Health, SessionSteps, Snapshot } from './stats.ts'

/** The running program. */
export interface ProgramInfo {
  readonly name: string
  readonly version: string
  /** second line of the banner */
  readonly note: string
  readonly runtime: string
  readonly runtimeVersion: string
  /** Mode name, as in the log: client, server, ... */
  readonly mode: string
}

/** One of several servers, as in /stats.json. */
export interface ServerStatus {
  /** As in the configuration. */
  readonly server: string
  /** Null while its name has none. */
  readonly address: string | null
  readonly state: 'checking' | 'up' | 'down' | 'leaving'
  /** How long it has been in this state. */
  readonly since_seconds: number
  readonly rtt_ms: number | null
  /** Open sessions. */
  readonly sessions: number
  /** Whether a new session may go there now. */
  readonly used: boolean
}

/** One of several keys of a server, as in /stats.json. */
export interface KeyStatus {
  readonly name: string
  /** Open sessions. */
  readonly sessions: number
  /** Their limit; null: that of all alone. */
  readonly max_sessions: number | null
  readonly sessions_opened: number
  /** Sessions refused because of that limit. */
  readonly sessions_refused: number
  readonly tcp_read_bytes: number
  readonly tcp_written_bytes: number
  /** Authentic datagrams under this key. */
  readonly datagrams_received: number
  readonly datagrams_sent: number
  /** Since the last of these arrived; null: never. */
  readonly last_seen_seconds: number | null
  /** As in the configuration. */
  readonly not_after: string | null
}

/** What came of a reload; names of keys, no values. */
export type ReloadOutcome =
  | {
      readonly outcome: 'reloaded'
      /** Keys whose change is in force, dotted. */
      readonly changed: readonly string[]
      /** Keys whose change is ignored until a restart. */
      readonly needs_restart: readonly string[]
      /** With `tunnels`: those that are not as before. */
      readonly tunnels?: readonly TunnelChange[]
    }
  | {
      readonly outcome: 'refused'
      /** As in the log. */
      readonly error: string
      /** Of a configuration error: the key that it names. */
      readonly key?: string
    }

/** What a reload did to one of several tunnels. */
export interface TunnelChange {
  readonly tunnel: string
  readonly change: 'opened' | 'changed' | 'closed'
  /** Keys of one that was there before. */
  readonly changed: readonly string[]
}

/** Does what SIGHUP does; never rejects. @param by address that asks */
export type ReloadRequest = (by: string) => Promise<ReloadOutcome>

/** Data source of the routes. */
export interface HttpSource {
  readonly program: ProgramInfo
  snapshot(): Snapshot
  sessions(): SessionSteps
  /** The contexts of the obfuscator, if any. */
  contexts?(): ContextSteps | undefined
  /** If present, fetches the statistics before each answer, after access control. */
  prepare?(target: string): Promise<void>
  health(): Health
  hostCounters(): HostCounters
  /** The servers of a client with several. */
  servers?(): readonly ServerStatus[] | undefined
  /** The keys of a server with several. */
  keys?(): readonly KeyStatus[] | undefined
  /** Snapshot at startup, with all counters 0. */
  readonly start: Snapshot
  /** `http_listen`; its host is accepted in Host headers. */
  readonly listen: string | undefined
  /** Current `http_token`. */
  token(): string | undefined
  /** Reloads the configuration of the process; undefined: it cannot, or not yet. */
  reload?(by: string): Promise<ReloadOutcome> | undefined
  /** If present, this source is the sum of these tunnels. */
  tunnels?(): readonly TunnelSource[]
  /** Data for the dashboard only. */
  readonly live: Omit<LiveSource, 'snapshot' | 'sessions' | 'summary' | 'session' | 'contexts' | 'context'>
}

/** One of several tunnels. */
export interface TunnelSource extends HttpSource {
  readonly name: string
}
