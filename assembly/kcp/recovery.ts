/*
 * Loss recovery: which transmissions are lost, and when to ask by a probe (after RACK-TLP, RFC 8985).
 *
 * The ts of an ACK names the transmission it answers. What was sent earlier than one that arrived, by more than the
 * reordering seen so far, is lost; what is not yet that much earlier is lost when its time has come. A retransmission
 * is a transmission like any other, so its loss is found in the same way. When nothing answers, probes resend the first
 * and the last segment. `resend`, if the user set it, adds the classic rule: lost after so many datagrams with later
 * ACKs.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER, remaining } from '../clock'
import { alloc, free } from '../memory/slab'
import { count, FAST_RETRANSMITS, RTOS } from '../stats'
import { Sn, Ticks, Ts } from '../units'
import { onLosses, onSpurious, onTimeout } from './congestion'
import { Conversation, FLIGHT } from './conversation'
import { ackAllowance, minRtt } from './model'
import { diff } from './segment'
import {
  BY_ORDER,
  BY_PROBE,
  COPIES,
  entryOf,
  firstOf,
  isLost,
  markLost,
  TRANSMISSIONS,
  TS,
  wasLostByOrder,
} from './send_window'

/** Least allowance for reordering. */
const MIN_REORDER_TICKS: Ticks = 1 * TICKS_PER_MS
/** The allowance is counted in eighths of the RTT floor. */
const REORDER_STEPS: u32 = 8
const REORDER_DECAY_TICKS: Ticks = 10 * TICKS_PER_SECOND
/** Probe timeout: least, most, and before the first RTT sample; time a peer may take for an ACK. */
const MIN_PTO_TICKS: Ticks = 15 * TICKS_PER_MS
const MAX_PTO_TICKS: Ticks = 4000 * TICKS_PER_MS
/** An outage of some seconds is to be noticed soon after it ends: so many probes leave at least this often. */
const EAGER_PROBES: u32 = 16
const EAGER_PTO_TICKS: Ticks = 1000 * TICKS_PER_MS
const FIRST_PTO_TICKS: Ticks = 200 * TICKS_PER_MS
const ACK_ALLOWANCE_TICKS: Ticks = 5 * TICKS_PER_MS
/** A segment sent oftener than this is not resent by the classic rule (protocol.md 5.2). */
const FAST_RESEND_LIMIT: u32 = 5
/** Remembered ACK datagrams for `resend`: a power of two above its largest value (100). Entries of 8 bytes: ts, sn. */
const HISTORY: u32 = 128
const HISTORY_CLASS: u32 = 10
const HISTORY_SN: usize = 4

// ---- ACKs

/** Takes in that transmission (ts, sn) of `entry` arrived: reordering, and the newest transmission known. */
export function onAckedTransmission(c: Conversation, sn: Sn, entry: usize, ts: Ts, now: Ticks): void {
  // lost, or sent again since: the loss was none
  if (wasLostByOrder(entry) && (isLost(entry) || diff(ts, load<u32>(entry, TS)) < 0)) {
    c.reoWndMult = min(REORDER_STEPS, c.reoWndMult + 1)
    c.reoWndMultAt = now
    onSpurious(c)
  }
  updateRack(c, sn, ts, now)
}

/** Takes in that transmission (ts, sn) arrived; true if it left after all that are known to. */
export function updateRack(c: Conversation, sn: Sn, ts: Ts, now: Ticks): bool {
  if (c.hasRack && !isLater(ts, sn, c.rackTs, c.rackSn)) return false
  c.hasRack = 1
  c.rackTs = ts
  c.rackSn = sn
  c.rackRtt = now - ts
  return true
}

/** True if transmission (ts, sn) left after (ts2, sn2). */
function isLater(ts: Ts, sn: Sn, ts2: Ts, sn2: Sn): bool {
  const d = diff(ts, ts2)
  return d > 0 || (d == 0 && diff(sn, sn2) > 0)
}

/** Notes that something arrived: probing starts anew. */
export function onProgress(c: Conversation, now: Ticks): void {
  c.lastActivityAt = now
  c.ptoCount = 0
  if (c.reoWndMult && now - c.reoWndMultAt >= REORDER_DECAY_TICKS) {
    c.reoWndMult--
    c.reoWndMultAt = now
  }
}

/** Notes a transmission. */
export function onTransmission(c: Conversation, now: Ticks): void {
  c.lastActivityAt = now
}

/** The next look for losses probes the peer. */
export function scheduleProbe(c: Conversation, now: Ticks): void {
  c.ptoCount = 0
  c.lastActivityAt = now - MAX_PTO_TICKS
}

// ---- detection

function reorderWindow(c: Conversation): Ticks {
  return MIN_REORDER_TICKS + (minRtt(c) * c.reoWndMult) / REORDER_STEPS
}

