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
  /** Snapshot at startup, with all counters 0. */
  readonly start: Snapshot
  /** `http_listen`; its host is accepted in Host headers. */
  readonly listen: string | undefined
  /** Current `http_token`. */
  token(): string | undefined
  /** If present, this source is the sum of these tunnels. */
  tunnels?(): readonly TunnelSource[]
  /** Data for the dashboard only. */
  readonly live: Omit<LiveSource, 'snapshot' | 'sessions' | 'summary' | 'session' | 'contexts' | 'context'>
}

/** One of several tunnels. */
export interface TunnelSource extends HttpSource {
  readonly name: string
}
