/*
 * Tuning of the receive window (protocol.md 5.9 leaves its size open). Fixed if `rcvwnd` is set; otherwise it grows
 * with what the peer sends and the application reads.
 *
 * No RTT estimate is needed: the window doubles when the peer fills a quarter of it within a second. The window is a
 * promise; only holes and slow readers use memory. When memory is short, less is promised: the right edge stays while
 * data arrive, is never moved back (RFC 9293, 3.8.6), and advances as data are read.
 */

import { TICKS_PER_SECOND, UNSET } from '../abi'
import { fairSegments, segmentShare } from '../memory/slab'
import { Ticks } from '../units'
import { AckQueue, INITIAL_RMTWND, MAX_WND, ReceiveBuffer } from './conversation'
import { optionRcvWnd } from './options'
import { diff } from './segment'

const INITIAL_WND: u32 = 1024
const TUNE_TICKS: Ticks = TICKS_PER_SECOND

/** A limit beside the window of each conversation: a rate limit leaves more unread than it can pass on soon. */
let windowLimit: u32 = u32.MAX_VALUE

/** Limits all receive windows to so many segments; all bits set = no limit. */
export function setWindowLimit(segments: u32): void {
  windowLimit = segments
}

/** @returns segments after the first unread one that are promised if there is memory */
export function receiveWindow(c: ReceiveBuffer): u32 {
  return min(c.rcvWnd, windowLimit)
}

/** @returns true while windows are smaller than they would be without a rate limit */
export function isWindowLimited(): bool {
  return windowLimit != u32.MAX_VALUE
}

/** Initializes the receive window of a new conversation. */
export function openReceiveWindow(c: AckQueue, now: Ticks): void {
  const isFixed = optionRcvWnd() != UNSET
  c.rcvWnd = isFixed ? optionRcvWnd() : INITIAL_WND
  c.isRcvWndFixed = isFixed ? 1 : 0
  c.rcvEdge = max(INITIAL_RMTWND, promisedWnd(c))
  c.rcvTuneAt = now
}

/** @returns segments after the first unread one that the peer may send now, by window and memory */
export function promisedWnd(c: ReceiveBuffer): u32 {
  return min(receiveWindow(c), fairSegments(c.rcvHeldBytes, c.rcvRead == c.rcvNxt))
}

/**
 * Moves the right edge to what is promised now.
 * @returns window to advertise
 */
export function advertise(c: ReceiveBuffer): u32 {
  const edge = c.rcvRead + promisedWnd(c)
  if (diff(edge, c.rcvEdge) > 0) c.rcvEdge = edge
  return max(0, diff(c.rcvEdge, c.rcvNxt))
}

/** To be called when rcvNxt advanced or a segment arrived out of order. */
export function growReceiveWindow(c: AckQueue, now: Ticks): void {
  if (c.isRcvWndFixed) return
  const early = c.rcvTop - c.rcvNxt
  const isFull = early > c.rcvWnd / 2
  if (c.rcvNxt - c.rcvTuneNxt < c.rcvWnd / 4 && !isFull) return
  const isFast = now - c.rcvTuneAt <= TUNE_TICKS || isFull
  const keepsUp = c.rcvNxt - c.rcvRead < c.rcvWnd / 4
  if (isFast && keepsUp) c.rcvWnd = max(c.rcvWnd, min(c.rcvWnd * 2, min(MAX_WND, segmentShare())))
  c.rcvTuneNxt = c.rcvNxt
  c.rcvTuneAt = now
}
