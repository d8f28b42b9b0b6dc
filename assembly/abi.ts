/* Shared constants (docs/abi.md). Generated from assembly/abi.json by build/abi.mjs: edit that file. */

export const ABI_VERSION: i32 = 2
/** Ticks in a millisecond. */
export const TICKS_PER_MS: u32 = 8
/** Ticks in a second. */
export const TICKS_PER_SECOND: u32 = 8000
/** Longest sleep that `next_timeout` returns. It keeps differences of 32-bit clocks far from their sign bit. */
export const MAX_SLEEP_TICKS: u32 = 0x2932e000
/** Value of an unset config field: the engine chooses. */
export const UNSET: u32 = 0xffffffff
/** Longest accepted datagram, as on the wire. */
export const MAX_DATAGRAM_BYTES: u32 = 1500
/** Number of receive descriptors. */
export const RX_SLOTS: u32 = 128
/** Number of transmit descriptors. */
export const TX_SLOTS: u32 = 64
/** Events that one `poll_events` can return. */
export const EVENT_SLOTS: u32 = 256
/** Spans that one `stream_reserve` or `stream_peek` can return. */
export const SPAN_SLOTS: u32 = 64
/** Size of the entropy block. */
export const ENTROPY_BYTES: u32 = 65536
/** Numbers of keys: 0 to 127. */
export const KEY_NUMBERS: u32 = 128
/** Size of the block at `io_ptr`. */
export const IO_BYTES: u32 = 65536
/** Longest service id, in bytes. */
export const SERVICE_BYTES: u32 = 256
/** Most addresses of `add_rendezvous`. */
export const RENDEZVOUS_OTHERS: u32 = 7
/** Answers that one `poll_pongs` can return. */
export const PONG_SLOTS: u32 = 128
/** Most bytes of `echo_open`. */
export const ECHO_BYTES: u32 = 4096
/** Result of `session_info` for a session in TIME_WAIT, which has no stream. */
export const NO_STREAM: u32 = 0x7fffffff
export const OK: i32 = 0

/* Bits of `capabilities()`. */

export const CAPABILITY_OBFS: u32 = 1
export const CAPABILITY_VALIDATION: u32 = 2
export const CAPABILITY_FIND: u32 = 4
export const CAPABILITY_PROBE: u32 = 8
export const CAPABILITY_MEASURE: u32 = 16

/* Bits of the config field `mode`. */

export const MODE_SERVER: u32 = 1
export const MODE_CLIENT: u32 = 2
export const MODE_RENDEZVOUS: u32 = 4

/* Values of the config field `nonceStrategy`. */

export const NONCE_NONE: u32 = 0
export const NONCE_RANDOM: u32 = 1
export const NONCE_COUNTER: u32 = 2

/* Types of events. */

export const EVENT_DIAL: u32 = 1
export const EVENT_READABLE: u32 = 2
export const EVENT_WRITABLE: u32 = 3
export const EVENT_EOF: u32 = 4
export const EVENT_ABORT: u32 = 5
export const EVENT_DETACH: u32 = 6
export const EVENT_PONG: u32 = 7
export const EVENT_RESOLVE: u32 = 8
export const EVENT_PEER_FOUND: u32 = 9
export const EVENT_MIGRATED: u32 = 10
export const EVENT_MTU: u32 = 11
export const EVENT_OBFS_READY: u32 = 12
export const EVENT_OBFS_ENDED: u32 = 13
export const EVENT_PROBED: u32 = 14
export const EVENT_RUNS_LOST: u32 = 15
export const EVENT_OPENED: u32 = 16
export const EVENT_ECHO: u32 = 17
export const EVENT_PUNCHED: u32 = 18

/* `arg` of ABORT. */

export const REASON_TIMEOUT: u32 = 1
export const REASON_LINGER: u32 = 2
export const REASON_NO_ANSWER: u32 = 3
export const REASON_RESET: u32 = 4
export const REASON_PROTOCOL: u32 = 5
export const REASON_MEMORY: u32 = 6
export const REASON_STALE_PEER: u32 = 7
export const REASON_MTU: u32 = 8
export const REASON_OBFS: u32 = 9
export const REASON_MOVED: u32 = 10
export const REASON_KEY: u32 = 11

/* Negative results. */

export const E_STATE: i32 = -1
export const E_HANDLE: i32 = -2
export const E_NO_PEER: i32 = -3
export const E_SESSIONS: i32 = -4
export const E_MEMORY: i32 = -5
export const E_ENTROPY: i32 = -6
export const E_ARGUMENT: i32 = -7
export const E_CONFIG: i32 = -100

/* States of a session (protocol.md 6.4). */

