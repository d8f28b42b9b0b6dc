/*
 * Losses by the rate at which the lost segments were sent: above the estimated bandwidth in PROBE_UP, below it in
 * PROBE_DOWN.
 *
 * A queue that is too short to raise the RTT drops what PROBE_UP sends in excess and nothing of what PROBE_DOWN sends;
 * random loss takes the same part of both. Either is known a round trip after it was sent.
 */

import { Ticks } from '../units'
import { BbrModel, filteredRtt, MS, minRttOf, PROBE_DOWN, PROBE_UP } from './bbr_model'
import { Conversation } from './conversation'
import { diff } from './segment'

/** Segments sent in the first part of PROBE_DOWN still meet the queue of PROBE_UP. */
function drainTime(c: Conversation): Ticks {
  return minRttOf(c) / 8 + <Ticks>MS
}

/** To be called when PROBE_UP begins. */
export function onProbeUp(m: BbrModel, now: Ticks): void {
  m.isProbeAwaited = 1
  m.probeUpAt = now
  m.upAcked = m.upLost = m.lowAcked = m.lowLost = m.upMaxRtt = m.hasUpFailed = 0
}

/** Counts segments that were acknowledged or lost, by the state in which they were sent. */
export function countProbe(c: Conversation, m: BbrModel, acked: u32, lost: u32): void {
  const sentAt = c.rackSentAt
  if (!m.isProbeAwaited || diff(sentAt, m.probeUpAt) < 0) return
  if (m.state == PROBE_UP || diff(sentAt, m.probeDownAt + drainTime(c)) < 0) {
    m.upAcked += acked
    m.upLost += lost
    if (acked != 0) m.upMaxRtt = max(m.upMaxRtt, filteredRtt(m))
  } else if (m.state == PROBE_DOWN || diff(sentAt, m.probeEndAt) < 0) {
    m.lowAcked += acked
    m.lowLost += lost
  }
}

/** @returns true once, when everything that was sent in both states is known to have arrived or not */
export function isProbeKnown(c: Conversation, m: BbrModel): bool {
  if (!m.isProbeAwaited || m.state == PROBE_UP || m.state == PROBE_DOWN || diff(c.rackSentAt, m.probeEndAt) < 0)
    return false
  m.isProbeAwaited = 0
  return true
}

/** @returns true if PROBE_UP lost clearly more than PROBE_DOWN */
export function isLostAbove(m: BbrModel): bool {
  return lostMore(m.upAcked, m.upLost, m.lowAcked, m.lowLost) != 0
}

/** @returns by how much a larger part of the first segments was lost, if clearly, in proportion and by chance; else 0 */
export function lostMore(upAcked: u32, upLost: u32, lowAcked: u32, lowLost: u32): f64 {
  const up = <f64>(upAcked + upLost)
  const low = <f64>(lowAcked + lowLost)
  if (up == 0 || low == 0) return 0
  const more = <f64>upLost / up - <f64>lowLost / low
  const all = (<f64>upLost + <f64>lowLost) / (up + low)
  return more > 0.02 && more * more > 12.25 * all * (1 - all) * (1 / up + 1 / low) ? more : 0
}
