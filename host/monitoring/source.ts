/** What the monitoring server shows, and of whom. */

import type { HostCounters } from '../driver/diagnostics.ts'
import type { ContextSteps } from '../transport/obfs/context-stats.ts'
import type { LiveSource } from './live.ts'
import type { Health, SessionSteps, Snapshot } from './stats.ts'

/** Who answers. */
export interface ProgramInfo {
  readonly name: string
  readonly version: string
  /** second line of the banner */
  readonly note: string
  readonly runtime: string
  readonly runtimeVersion: string
  /** As in the log: client, server, ... */
  readonly mode: string
}

/** What the app shows. */
export interface HttpSource {
  readonly program: ProgramInfo
  snapshot(): Snapshot
  sessions(): SessionSteps
  /** With an obfuscator: its contexts. */
  contexts?(): ContextSteps | undefined
  /** Called before a request is answered, once it is known that it may be, when figures must be fetched first. */
  prepare?(target: string): Promise<void>
  health(): Health
  hostCounters(): HostCounters
  /** The moment of the start, with the counters at 0. */
  readonly start: Snapshot
  /** `http_listen`: the name in it is one of ours. */
  readonly listen: string | undefined
  /** `http_token` in force. */
  token(): string | undefined
  /** What only the dashboard shows. */
  readonly live: Omit<LiveSource, 'snapshot' | 'sessions' | 'summary' | 'session' | 'contexts' | 'context'>
}
