/*
 * The classic congestion window of KCP (protocol.md 5.6, 5.7), used only if `nc` is 0. Without it the window of the user is the only limit.
 */
import { Conversation, fastResend, mss, noCongestionWindow } from './conversation'

const MIN_SSTHRESH: u32 = 2

/** Segments that may be in flight. */
export function sendLimit(c: Conversation): u32 {
  const limit = min(c.sndWnd, c.rmtWnd)
  return noCongestionWindow ? limit : min(limit, max<u32>(c.cwnd, 1))
}

/** A datagram advanced una: slow start, then congestion avoidance. */
export function onUnaAdvanced(c: Conversation): void {
  if (noCongestionWindow || c.cwnd >= c.rmtWnd) return
  if (c.cwnd < c.ssthresh) {
    c.cwnd++
    c.incr += mss
  } else {
    c.incr = max(c.incr, mss)
    c.incr += (mss * mss) / c.incr + mss / 16
    if ((c.cwnd + 1) * mss <= c.incr) c.cwnd = (c.incr + mss - 1) / mss
  }
  if (c.cwnd > c.rmtWnd) {
    c.cwnd = c.rmtWnd
    c.incr = c.rmtWnd * mss
  }
}

/** Fast resend happened. */
export function onFastResend(c: Conversation): void {
  if (noCongestionWindow) return
  c.ssthresh = max((c.sndNxt - c.sndUna) / 2, MIN_SSTHRESH)
  c.cwnd = c.ssthresh + fastResend
  c.incr = c.cwnd * mss
}

/** A retransmission timer expired. */
export function onTimeoutLoss(c: Conversation): void {
  if (noCongestionWindow) return
  c.ssthresh = max(sendLimit(c) / 2, MIN_SSTHRESH)
  c.cwnd = 1
  c.incr = mss
}
