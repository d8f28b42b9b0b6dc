/*
 * The state of one KCP conversation (protocol.md 5.4): a record in linear memory and what its policies share.
 *
 * Sequence numbers of the sender: [sndUna, sndNxt) is in flight, [sndNxt, sndEnd) waits for the window, [sndEnd,
 * sndReserved) is room handed to the host. Of the receiver: [rcvRead, rcvNxt) is in order and unread, (rcvNxt, rcvTop)
 * came early, with holes.
 */

import { TICKS_PER_MS, UNSET } from '../abi'
import { NEVER } from '../clock'
import { Conv, Milliseconds, Sn, Ticks, Ts } from '../units'
import { HEADER_BYTES } from './segment'

/** Lists that a sent segment stands in: in flight, ordered by time of sending; found lost, waiting to be sent again. */
export const FLIGHT: u32 = 0
export const LOST: u32 = 1
/** Smallest receive window (protocol.md 5.2). */
export const MIN_RCVWND: u32 = 128
/** Window a peer is believed to have before its first packet. */
export const INITIAL_RMTWND: u32 = 128
/** Largest window a header can tell. */
export const MAX_WND: u32 = 65535

@unmanaged
export class Conversation {
  conv: Conv
  // send window
  sndUna: Sn
  sndNxt: Sn
  sndEnd: Sn
  sndReserved: Sn
  sndRing: usize
  sndMask: u32
  sndWnd: u32
  // most payload bytes that the path was seen to take, NEVER if nothing is known of it (see segmentLimit)
  pathMss: u32
  rmtWnd: u32
  // first and last sn of the lists FLIGHT and LOST, and how many stand in each
  firstFlight: Sn
  firstLost: Sn
  lastFlight: Sn
  lastLost: Sn
  flight: u32
  lost: u32
  // RTT, in ticks
  srtt: Ticks
  rttvar: Ticks
  rto: Ticks
  // loss detection: the newest transmission known to have arrived, its round trip, what reordering is allowed (eighths
  // of the RTT floor)
  rackTs: Ts
  rackSn: Sn
  rackRtt: Ticks
  reoWndMult: u32
  reoWndMultAt: Ticks
  lastActivityAt: Ticks
  ptoCount: u32
  // search for a black hole: the segment that does not arrive, since when
  blackholeSn: Sn
  blackholeAt: Ticks
  // history of ACK datagrams for `resend`
  ackHistory: usize
  ackHistoryCount: u32
  // when the peer's window held back a new segment (`wasBlocked`)
  blockedAt: Ticks
  // a retransmission that leaves more than once
  copySn: Sn
  copies: u32
  // a small write that leaves twice
  thinSn: Sn
  thinAt: Ticks
  // delivery: segments delivered so far, when the last was, when the first of those measured was sent
  delivered: u32
  deliveredAt: Ticks
  firstSentAt: Ticks
  appLimitedUntil: u32
  // the sample of the datagram being taken in: newest RTT and best delivery snapshot
  sampleRtt: Ticks
  sampleDelivered: u32
  sampleDeliveredAt: Ticks
  sampleFirstSentAt: Ticks
  sampleSentAt: Ticks
  // the state of congestion control, in a block of its own (0: none, see congestion.ts)
  model: usize
  peerPath: usize
  // classic congestion window, used if nc is 0
  cwnd: u32
  ssthresh: u32
  incr: u32
  // receive window
  rcvRead: Sn
  rcvNxt: Sn
  rcvTop: Sn
  rcvRing: usize
  rcvMask: u32
  rcvWnd: u32
  // first sn beyond what the peer was ever told it may send
  rcvEdge: Sn
  // bytes of the blocks of what was received, and of the ring
  rcvHeldBytes: u32
  // the PUSH that found no room last, and when the peer was told of one, in units of DROP_TICKS
  dropSn: Sn
  dropAt: u16
  // this batch began with everything read
  isPrompt: u8
  // something was dropped since the peer was told that there is room
  hasDropped: u8
  // the peer has no room for what it promised to take (see takeWins)
  isStarved: u8
  // automatic receive window: where and when the last look began, 0 ceiling = fixed
  rcvWndMax: u32
  rcvTuneNxt: Sn
  rcvTuneAt: Ticks
  // ACKs to send
  ackRing: usize
  ackMask: u32
  ackRepeat: u32
  ackFirst: u32
  ackEnd: u32
  ackDeadline: Ticks
  ackLastSentAt: Ticks
  // which of the last 32 PUSHes had a ts other than the one before, and which a slightly later one
  tsChanges: u32
  tsSteps: u32
  tsLast: Ts
  // zero-window probing
  wndProbes: u32
  wndProbeInterval: Ticks
  wndProbeAt: Ticks
  lastSn: Sn
  lastTs: Ts
  // counters
  retransmissions: u32
  // highest una of the peer, and when it came first
  peerUna: Sn
  unaAt: Ticks
  // a server's session that waits to be confirmed: the transmissions whose ACK would do so (confirm.ts); 0 = none
  confirm: usize
  hasRack: u8
  hasSample: u8
  wasBlocked: u8
  ackAtOnce: u8
  // options of the endpoint when the conversation opened; ticks where a time
  congestionMode: u8
  flushMode: u8
  nodelay: u8
  fastResend: u8
  // the user set `sndwnd`: then it is a hard limit
  isSndWndSet: u8
  // variance floor of the RTO, and the tick of `flush` 0
  intervalTicks: u16
  flushTicks: u16
}

