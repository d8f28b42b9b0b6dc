/*
 * Numbers that both sides of the module boundary share: clock unit, error codes, event types, structure layouts.
 * docs/abi.md is their description for hosts; host/engine/core.ts their mirror in TypeScript.
 */

export const ABI_VERSION: i32 = 1

/** The clock runs in ticks of 1/8 ms. */
export const TICKS_PER_MS: u32 = 8
export const TICKS_PER_SECOND: u32 = 8000
/** Longest sleep `next_timeout` asks for: keeps every difference of u32 clocks far from its sign bit. */
export const MAX_SLEEP_TICKS: u32 = 86400 * TICKS_PER_SECOND

export const OK: i32 = 0
export const E_STATE: i32 = -1
export const E_HANDLE: i32 = -2
export const E_NO_PEER: i32 = -3
export const E_SESSIONS: i32 = -4
export const E_MEMORY: i32 = -5
export const E_ENTROPY: i32 = -6
export const E_ARGUMENT: i32 = -7
/** Config field i out of range: E_CONFIG - i. */
export const E_CONFIG: i32 = -100

/** Event types; in a session's pending set event type t is bit t. */
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

export const REASON_TIMEOUT: u32 = 1
export const REASON_LINGER: u32 = 2
export const REASON_NO_ANSWER: u32 = 3
export const REASON_RESET: u32 = 4
export const REASON_PROTOCOL: u32 = 5
export const REASON_MEMORY: u32 = 6
export const REASON_STALE_PEER: u32 = 7
export const REASON_MTU: u32 = 8
export const REASON_OBFS: u32 = 9

export const MODE_SERVER: u32 = 1
export const MODE_CLIENT: u32 = 2
export const MODE_RENDEZVOUS: u32 = 4

export const NONCE_RANDOM: u32 = 1
export const NONCE_COUNTER: u32 = 2

/** Value of a config field the user left unset. */
export const UNSET: u32 = 0xffffffff

/** Longest datagram that is looked at (protocol.md 3.5). */
export const MAX_DATAGRAM_BYTES: u32 = 1500

export const RX_SLOTS: u32 = 128
export const RX_BYTES: u32 = 48
export const RX_PTR: usize = 0
export const RX_CAPACITY: usize = 4
export const RX_LEN: usize = 8
export const RX_FLAGS: usize = 12
export const RX_ADDRESS: usize = 16
/** The engine's own: keyed hash of the nonce. */
export const RX_HASH: usize = 40
export const RX_OPENED: u32 = 1

export const TX_SLOTS: u32 = 64
export const TX_BYTES: u32 = 32
export const TX_SRC: usize = 0
export const TX_LEN: usize = 4
export const TX_OUT: usize = 8
export const TX_NONCE: usize = 12
export const TX_ADDRESS: usize = 16
export const TX_HANDLE: usize = 20

export const EVENT_SLOTS: u32 = 256
export const EVENT_BYTES: u32 = 16

export const SPAN_SLOTS: u32 = 64
export const SPAN_BYTES: u32 = 8

export const ENTROPY_BYTES: u32 = 65536
export const IO_BYTES: u32 = 65536