/** Moves what is lost at `now` to the list of lost segments. */
export function detectLoss(c: Conversation, now: Ticks): void {
  let losses: u32 = 0
  if (c.hasRack) {
    const allowance = reorderWindow(c)
    while (c.flight) {
      const sn = firstOf(c, FLIGHT)
      const entry = entryOf(c, sn)
      const ts = load<u32>(entry, TS)
      if (!isLater(c.rackTs, c.rackSn, ts, sn)) break
      if (c.rackTs - ts <= allowance && now - ts < c.rackRtt + allowance) break
      losses += 1 + <u32>load<u8>(entry, COPIES)
      markLost(c, sn, entry, BY_ORDER)
    }
  }
  if (c.fastResend != 0 && c.ackHistoryCount >= c.fastResend) losses += detectByAcks(c)
  if (losses) onLosses(c, losses)
  if (probeDeadline(c, now) == 0) probe(c)
}

/** Ticks until a segment counts as lost if nothing more arrives, or a probe is due. */
export function recoveryDeadline(c: Conversation, now: Ticks): Ticks {
  if (c.flight == 0) return NEVER
  const wanted = probeDeadline(c, now)
  if (!c.hasRack) return wanted
  const sn = firstOf(c, FLIGHT)
  const ts = load<u32>(entryOf(c, sn), TS)
  if (!isLater(c.rackTs, c.rackSn, ts, sn)) return wanted
  return min(wanted, remaining(ts, c.rackRtt + reorderWindow(c), now))
}

// ---- probes

/** Time of silence after which the peer is probed (protocol.md 5.7: backoff by `nodelay`). */
export function probeTimeout(c: Conversation, ackDelay: Ticks): Ticks {
  let timeout: Ticks = FIRST_PTO_TICKS
  if (c.srtt) {
    timeout = c.srtt + max(4 * c.rttvar, <u32>c.intervalTicks) + ACK_ALLOWANCE_TICKS + ackDelay
    timeout = max(timeout, MIN_PTO_TICKS)
  }
  const most: u32 = c.ptoCount < EAGER_PROBES ? max<u32>(2 * timeout, EAGER_PTO_TICKS) : MAX_PTO_TICKS
  for (let i: u32 = 0; i < c.ptoCount && timeout < most; i++) {
    timeout += c.nodelay == 0 ? timeout : timeout / 2
  }
  return min(timeout, most)
}

function probeDeadline(c: Conversation, now: Ticks): Ticks {
  return c.flight == 0 ? NEVER : remaining(c.lastActivityAt, probeTimeout(c, ackAllowance(c)), now)
}

/**
 * Resends the first and the last segment: the one may be all that is missing, the other tells of everything before it.
 */
export function probe(c: Conversation): void {
  const first = isLost(entryOf(c, c.sndUna)) ? firstOf(c, FLIGHT) : c.sndUna
  const last = c.lastFlight
  markLost(c, first, entryOf(c, first), BY_PROBE)
  if (last != first) markLost(c, last, entryOf(c, last), BY_PROBE)
  c.ptoCount++
  count(RTOS)
  onTimeout(c)
}

// ---- the classic rule

/** Notes that a datagram acknowledged transmission (ts, sn), the newest of its ACKs. */
export function onAckForResend(c: Conversation, ts: Ts, sn: Sn): void {
  if (c.fastResend == 0) return
  if (!c.ackHistory) {
    c.ackHistory = alloc(HISTORY_CLASS)
    if (!c.ackHistory) return
    c.ackHistoryCount = 0
  }
  const n = c.ackHistoryCount
  if (n != 0) {
    const before = historyAt(c, n - 1)
    if (!isLater(ts, sn, load<u32>(before), load<u32>(before, HISTORY_SN))) {
      ts = load<u32>(before)
      sn = load<u32>(before, HISTORY_SN)
    }
  }
  const at = historyAt(c, n)
  store<u32>(at, ts)
  store<u32>(at, sn, HISTORY_SN)
  c.ackHistoryCount = n + 1
}

function historyAt(c: Conversation, n: u32): usize {
  return c.ackHistory + ((<usize>(n & (HISTORY - 1))) << 3)
}

/** Segments older than what `resend` datagrams told of; how many were marked. */
function detectByAcks(c: Conversation): u32 {
  const resendAck = historyAt(c, c.ackHistoryCount - c.fastResend)
  const ts = load<u32>(resendAck)
  const newest = load<u32>(resendAck, HISTORY_SN)
  let found: u32 = 0
  while (c.flight) {
    const sn = firstOf(c, FLIGHT)
    const entry = entryOf(c, sn)
    if (!isLater(ts, newest, load<u32>(entry, TS), sn) || load<u8>(entry, TRANSMISSIONS) > FAST_RESEND_LIMIT) break
    markLost(c, sn, entry, BY_ORDER)
    count(FAST_RETRANSMITS)
    found++
  }
  return found
}

export function closeRecovery(c: Conversation): void {
  if (c.ackHistory) free(c.ackHistory, HISTORY_CLASS)
  c.ackHistory = 0
}