/** Bits of `probe`. */
export const PROBE_ASK: u32 = 1
export const PROBE_TELL: u32 = 2
/** A PUSH was dropped for want of memory: say so. */
export const PROBE_DROPPED: u32 = 4

/** Window of a sender without automatic control, unless set (protocol.md 10.2). */
export const DEFAULT_WND: u32 = 256

export const NC_CLASSIC: u32 = 0
export const NC_NONE: u32 = 1
export const NC_AUTOMATIC: u32 = 2

export const FLUSH_INTERVAL: u32 = 0
export const FLUSH_AT_ONCE: u32 = 2
export const FLUSH_AUTOMATIC: u32 = 3

/** Most bytes of plaintext in a datagram now. It follows the configuration and the address family: see segmentLimit. */
let plainMtu: u32 = 0

export function kcpMtu(): u32 {
  return plainMtu
}

// options of conversations that open from now on; those that live keep the ones they copied
let mode: u32 = NC_AUTOMATIC
let flushing: u32 = FLUSH_AUTOMATIC
let delaying: u32 = 1
let resending: u32 = 0
let intervalMs: Milliseconds = UNSET
let sendWindow: u32 = UNSET
/** Segments, UNSET if the window is to grow. */
let recvWindow: u32 = UNSET

export function optionRcvWnd(): u32 {
  return recvWindow
}

/** Variance floor of the RTO while the user set no interval. */
const DEFAULT_RTO_VARIANCE_MS: Milliseconds = 1
/** Tick of `flush` 0 if no interval is set (protocol.md 10.2). */
const DEFAULT_FLUSH_MS: Milliseconds = 100

/** Takes over config values; UNSET means the default of this implementation. */
export function setOptions(
  mtu: u32,
  sndwnd: u32,
  rcvwnd: u32,
  delay: u32,
  interval: u32,
  resend: u32,
  nc: u32,
  flush: u32,
): void {
  plainMtu = mtu
  sendWindow = sndwnd
  recvWindow = rcvwnd == UNSET ? UNSET : min(max(rcvwnd, MIN_RCVWND), MAX_WND)
  delaying = delay == UNSET ? 1 : delay
  intervalMs = interval
  resending = resend == UNSET ? 0 : resend
  mode = nc == UNSET ? NC_AUTOMATIC : nc
  flushing = flush == UNSET ? FLUSH_AUTOMATIC : flush
}

let wireOffset: u32 = 0

/** Sets a random start of the clock that segments carry. */
export function setWireOffset(offset: u32): void {
  wireOffset = offset
}

/**
 * The ts of a segment sent at `now`. Only we read it again, when it is echoed; its random start tells our own datagrams
 * from the peer's, should they come back.
 */
export function wireClock(now: Ticks): Ts {
  return now + wireOffset
}

/** The time at which a segment with this ts of ours was sent. */
export function fromWireClock(ts: Ts): Ticks {
  return ts - wireOffset
}

/** Starts a conversation in a zeroed record. */
export function openConversation(c: Conversation, conv: Conv): void {
  c.conv = conv
  c.congestionMode = <u8>mode
  c.flushMode = <u8>flushing
  c.nodelay = <u8>delaying
  c.fastResend = <u8>resending
  c.isSndWndSet = <u8>(sendWindow != UNSET)
  c.intervalTicks = <u16>((intervalMs == UNSET ? DEFAULT_RTO_VARIANCE_MS : intervalMs) * TICKS_PER_MS)
  c.flushTicks = <u16>((intervalMs == UNSET ? DEFAULT_FLUSH_MS : intervalMs) * TICKS_PER_MS)
  // without control or a window set, the documented default holds
  c.sndWnd = sendWindow == UNSET && mode != NC_AUTOMATIC ? DEFAULT_WND : min(sendWindow, MAX_WND)
  c.rmtWnd = INITIAL_RMTWND
  c.pathMss = NEVER
  c.rto = 200 * TICKS_PER_MS
  c.ssthresh = 2
}

/**
 * Most payload bytes of a segment that is made now. A property of the path, no option of the conversation: it may fall
 * and rise while that lives. What was made under another limit keeps the size of its block (`capacityOf`).
 */
export function segmentLimit(c: Conversation): u32 {
  return min(plainMtu - HEADER_BYTES, c.pathMss)
}

/** Segments queued or in flight ("waitsnd"). */
export function waitSnd(c: Conversation): u32 {
  return c.sndEnd - c.sndUna
}
