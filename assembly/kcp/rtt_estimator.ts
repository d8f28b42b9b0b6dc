/*
 * RTT estimator and RTO (protocol.md 5.6; RFC 6298 in KCP's integer form), in ticks.
 *
 * The ts of a segment is the time of that transmission and the peer echoes it, so samples are exact even for
 * retransmitted segments: Karn's algorithm is not needed.
 */

import { TICKS_PER_MS } from '../abi'
import { Ticks } from '../units'
import { Conversation } from './conversation'

/** Minimum RTO with and without `nodelay`. */
const MIN_RTO_TICKS: Ticks = 30 * TICKS_PER_MS
const MIN_RTO_DELAYED_TICKS: Ticks = 100 * TICKS_PER_MS
const MAX_RTO_TICKS: Ticks = 4000 * TICKS_PER_MS

/** Starts the estimator with the first sample, or with the RTT known for the path. */
export function startRtt(c: Conversation, rtt: Ticks): void {
  c.srtt = max<u32>(1, rtt)
  c.rttvar = rtt / 2
}

/** Adds an RTT sample and updates the RTO. */
export function updateRtt(c: Conversation, sample: Ticks): void {
  if (c.srtt == 0) {
    startRtt(c, sample)
  } else {
    const error = sample > c.srtt ? sample - c.srtt : c.srtt - sample
    c.rttvar = (3 * c.rttvar + error) / 4
    c.srtt = max<u32>(1, (7 * c.srtt + sample) / 8)
  }
  const least = c.nodelay == 0 ? MIN_RTO_DELAYED_TICKS : MIN_RTO_TICKS
  c.rto = min(max(c.srtt + max(<u32>c.intervalTicks, 4 * c.rttvar), least), MAX_RTO_TICKS)
}
