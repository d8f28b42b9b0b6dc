/*
 * The classic congestion window of KCP (protocol.md 5.6, 5.7), used if `nc` is 0.
 */
import { Conversation } from './conversation'

/** Unit of `incr`: fractions of a segment. The protocol counts bytes, which is equivalent for segments of one size. */
const UNIT: u32 = 1024
const MIN_SSTHRESH: u32 = 2
/** Added to the halved window by fast resend while `resend` is unset. */
const DEFAULT_RESEND: u32 = 2

/** A datagram advanced una: slow start, then congestion avoidance. */
export function growClassic(c: Conversation): void {
  if (c.cwnd >= c.rmtWnd) return
  if (c.cwnd < c.ssthresh) {
    c.cwnd++
    c.incr += UNIT
  } else {
    c.incr = max(c.incr, UNIT)
    c.incr += (UNIT * UNIT) / c.incr + UNIT / 16
    if ((c.cwnd + 1) * UNIT <= c.incr) c.cwnd = (c.incr + UNIT - 1) / UNIT
  }
  if (c.cwnd > c.rmtWnd) {
    c.cwnd = c.rmtWnd
    c.incr = c.rmtWnd * UNIT
  }
}

/** Loss was detected from later ACKs. */
export function halveClassic(c: Conversation): void {
  c.ssthresh = max((c.sndNxt - c.sndUna) / 2, MIN_SSTHRESH)
  c.cwnd = c.ssthresh + (c.fastResend ? <u32>c.fastResend : DEFAULT_RESEND)
  c.incr = c.cwnd * UNIT
}

/** The probe timeout expired. */
export function restartClassic(c: Conversation): void {
  c.ssthresh = max(min(c.sndWnd, min(c.rmtWnd, c.cwnd)) / 2, MIN_SSTHRESH)
  c.cwnd = 1
  c.incr = UNIT
}
