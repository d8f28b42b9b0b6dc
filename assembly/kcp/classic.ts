/*
 * The classic congestion window of KCP (protocol.md 5.6, 5.7), used if `nc` is 0.
 */
import { Conversation, fastResend, mss } from './conversation'

const MIN_SSTHRESH: u32 = 2
/** What fast resend adds to the halved window while `resend` is unset. */
const DEFAULT_RESEND: u32 = 2

/** A datagram advanced una: slow start, then congestion avoidance. */
export function growClassic(c: Conversation): void {
  if (c.cwnd >= c.rmtWnd) return
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

/** Loss was found by later ACKs. */
export function halveClassic(c: Conversation): void {
  c.ssthresh = max((c.sndNxt - c.sndUna) / 2, MIN_SSTHRESH)
  c.cwnd = c.ssthresh + (fastResend ? fastResend : DEFAULT_RESEND)
  c.incr = c.cwnd * mss
}

/** A timer expired. */
export function restartClassic(c: Conversation): void {
  c.ssthresh = max(min(c.sndWnd, min(c.rmtWnd, c.cwnd)) / 2, MIN_SSTHRESH)
  c.cwnd = 1
  c.incr = mss
}
