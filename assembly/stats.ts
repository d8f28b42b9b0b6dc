/* The counters, u64 each, in the order of docs/abi.md. Hosts read them in place. */

export const TCP_READ_BYTES: u32 = 0
export const TCP_WRITTEN_BYTES: u32 = 1
export const KCP_RECEIVED_BYTES: u32 = 2
export const KCP_SENT_BYTES: u32 = 3
export const PKT_RECEIVED_BYTES: u32 = 4
export const PKT_SENT_BYTES: u32 = 5
export const PKT_RECEIVED: u32 = 6
export const PKT_SENT: u32 = 7
export const SEGMENTS_RECEIVED: u32 = 8
export const SEGMENTS_SENT: u32 = 9
export const SEGMENTS_RETRANSMITTED: u32 = 10
export const FAST_RETRANSMITS: u32 = 11
export const SEGMENTS_DUPLICATE: u32 = 12
export const ACKS_SENT: u32 = 13
export const ACKS_RECEIVED: u32 = 14
export const DROP_AUTH: u32 = 15
export const DROP_REPLAY: u32 = 16
export const DROP_OVERSIZE: u32 = 17
export const DROP_SHORT: u32 = 18
export const DROP_MALFORMED: u32 = 19
export const DROP_MEMORY: u32 = 20
export const DROP_WINDOW: u32 = 21
export const SESSIONS_OPENED: u32 = 22
export const SESSIONS_REFUSED: u32 = 23
export const SESSIONS_ABORTED: u32 = 24
export const RESETS_SENT: u32 = 25
export const RESETS_RECEIVED: u32 = 26
export const PINGS_SENT: u32 = 27
export const PONGS_RECEIVED: u32 = 28
export const DISCARDED_BYTES: u32 = 29
export const KEEPALIVES_SENT: u32 = 30
export const RTOS: u32 = 31
/** Gauges of sessions by state follow: state s (1..4) is counter SESSIONS_BY_STATE + s - 1. */
export const SESSIONS_BY_STATE: u32 = 32
export const WAITSND: u32 = 36
export const MEMORY_USED: u32 = 37
export const LAST_RECEIVED_AGE: u32 = 38
export const PEER_SILENT_PINGS: u32 = 39
export const ENTROPY_LEFT: u32 = 40
/** Captured packets without a context, and their bytes. */
export const OBFS_DROPPED_BYTES: u32 = 41
export const OBFS_DROPPED: u32 = 42
export const OBFS_CONTEXTS: u32 = 43
export const OBFS_UNAUTHENTICATED: u32 = 44
export const OBFS_REFUSED: u32 = 45
export const OBFS_CONTROL_SENT: u32 = 46
/** Datagrams of this endpoint that were reflected. */
export const DROP_REFLECTED: u32 = 47
/** Sessions whose first flight had to be confirmed. */
export const SESSIONS_UNCONFIRMED: u32 = 48
/** PONGs that answer no outstanding PING. */
export const PONGS_UNASKED: u32 = 49

export const counters: usize = memory.data(64 * 8, 8)

/** Adds 1 to a counter. */
export function count(index: u32): void {
  add(index, 1)
}

/** Adds to a counter. */
export function add(index: u32, n: u32): void {
  const at = counters + ((<usize>index) << 3)
  store<u64>(at, load<u64>(at) + n)
}

/** Sets a gauge. */
export function set(index: u32, value: u64): void {
  store<u64>(counters + ((<usize>index) << 3), value)
}

/** Changes a gauge by a signed amount. */
export function shift(index: u32, by: i32): void {
  const at = counters + ((<usize>index) << 3)
  store<u64>(at, load<u64>(at) + <u64>(<i64>by))
}
