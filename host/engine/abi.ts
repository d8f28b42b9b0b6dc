/** The engine's ABI (docs/abi.md). Generated from assembly/abi.json by build/abi.mjs: edit that file. */

export const ABI_VERSION = 2
/** Ticks in a millisecond. */
export const TICKS_PER_MS = 8
/** Ticks in a second. */
export const TICKS_PER_SECOND = 8000
/** Longest sleep that `next_timeout` returns. It keeps differences of 32-bit clocks far from their sign bit. */
export const MAX_SLEEP_TICKS = 0x2932e000
/** Value of an unset config field: the engine chooses. */
export const UNSET = 0xffffffff
/** Longest accepted datagram, as on the wire. */
export const MAX_DATAGRAM_BYTES = 1500
/** Number of receive descriptors. */
export const RX_SLOTS = 128
/** Number of transmit descriptors. */
export const TX_SLOTS = 64
/** Events that one `poll_events` can return. */
export const EVENT_SLOTS = 256
/** Spans that one `stream_reserve` or `stream_peek` can return. */
export const SPAN_SLOTS = 64
/** Size of the entropy block. */
export const ENTROPY_BYTES = 65536
/** Numbers of keys: 0 to 127. */
export const KEY_NUMBERS = 128
/** Size of the block at `io_ptr`. */
export const IO_BYTES = 65536
/** Longest service id, in bytes. */
export const SERVICE_BYTES = 256
/** Most addresses of `add_rendezvous`. */
export const RENDEZVOUS_OTHERS = 7
/** Answers that one `poll_pongs` can return. */
export const PONG_SLOTS = 128
/** Most bytes of `echo_open`. */
export const ECHO_BYTES = 4096
/** Result of `session_info` for a session in TIME_WAIT, which has no stream. */
export const NO_STREAM = 0x7fffffff

/** Bits of `capabilities()`. */
export const Capability = {
  OBFS: 1,
  VALIDATION: 2,
  FIND: 4,
  PROBE: 8,
  MEASURE: 16,
} as const

/** Bits of the config field `mode`. */
export const Mode = {
  SERVER: 1,
  CLIENT: 2,
  RENDEZVOUS: 4,
} as const

/** Values of the config field `nonceStrategy`. */
export const NonceStrategy = {
  NONE: 0,
  RANDOM: 1,
  COUNTER: 2,
} as const

/** Types of events. */
export const EventType = {
  DIAL: 1,
  READABLE: 2,
  WRITABLE: 3,
  EOF: 4,
  ABORT: 5,
  DETACH: 6,
  PONG: 7,
  RESOLVE: 8,
  PEER_FOUND: 9,
  MIGRATED: 10,
  MTU: 11,
  OBFS_READY: 12,
  OBFS_ENDED: 13,
  PROBED: 14,
  RUNS_LOST: 15,
  OPENED: 16,
  ECHO: 17,
  PUNCHED: 18,
} as const

/** `arg` of ABORT. */
export const AbortReason = {
  TIMEOUT: 1,
  LINGER: 2,
  NO_ANSWER: 3,
  RESET: 4,
  PROTOCOL: 5,
  MEMORY: 6,
  STALE_PEER: 7,
  MTU: 8,
  OBFS: 9,
  MOVED: 10,
  KEY: 11,
} as const

/** Texts of AbortReason, by code. */
export const ABORT_REASON_TEXTS: readonly string[] = [
  'unknown reason',
  'timeout',
  'linger timeout',
  'no answer',
  'reset by peer',
  'protocol error',
  'out of memory',
  'stale peer address',
  'large datagrams do not pass',
  'the obfuscated connection ended',
  'the path changed while it was opening',
  'its key is not accepted any more',
]

/** Negative results. */
export const ErrorCode = {
  STATE: -1,
  HANDLE: -2,
  NO_PEER: -3,
  SESSIONS: -4,
  MEMORY: -5,
  ENTROPY: -6,
  ARGUMENT: -7,
  CONFIG: -100,
} as const

/** States of a session (protocol.md 6.4). */
export const SessionState = {
  CONNECT: 1,
  ESTABLISHED: 2,
  LINGER: 3,
  TIME_WAIT: 4,
} as const