export const STATE_CONNECT: u32 = 1
export const STATE_ESTABLISHED: u32 = 2
export const STATE_LINGER: u32 = 3
export const STATE_TIME_WAIT: u32 = 4

/* `kind` of the block at `obfs_ptr`. */

export const OBFS_KIND_NONE: u32 = 0
export const OBFS_KIND_TCP_WND: u32 = 1
export const OBFS_KIND_TCP: u32 = 2

/* `state` of a context. */

export const OBFS_STATE_NEW: u32 = 1
export const OBFS_STATE_CAPTURED: u32 = 2
export const OBFS_STATE_AUTHENTICATED: u32 = 3

/* Address record. A session is identified by all of its bytes and its conv. */

export const ADDRESS_BYTES: u32 = 24
export const ADDRESS_FAMILY: usize = 0
export const ADDRESS_LOCAL: usize = 1
export const ADDRESS_PORT: usize = 2
export const ADDRESS_SCOPE: usize = 4
export const ADDRESS_KEY: usize = 7
export const ADDRESS_IP: usize = 8

/* Block at `secret_ptr`. */

export const SECRET_BYTES: u32 = 32
export const SECRET_SECRET: usize = 0
export const SECRET_BASE: usize = 16
export const SECRET_SLOT: usize = 28

/* Block of one key. */

export const KEY_BYTES: u32 = 72
export const KEY_TAG: usize = 0
export const KEY_MAX_SESSIONS: usize = 16
export const KEY_SESSIONS: usize = 20
export const KEY_OPENED: usize = 24
export const KEY_REFUSED: usize = 32
export const KEY_RECEIVED: usize = 40
export const KEY_SENT: usize = 48
export const KEY_TCP_READ: usize = 56
export const KEY_TCP_WRITTEN: usize = 64

/* Receive descriptor. */

export const RX_BYTES: u32 = 48
export const RX_PTR: usize = 0
export const RX_CAPACITY: usize = 4
export const RX_LENGTH: usize = 8
export const RX_FLAGS: usize = 12
export const RX_ADDRESS: usize = 16
export const RX_HASH: usize = 40
export const RX_OPENED: u32 = 1
export const RX_PROBE: u32 = 2

/* Transmit descriptor. */

export const TX_BYTES: u32 = 32
export const TX_SOURCE: usize = 0
export const TX_LENGTH: usize = 4
export const TX_OUT: usize = 8
export const TX_NONCE: usize = 12
export const TX_ADDRESS: usize = 16
export const TX_HANDLE: usize = 20
export const TX_FLAGS: usize = 24
export const TX_PROBE: u32 = 1
export const TX_JOINS: u32 = 2
export const TX_SIZE_TEST: u32 = 4
export const TX_MAY_FRAGMENT: u32 = 8

/* Event. */

export const EVENT_BYTES: u32 = 16
export const EVENT_TYPE: usize = 0
export const EVENT_HANDLE: usize = 4
export const EVENT_ARG: usize = 8
export const EVENT_ARG2: usize = 12

/* Answer to a PING of `ping_address`. */

export const PONG_BYTES: u32 = 32
export const PONG_NUMBER: usize = 0
export const PONG_RTT: usize = 4
export const PONG_ADDRESS: usize = 8

/* Span: an iovec of wasm32. */

export const SPAN_BYTES: u32 = 8
export const SPAN_PTR: usize = 0
export const SPAN_LENGTH: usize = 4

/* Block that `session_info` and `session_find` fill. */

export const INFO_BYTES: u32 = 96
export const INFO_CONV: usize = 0
export const INFO_STATE: usize = 4
export const INFO_AGE: usize = 8
export const INFO_IDLE: usize = 12
export const INFO_SRTT: usize = 16
export const INFO_RTO: usize = 20
export const INFO_WAITSND: usize = 24
export const INFO_PACE: usize = 28
export const INFO_TCP_READ: usize = 32
export const INFO_TCP_WRITTEN: usize = 40
export const INFO_ADDRESS: usize = 48
export const INFO_SNDWND: usize = 72
export const INFO_RMT_WND: usize = 76
export const INFO_CWND: usize = 80
export const INFO_RETRANSMISSIONS: usize = 84
export const INFO_RTTVAR: usize = 88
export const INFO_CONGESTION: usize = 92

/* Block at `obfs_ptr`. */

export const OBFS_BYTES: u32 = 328
export const OBFS_KIND: usize = 0
export const OBFS_LOCAL: usize = 16
export const OBFS_REMOTE: usize = 40
export const OBFS_FILTER_LENGTH: usize = 64
export const OBFS_FILTER: usize = 72

/* Descriptor of a captured packet. */

