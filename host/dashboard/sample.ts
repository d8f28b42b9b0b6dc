/** The messages of `/events` (docs/api.md), sent by host/monitoring/live.ts. */

export interface Session {
  /** Where several tunnels are shown together. */
  readonly tunnel?: string
  readonly conv: string
  readonly state: string
  readonly peer: string
  /** Of a server with several keys. */
  readonly user?: string
  /** The other end of its TCP connection: the application, at a server the target. */
  readonly tcp_peer?: string | null
  readonly age_seconds: number
  readonly idle_seconds: number
  readonly rtt_ms: number | null
  readonly rttvar_ms: number | null
  readonly rto_ms: number | null
  readonly waitsnd_segments: number
  readonly sndwnd_segments: number
  readonly rmtwnd_segments: number
  readonly cwnd_segments: number
  readonly retransmitted_segments: number
  readonly pace_segments_per_second: number
  readonly base_loss: number
  readonly tcp_read_bytes: number
  readonly tcp_written_bytes: number
}

export interface Warning {
  /** ms since the epoch */
  readonly at: number
  /** 1 fatal, 2 error, 3 warning */
  readonly level: number
  readonly text: string
}

export type Numbers = Readonly<Record<string, number | undefined>>

/** A context of the obfuscator: each field becomes a column. */
export type Fields = Readonly<Record<string, string | number | boolean | null>>

/** Who has one of several keys. */
export interface User {
  readonly name: string
  readonly sessions: number
  readonly max_sessions: number | null
  readonly sessions_refused: number
  readonly tcp_read_bytes: number
  readonly tcp_written_bytes: number
  readonly last_seen_seconds: number | null
  readonly not_after: string | null
}

export interface Hello {
  readonly about: Readonly<Record<string, string | number | boolean>>
  readonly sample_ms: number
  readonly rows_max: number
  readonly warnings: readonly Warning[]
  /** The last minutes, by the second. */
  readonly history?: {
    readonly seconds: number
    /** s since the epoch from which on it is complete: a second without a row had no traffic. */
    readonly since: number
    readonly columns: readonly string[]
    readonly rows: readonly (readonly (number | null)[])[]
  }
}

/** One of several tunnels. */
export interface TunnelState {
  readonly name: string
  readonly mode: string
  readonly ready: boolean
  readonly health: string
}

export type LinkState = 'checking' | 'up' | 'silent' | 'quiet' | 'idle' | 'pending' | 'serving'

export interface Sample {
  readonly program: {
    readonly name: string
    readonly version: string
    readonly runtime: string
    readonly runtime_version: string
    readonly mode: string
  }
  readonly time: string
  readonly uptime_ms: number
  readonly cpu_ms: number | null
  readonly rss_bytes?: number | null
  readonly ready: boolean
  readonly health: string
  readonly counters: Numbers
  readonly gauges: Readonly<Record<string, number | null>>
  readonly host: Numbers
  readonly link: {
    readonly state: LinkState
    readonly silent_ms: number
    readonly rtt_ms: number | null
    readonly local: string | null
    readonly peer: string | null
    readonly rendezvous: string | null
    readonly peer_found: boolean
    readonly problem?: 'refused' | 'firewall' | 'unreachable' | null
    readonly problem_text?: string | null
  }
  readonly path: Session | null
  readonly sessions: readonly Session[]
  readonly warnings?: readonly Warning[]
  /** Only of a client with several servers. */
  readonly servers?: readonly Fields[]
  /** Only of a server with several keys. */
  readonly keys?: readonly User[]
  /** All of them, also beside the figures of one. */
  readonly tunnels?: readonly TunnelState[]
  /** Only with an obfuscator. */
  readonly contexts?: readonly Fields[]
}