/** `kind` of the block at `obfs_ptr`. */
export const ObfsKind = {
  NONE: 0,
  TCP_WND: 1,
  TCP: 2,
} as const

/** `state` of a context. */
export const ObfsState = {
  NEW: 1,
  CAPTURED: 2,
  AUTHENTICATED: 3,
} as const

/** Address record. A session is identified by all of its bytes and its conv; offsets in bytes. */
export const AddressRecord = {
  family: 0,
  local: 1,
  port: 2,
  scope: 4,
  key: 7,
  ip: 8,
  BYTES: 24,
} as const

/** Block at `secret_ptr`; offsets in bytes. */
export const Secret = {
  secret: 0,
  base: 16,
  slot: 28,
  BYTES: 32,
} as const

/** Block of one key; offsets in bytes. */
export const Key = {
  tag: 0,
  maxSessions: 16,
  sessions: 20,
  opened: 24,
  refused: 32,
  received: 40,
  sent: 48,
  tcpRead: 56,
  tcpWritten: 64,
  BYTES: 72,
} as const

/** Receive descriptor; offsets in u32 words. */
export const Rx = {
  ptr: 0,
  capacity: 1,
  length: 2,
  flags: 3,
  address: 4,
  hash: 10,
  WORDS: 12,
  OPENED: 1,
  PROBE: 2,
} as const

/** Transmit descriptor; offsets in u32 words. */
export const Tx = {
  source: 0,
  length: 1,
  out: 2,
  nonce: 3,
  address: 4,
  handle: 5,
  flags: 6,
  WORDS: 8,
  PROBE: 1,
  JOINS: 2,
  SIZE_TEST: 4,
  MAY_FRAGMENT: 8,
} as const

/** Event; offsets in u32 words. */
export const Event = {
  type: 0,
  handle: 1,
  arg: 2,
  arg2: 3,
  WORDS: 4,
} as const

/** Answer to a PING of `ping_address`; offsets in u32 words. */
export const Pong = {
  number: 0,
  rtt: 1,
  address: 2,
  WORDS: 8,
} as const

/** Span: an iovec of wasm32; offsets in u32 words. */
export const Span = {
  ptr: 0,
  length: 1,
  WORDS: 2,
} as const

/** Block that `session_info` and `session_find` fill; offsets in bytes. */
export const Info = {
  conv: 0,
  state: 4,
  age: 8,
  idle: 12,
  srtt: 16,
  rto: 20,
  waitsnd: 24,
  pace: 28,
  tcpRead: 32,
  tcpWritten: 40,
  address: 48,
  sndwnd: 72,
  rmtWnd: 76,
  cwnd: 80,
  retransmissions: 84,
  rttvar: 88,
  congestion: 92,
  BYTES: 96,
} as const

/** Block at `obfs_ptr`; offsets in bytes. */
export const Obfs = {
  kind: 0,
  local: 16,
  remote: 40,
  filterLength: 64,
  filter: 72,
  BYTES: 328,
} as const

/** Descriptor of a captured packet; offsets in u32 words. */
export const ObfsRx = {
  ptr: 0,
  capacity: 1,
  length: 2,
  flags: 3,
  payload: 4,
  payloadLength: 5,
  address: 6,
  context: 7,
  WORDS: 8,
  HAS_PAYLOAD: 1,
} as const

/** Descriptor of a packet to send; offsets in u32 words. */
export const ObfsTx = {
  ptr: 0,
  capacity: 1,
  length: 2,
  packet: 4,
  packetLength: 5,
  address: 8,
  WORDS: 16,
} as const

/** Block that `obfs_context_info` fills; offsets in bytes. */
export const ObfsInfo = {
  state: 0,
  idle: 4,
  bytesIn: 8,
  bytesOut: 16,
  congested: 24,
  echoes: 28,
  address: 32,
  context: 56,
  age: 60,
  BYTES: 96,
} as const