export const OBFS_RX_BYTES: u32 = 32
export const OBFS_RX_PTR: usize = 0
export const OBFS_RX_CAPACITY: usize = 4
export const OBFS_RX_LENGTH: usize = 8
export const OBFS_RX_FLAGS: usize = 12
export const OBFS_RX_PAYLOAD: usize = 16
export const OBFS_RX_PAYLOAD_LENGTH: usize = 20
export const OBFS_RX_ADDRESS: usize = 24
export const OBFS_RX_CONTEXT: usize = 28
export const OBFS_RX_HAS_PAYLOAD: u32 = 1

/* Descriptor of a packet to send. */

export const OBFS_TX_BYTES: u32 = 64
export const OBFS_TX_PTR: usize = 0
export const OBFS_TX_CAPACITY: usize = 4
export const OBFS_TX_LENGTH: usize = 8
export const OBFS_TX_PACKET: usize = 16
export const OBFS_TX_PACKET_LENGTH: usize = 20
export const OBFS_TX_ADDRESS: usize = 32

/* Block that `obfs_context_info` fills. */

export const OBFS_INFO_BYTES: u32 = 96
export const OBFS_INFO_STATE: usize = 0
export const OBFS_INFO_IDLE: usize = 4
export const OBFS_INFO_BYTES_IN: usize = 8
export const OBFS_INFO_BYTES_OUT: usize = 16
export const OBFS_INFO_CONGESTED: usize = 24
export const OBFS_INFO_ECHOES: usize = 28
export const OBFS_INFO_ADDRESS: usize = 32
export const OBFS_INFO_CONTEXT: usize = 56
export const OBFS_INFO_AGE: usize = 60

/* Fields of the config block. */

export const CONFIG_MODE: u32 = 0
export const CONFIG_TAG_BYTES: u32 = 1
export const CONFIG_NONCE_BYTES: u32 = 2
export const CONFIG_NONCE_STRATEGY: u32 = 3
export const CONFIG_KCP_MTU: u32 = 4
export const CONFIG_SNDWND: u32 = 5
export const CONFIG_RCVWND: u32 = 6
export const CONFIG_NODELAY: u32 = 7
export const CONFIG_INTERVAL: u32 = 8
export const CONFIG_RESEND: u32 = 9
export const CONFIG_NC: u32 = 10
export const CONFIG_FLUSH: u32 = 11
export const CONFIG_TIMEOUT: u32 = 12
export const CONFIG_LINGER: u32 = 13
export const CONFIG_KEEPALIVE: u32 = 14
export const CONFIG_TIME_WAIT: u32 = 15
export const CONFIG_MEMORY_CEILING: u32 = 16
export const CONFIG_MAX_SESSIONS: u32 = 17
export const CONFIG_REPLAY_CAPACITY: u32 = 18
export const CONFIG_MAX_HALF_OPEN: u32 = 19
export const CONFIG_CONFIRM: u32 = 20
export const CONFIG_SEND_ONCE: u32 = 21
export const CONFIG_SEARCH_MTU: u32 = 22
export const CONFIG_RATE_UP: u32 = 23
export const CONFIG_RATE_DOWN: u32 = 24
export const CONFIG_SESSION_RATE_UP: u32 = 25
export const CONFIG_SESSION_RATE_DOWN: u32 = 26
export const CONFIG_FIELDS: u32 = 27

/** Minimum and maximum of each config field, and whether it may be unset. */
// biome-ignore format: one field per line
export const CONFIG_RANGES: StaticArray<u32> = [
  0, 7, 0, // mode
  0, 16, 0, // tagBytes
  0, 24, 0, // nonceBytes
  0, 2, 0, // nonceStrategy
  64, 1500, 0, // kcpMtu
  1, 65536, 1, // sndwnd
  1, 65536, 1, // rcvwnd
  0, 2, 1, // nodelay
  1, 5000, 1, // interval
  0, 100, 1, // resend
  0, 1, 1, // nc
  0, 2, 1, // flush
  1, 86400, 0, // timeout
  1, 86400, 0, // linger
  0, 86400, 0, // keepalive
  1, 86400, 0, // timeWait
  0x100000, 0xf0000000, 0, // memoryCeiling
  1, 65535, 0, // maxSessions
  0, 0x100000, 0, // replayCapacity
  0, 65535, 0, // maxHalfOpen
  0, 1, 0, // confirm
  0, 1, 0, // sendOnce
  0, 1500, 0, // searchMtu
  0, 0x5f5e100, 1, // rateUp
  0, 0x5f5e100, 1, // rateDown
  0, 0x5f5e100, 1, // sessionRateUp
  0, 0x5f5e100, 1, // sessionRateDown
]
