/*
 * The state of one KCP conversation (protocol.md 5.4): a record in linear memory and what its policies share.
 *
 * Sequence numbers of the sender: [sndUna, sndNxt) is in flight, [sndNxt, sndEnd) waits for the window, [sndEnd, sndReserved) is room handed to the
 * host. Of the receiver: [rcvRead, rcvNxt) is in order and unread, (rcvNxt, rcvTop) came early, with holes.
 */
import { TICKS_PER_MS, UNSET } from '../abi'
import { HEADER_BYTES } from './segment'

/** Lists of segments in flight by number of transmissions: level = transmissions - 1, the last level takes the rest. */
export const LEVELS: u32 = 8
/** List of segments found lost and waiting to be sent again. */
export const LEVEL_LOST: u32 = 8
/** Smallest receive window (protocol.md 5.2). */
export const MIN_RCVWND: u32 = 128
/** Window a peer is believed to have before its first packet. */
export const INITIAL_RMTWND: u32 = 128
/** Largest window a header can tell. */
export const MAX_WND: u32 = 65535
const DEFAULT_WND: u32 = 256

@unmanaged
export class Conversation {
  conv: u32
  // send window
  sndUna: u32
  sndNxt: u32
  sndEnd: u32
  sndReserved: u32
  sndRing: usize
  sndMask: u32
  sndTailLen: u32
  sndWnd: u32
  rmtWnd: u32
  // lists of segments by level: first and last sn; a level is in use if its bit in `levels` is set
  levels: u32
  first0: u32
  first1: u32
  first2: u32
  first3: u32
  first4: u32
  first5: u32
  first6: u32
  first7: u32
  firstLost: u32
  last0: u32
  last1: u32
  last2: u32
  last3: u32
  last4: u32
  last5: u32
  last6: u32
  last7: u32
  lastLost: u32
  // RTT, in ticks
  srtt: u32
  rttvar: u32
  rto: u32
  // fast resend: history of the newest transmission each ACK datagram told of
  ackHistory: usize
  ackHistoryCount: u32
  // congestion window, used if nc is 0
  cwnd: u32
  ssthresh: u32
  incr: u32
  // receive window
  rcvRead: u32
  rcvNxt: u32
  rcvTop: u32
  rcvRing: usize
  rcvMask: u32
  rcvWnd: u32
  rcvEdge: u32
  // ACKs to send
  ackRing: usize
  ackMask: u32
  ackFirst: u32
  ackEnd: u32
  ackDue: u32
  ackLast: u32
  ackAtOnce: u32
  // zero-window probing
  probe: u32
  probeWait: u32
  probeAt: u32
  lastSn: u32
  lastTs: u32
  // counters
  retransmissions: u32
}

export const CONVERSATION_BYTES: u32 = offsetof<Conversation>()

/** Bits of `probe`. */
export const PROBE_ASK: u32 = 1
export const PROBE_TELL: u32 = 2

/** KCP options of the endpoint; new conversations copy the windows. Ticks where a time. */
export let kcpMtu: u32 = 0
export let mss: u32 = 0
export let nodelay: u32 = 1
export let intervalTicks: u32 = 0
export let fastResend: u32 = 2
export let noCongestionWindow: bool = true
export let flushMode: u32 = UNSET
export let minRto: u32 = 0
export let optionSndWnd: u32 = 256
export let optionRcvWnd: u32 = 256

/** Variance floor of the RTO while the user set no interval: covers a peer that delays ACKs by some ms and a busy host. */
const DEFAULT_RTO_VARIANCE_MS: u32 = 40
/** Duplicate-ACK threshold of fast resend while the user set none. */
const DEFAULT_RESEND: u32 = 2

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
  kcpMtu = mtu
  mss = mtu - HEADER_BYTES
  optionSndWnd = sndwnd == UNSET ? DEFAULT_WND : min(sndwnd, MAX_WND)
  optionRcvWnd = rcvwnd == UNSET ? DEFAULT_WND : min(max(rcvwnd, MIN_RCVWND), MAX_WND)
  nodelay = delay == UNSET ? 1 : delay
  intervalTicks = (interval == UNSET ? DEFAULT_RTO_VARIANCE_MS : interval) * TICKS_PER_MS
  fastResend = resend == UNSET ? DEFAULT_RESEND : resend
  noCongestionWindow = nc != 0
  flushMode = flush
  minRto = (nodelay == 0 ? 100 : 30) * TICKS_PER_MS
}

let wireOffset: u32 = 0

/** Sets a random start of the clock that segments carry. */
export function setWireOffset(offset: u32): void {
  wireOffset = offset
}

/**
 * The ts of a segment sent at `now`. Only we read it again, when it is echoed; its random start tells our own datagrams from the peer's, should they come
 * back.
 */
export function wireClock(now: u32): u32 {
  return now + wireOffset
}

/** The time at which a segment with this ts of ours was sent. */
export function fromWireClock(ts: u32): u32 {
  return ts - wireOffset
}

/** Starts a conversation in a zeroed record. */
export function openConversation(c: Conversation, conv: u32): void {
  c.conv = conv
  c.sndWnd = optionSndWnd
  c.rcvWnd = optionRcvWnd
  c.rcvEdge = c.rcvWnd
  c.rmtWnd = INITIAL_RMTWND
  c.rto = 200 * TICKS_PER_MS
  c.ssthresh = 2
}

/** Segments queued or in flight ("waitsnd"). */
export function waitSnd(c: Conversation): u32 {
  return c.sndEnd - c.sndUna
}

/** Free slots of the receive queue, as told to the peer. */
export function freeWnd(c: Conversation): u32 {
  const unread = c.rcvNxt - c.rcvRead
  return unread >= c.rcvWnd ? 0 : min(c.rcvWnd - unread, MAX_WND)
}