/** Index (u32) of each field of the config block. */
export const ConfigField = {
  mode: 0,
  tagBytes: 1,
  nonceBytes: 2,
  nonceStrategy: 3,
  kcpMtu: 4,
  sndwnd: 5,
  rcvwnd: 6,
  nodelay: 7,
  interval: 8,
  resend: 9,
  nc: 10,
  flush: 11,
  timeout: 12,
  linger: 13,
  keepalive: 14,
  timeWait: 15,
  memoryCeiling: 16,
  maxSessions: 17,
  replayCapacity: 18,
  maxHalfOpen: 19,
  confirm: 20,
  sendOnce: 21,
  searchMtu: 22,
  rateUp: 23,
  rateDown: 24,
  sessionRateUp: 25,
  sessionRateDown: 26,
} as const
export type ConfigFieldName = keyof typeof ConfigField
/** Values of the config block, in the units of docs/abi.md. The engine chooses absent ones. */
export type CoreConfig = Record<Exclude<ConfigFieldName, UnsetField>, number> & Partial<Record<UnsetField, number>>
type UnsetField = KcpField | RateField

/** Config fields with the names of their keys below `kcp` in the configuration. */
// biome-ignore format: one line, however long
export const KCP_FIELDS = ['sndwnd', 'rcvwnd', 'nodelay', 'interval', 'resend', 'nc', 'flush'] as const
export type KcpField = (typeof KCP_FIELDS)[number]
/** Config fields of rate limits. */
export type RateField = 'rateUp' | 'rateDown' | 'sessionRateUp' | 'sessionRateDown'

/** Names of the counters, in the order of the block of u64 values. */
// biome-ignore format: several names per line
export const COUNTERS = [
  'tcp_read_bytes', 'tcp_written_bytes', 'kcp_received_bytes', 'kcp_sent_bytes', 'pkt_received_bytes',
  'pkt_sent_bytes', 'pkt_received', 'pkt_sent', 'segments_received', 'segments_sent', 'segments_retransmitted',
  'fast_retransmits', 'segments_duplicate', 'acks_sent', 'acks_received', 'drop_auth', 'drop_replay', 'drop_oversize',
  'drop_short', 'drop_malformed', 'drop_memory', 'drop_window', 'sessions_opened', 'sessions_refused',
  'sessions_aborted', 'resets_sent', 'resets_received', 'pings_sent', 'pongs_received', 'discarded_bytes',
  'keepalives_sent', 'rtos', 'sessions_connect', 'sessions_established', 'sessions_linger', 'sessions_time_wait',
  'waitsnd', 'memory_used', 'last_received_age', 'peer_silent_pings', 'entropy_left', 'obfs_dropped_bytes',
  'obfs_dropped', 'obfs_contexts', 'obfs_unauthenticated', 'obfs_refused', 'obfs_control_sent', 'drop_reflected',
  'sessions_unconfirmed', 'pongs_unasked', 'obfs_resets', 'segments_redundant', 'size_tests_sent',
  'size_tests_answered', 'segments_oversized', 'path_bytes', 'sessions_evicted', 'rate_up_held_ms',
  'rate_down_held_ms', 'rate_up_streams', 'rate_down_streams',
] as const
export type CounterName = (typeof COUNTERS)[number]
/** Counters that rise and fall. */
export const GAUGES: ReadonlySet<string> = new Set<CounterName>([
  'sessions_connect',
  'sessions_established',
  'sessions_linger',
  'sessions_time_wait',
  'waitsnd',
  'memory_used',
  'last_received_age',
  'peer_silent_pings',
  'entropy_left',
  'obfs_contexts',
  'obfs_unauthenticated',
  'path_bytes',
  'rate_up_streams',
  'rate_down_streams',
])

