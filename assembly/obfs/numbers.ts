/*
 * Sequence numbers of contexts: what packets of the peer determine for ours. Only packets with a correct checksum take
 * effect at once; the numbers of others are held until a payload of the context was authentic (`authenticate`).
 */
import { CAPTURED, Context, HELD, is } from './context'

/** Distance of dpi/tcp-wnd's numbers from those of the kernel: outside the receive window (protocol.md 9.2). */
const OUTSIDE: u32 = 1492

/** dpi/tcp-wnd: the first accepted packet of the peer determines ours permanently. */
export function capture(c: Context, seq: u32, ack: u32, flow: u32, intact: bool): void {
  if (is(c, CAPTURED)) return
  take(c, ack + OUTSIDE, seq + 1, flow, intact)
}

/** dpi/tcp: acknowledges what arrived last. */
export function follow(c: Context, ack: u32, flow: u32, intact: bool): void {
  take(c, c.seq, ack, flow, intact)
}

function take(c: Context, seq: u32, ack: u32, flow: u32, intact: bool): void {
  if (intact) {
    c.seq = seq
    c.ack = ack
    c.flow = flow
    c.flags = (c.flags & ~HELD) | CAPTURED
    return
  }
  c.heldSeq = seq
  c.heldAck = ack
  c.heldFlow = flow
  c.flags |= HELD
}
