/*
 * Options of conversations: values of the configuration, copied into a conversation when it is opened.
 */
import { TICKS_PER_MS, UNSET } from '../abi'
import { NEVER } from '../clock'
import { Conv, Milliseconds } from '../units'
import { Conversation, INITIAL_RMTWND, MAX_WND, MIN_RCVWND, SendBuffer } from './conversation'
import { HEADER_BYTES } from './segment'

/** Send window without automatic control, unless set (protocol.md 10.2). */
export const DEFAULT_WND: u32 = 256

export const NC_CLASSIC: u32 = 0
export const NC_NONE: u32 = 1
export const NC_AUTOMATIC: u32 = 2

export const FLUSH_INTERVAL: u32 = 0
export const FLUSH_AT_ONCE: u32 = 2
export const FLUSH_AUTOMATIC: u32 = 3

/** Maximum bytes of plaintext in a datagram. Depends on the configuration and the address family; see segmentLimit. */
let plainMtu: u32 = 0
/** The same on a path that was found to take more; at least `plainMtu`. */
let topMtu: u32 = 0

/** @returns maximum bytes of plaintext in a datagram on a path of which nothing is known */
export function kcpMtu(): u32 {
  return plainMtu
}

/** @returns bytes of plaintext up to which larger datagrams are tried on a path; 0 if none are */
export function searchMtu(): u32 {
  return topMtu > plainMtu ? topMtu : 0
}

let isRedundant: bool = true

/** @returns true if segments may be sent again before they count as lost */
export function mayBeRedundant(): bool {
  return isRedundant
}

// options of conversations opened from now on; existing ones keep their copies
let mode: u32 = NC_AUTOMATIC
let flushing: u32 = FLUSH_AUTOMATIC
let delaying: u32 = 1
let resending: u32 = 0
let intervalMs: Milliseconds = UNSET
let sendWindow: u32 = UNSET
/** Segments; UNSET if the window is tuned automatically. */
let recvWindow: u32 = UNSET

/** @returns configured receive window in segments, UNSET if it is tuned automatically */
export function optionRcvWnd(): u32 {
  return recvWindow
}

/** Minimum variance of the RTO while no interval is set. */
const DEFAULT_RTO_VARIANCE_MS: Milliseconds = 1
/** Flush interval of `flush` 0 if no interval is set (protocol.md 10.2). */
const DEFAULT_FLUSH_MS: Milliseconds = 100

/** Applies configuration values; UNSET selects the default of this implementation. */
export function setOptions(
  mtu: u32,
  search: u32,
  sndwnd: u32,
  rcvwnd: u32,
  delay: u32,
  interval: u32,
  resend: u32,
  nc: u32,
  flush: u32,
  sendOnce: bool,
): void {
  plainMtu = mtu
  topMtu = max(mtu, search)
  sendWindow = sndwnd
  recvWindow = rcvwnd == UNSET ? UNSET : min(max(rcvwnd, MIN_RCVWND), MAX_WND)
  delaying = delay == UNSET ? 1 : delay
  intervalMs = interval
  resending = resend == UNSET ? 0 : resend
  mode = nc == UNSET ? NC_AUTOMATIC : nc
  isRedundant = !sendOnce
  flushing = flush == UNSET ? FLUSH_AUTOMATIC : flush
}

/** Initializes a conversation in a zeroed record. */
export function openConversation(c: Conversation, conv: Conv): void {
  c.conv = conv
  c.congestionMode = <u8>mode
  c.flushMode = <u8>flushing
  c.nodelay = <u8>delaying
  c.fastResend = <u8>resending
  c.isSndWndSet = <u8>(sendWindow != UNSET)
  c.intervalTicks = <u16>((intervalMs == UNSET ? DEFAULT_RTO_VARIANCE_MS : intervalMs) * TICKS_PER_MS)
  c.flushTicks = <u16>((intervalMs == UNSET ? DEFAULT_FLUSH_MS : intervalMs) * TICKS_PER_MS)
  // without automatic control and without a configured window the documented default applies
  c.sndWnd = sendWindow == UNSET && mode != NC_AUTOMATIC ? DEFAULT_WND : min(sendWindow, MAX_WND)
  c.rmtWnd = INITIAL_RMTWND
  c.pathMss = NEVER
  c.rto = 200 * TICKS_PER_MS
  c.ssthresh = 2
}

/**
 * Maximum payload of a new segment. It is a property of the path rather than of the conversation, and may change during
 * its life. Segments made under another limit keep the size of their block (`capacityOf`).
 */
export function segmentLimit(c: SendBuffer): u32 {
  const mss = c.pathMss
  return mss == NEVER ? plainMtu - HEADER_BYTES : min(topMtu - HEADER_BYTES, mss)
}
