/*
 * The clock that segments carry: the engine's clock with a random offset.
 */
import { Ticks, Ts } from '../units'

let wireOffset: u32 = 0

/** Sets the random offset. */
export function setWireOffset(offset: u32): void {
  wireOffset = offset
}

/**
 * @returns ts of a segment sent at `now`. Only this endpoint interprets it, when it is echoed; the random offset
 *   distinguishes our datagrams from the peer's if they are reflected.
 */
export function wireClock(now: Ticks): Ts {
  return now + wireOffset
}

/** @returns the time at which a segment with this ts was sent by this endpoint */
export function fromWireClock(ts: Ts): Ticks {
  return ts - wireOffset
}
