/*
 * Sequence numbers of contexts: what packets of the other side say about those we send. Only packets with a right
 * checksum are believed at once; what others say is held until a payload of the context was authentic (`authenticate`).
 */
import { CAPTURED, Context, HELD, is } from './context'

/** How far beyond the kernel's own numbers dpi/tcp-wnd sends: outside the receive window (protocol.md 9.2). */
const OUTSIDE: u32 = 1492

/** dpi/tcp-wnd: the first believed packet of the other side fixes ours for good. */
export function capture(c: Context, seq: u32, ack: u32, flow: u32, intact: bool): void {
  if (is(c, CAPTURED)) return
  take(c, ack + OUTSIDE, seq + 1, flow, intact)
}

/** dpi/tcp: we acknowledge what came last. */
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
