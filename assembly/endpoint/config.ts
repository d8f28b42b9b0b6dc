/*
 * The config block: its fields in the order of docs/abi.md, and their ranges.
 */
import { MAX_DATAGRAM_BYTES, NONCE_COUNTER, UNSET } from '../abi'

export const MODE: u32 = 0
export const TAG_BYTES: u32 = 1
export const NONCE_BYTES: u32 = 2
export const NONCE_STRATEGY: u32 = 3
export const KCP_MTU: u32 = 4
export const SNDWND: u32 = 5
export const RCVWND: u32 = 6
export const NODELAY: u32 = 7
export const INTERVAL: u32 = 8
export const RESEND: u32 = 9
export const NC: u32 = 10
export const FLUSH: u32 = 11
export const TIMEOUT: u32 = 12
export const LINGER: u32 = 13
export const KEEPALIVE: u32 = 14
export const TIME_WAIT: u32 = 15
export const MEMORY: u32 = 16
export const MAX_SESSIONS: u32 = 17
export const REPLAY: u32 = 18
export const MAX_HALF_OPEN: u32 = 19
export const CONFIRM: u32 = 20

export const config: usize = memory.data(21 * 4, 8)

/** @returns value of a config field */
export function field(i: u32): u32 {
  return load<u32>(config + ((<usize>i) << 2))
}

function inRange(i: u32, low: u32, high: u32): bool {
  const value = field(i)
  return value >= low && value <= high
}

function unsetOrIn(i: u32, low: u32, high: u32): bool {
  return field(i) == UNSET || inRange(i, low, high)
}

/**
 * Checks the config block.
 * @returns -1 if it is valid, otherwise the index of the first invalid field
 */
export function badField(): i32 {
  if (!inRange(MODE, 0, 7) || (field(MODE) & 3) == 3) return MODE
  if (field(TAG_BYTES) != 0 && field(TAG_BYTES) != 16) return TAG_BYTES
  if (field(NONCE_BYTES) != 0 && field(NONCE_BYTES) != 12 && field(NONCE_BYTES) != 24) return NONCE_BYTES
  if (!inRange(NONCE_STRATEGY, 0, 2) || (field(NONCE_STRATEGY) == NONCE_COUNTER && field(NONCE_BYTES) != 12))
    return NONCE_STRATEGY
  if (!inRange(KCP_MTU, 64, MAX_DATAGRAM_BYTES)) return KCP_MTU
  if (!unsetOrIn(SNDWND, 1, 65536)) return SNDWND
  if (!unsetOrIn(RCVWND, 1, 65536)) return RCVWND
  if (!unsetOrIn(NODELAY, 0, 2)) return NODELAY
  if (!unsetOrIn(INTERVAL, 1, 5000)) return INTERVAL
  if (!unsetOrIn(RESEND, 0, 100)) return RESEND
  if (!unsetOrIn(NC, 0, 1)) return NC
  if (!unsetOrIn(FLUSH, 0, 2)) return FLUSH
  if (!inRange(TIMEOUT, 1, 86400)) return TIMEOUT
  if (!inRange(LINGER, 1, 86400)) return LINGER
  if (!inRange(KEEPALIVE, 0, 86400)) return KEEPALIVE
  if (!inRange(TIME_WAIT, 1, 86400)) return TIME_WAIT
  if (!inRange(MEMORY, 1 << 20, 0xf0000000)) return MEMORY
  if (!inRange(MAX_SESSIONS, 1, 65535)) return MAX_SESSIONS
  if (!inRange(REPLAY, 0, 1 << 20)) return REPLAY
  if (!inRange(MAX_HALF_OPEN, 0, 65535)) return MAX_HALF_OPEN
  if (!inRange(CONFIRM, 0, 1)) return CONFIRM
  return -1
}