/** Every export of the module; all arguments and results are i32. */
export interface CoreExports {
  readonly memory: { readonly buffer: ArrayBuffer }
  abi_version(): number
  capabilities(): number
  config_ptr(): number
  entropy_ptr(): number
  entropy_capacity(): number
  secret_ptr(): number
  rx_ptr(): number
  rx_slots(): number
  tx_ptr(): number
  tx_slots(): number
  events_ptr(): number
  event_slots(): number
  io_ptr(): number
  io_capacity(): number
  spans_ptr(): number
  span_slots(): number
  peer_ptr(): number
  stats_ptr(): number
  info_ptr(): number
  configure(now: number): number
  entropy_filled(length: number): number
  set_peer(now: number): number
  rendezvous_ptr(): number
  local_ptr(): number
  service_ptr(): number
  pongs_ptr(): number
  punched_ptr(): number
  set_rendezvous(idBytes: number, now: number): number
  add_rendezvous(now: number): number
  renew_nonce(): number
  key_ptr(): number
  set_key(number: number, now: number): number
  find_key(ptr: number): number
  key_age(number: number): number
  end_key(number: number, now: number): number
  probe_path(port: number, now: number): number
  path_moved(now: number): number
  ping_peer(now: number): number
  ping_address(bytes: number, now: number): number
  poll_pongs(): number
  probe_sessions(now: number): number
  handle_datagrams(count: number, now: number): number
  handle_timeout(now: number): number
  next_timeout(now: number): number
  timeout_slack(now: number): number
  receive_delay(now: number): number
  refresh_gauges(now: number): number
  poll_transmit(max: number, now: number): number
  poll_events(): number
  stream_open(now: number): number
  stream_connected(handle: number, ok: number, now: number): number
  stream_reserve(handle: number, want: number): number
  stream_limit_unsent(handle: number, segments: number): number
  stream_commit(handle: number, length: number, now: number): number
  stream_peek(handle: number): number
  stream_consume(handle: number, length: number, now: number): number
  stream_shutdown(handle: number, now: number): number
  stream_abort(handle: number, now: number): number
  stream_reset(handle: number, now: number): number
  echo_open(bytes: number, now: number): number
  set_host_bytes(toTcp: number, fromTcp: number): number
  share_rate(up: number, down: number, now: number): number
  session_slots(): number
  session_info(slot: number, now: number): number
  session_find(handle: number, now: number): number
  obfs_ptr(): number
  obfs_slots(): number
  obfs_rx_ptr(): number
  obfs_early_ptr(): number
  obfs_tx_ptr(): number
  obfs_control_ptr(): number
  obfs_info_ptr(): number
  obfs_configure(now: number): number
  obfs_accept(now: number): number
  obfs_dial(now: number): number
  obfs_release(context: number, now: number): number
  obfs_ended(): number
  obfs_handle_packets(count: number, now: number): number
  obfs_transmit(count: number, now: number): number
  obfs_control(): number
  obfs_context_slots(): number
  obfs_context_info(slot: number): number
}

// biome-ignore format: several names per line
export const CALLS: readonly Exclude<keyof CoreExports, 'memory'>[] = [
  'abi_version', 'capabilities', 'config_ptr', 'entropy_ptr', 'entropy_capacity', 'secret_ptr', 'rx_ptr', 'rx_slots',
  'tx_ptr', 'tx_slots', 'events_ptr', 'event_slots', 'io_ptr', 'io_capacity', 'spans_ptr', 'span_slots', 'peer_ptr',
  'stats_ptr', 'info_ptr', 'configure', 'entropy_filled', 'set_peer', 'rendezvous_ptr', 'local_ptr', 'service_ptr',
  'pongs_ptr', 'punched_ptr', 'set_rendezvous', 'add_rendezvous', 'renew_nonce', 'key_ptr', 'set_key', 'find_key',
  'key_age', 'end_key', 'probe_path', 'path_moved', 'ping_peer', 'ping_address', 'poll_pongs', 'probe_sessions',
  'handle_datagrams', 'handle_timeout', 'next_timeout', 'timeout_slack', 'receive_delay', 'refresh_gauges',
  'poll_transmit', 'poll_events', 'stream_open', 'stream_connected', 'stream_reserve', 'stream_limit_unsent',
  'stream_commit', 'stream_peek', 'stream_consume', 'stream_shutdown', 'stream_abort', 'stream_reset', 'echo_open',
  'set_host_bytes', 'share_rate', 'session_slots', 'session_info', 'session_find', 'obfs_ptr', 'obfs_slots',
  'obfs_rx_ptr', 'obfs_early_ptr', 'obfs_tx_ptr', 'obfs_control_ptr', 'obfs_info_ptr', 'obfs_configure', 'obfs_accept',
  'obfs_dial', 'obfs_release', 'obfs_ended', 'obfs_handle_packets', 'obfs_transmit', 'obfs_control',
  'obfs_context_slots', 'obfs_context_info',
]
