/*
 * The clock that segments carry: the engine's, from a random start.
 */
import { Ticks, Ts } from '../units'

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
