/*
 * Loss detection and probe timeout, after RACK-TLP (RFC 8985).
 *
 * The ts of an ACK names the transmission it acknowledges. A transmission is lost if one sent later was delivered, and
 * the two are further apart than the reordering window; if they are closer, it is lost when that time has passed. A
 * retransmission is handled like any other transmission, so its loss is detected in the same way. When no ACK arrives,
 * probes retransmit the first and the last segment. `resend`, if configured, adds the classic rule: a segment is lost
 * after that many datagrams with later ACKs.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { NEVER, remaining } from '../clock'
import { alloc, free } from '../memory/slab'
import { count, FAST_RETRANSMITS, RTOS } from '../stats'
import { Sn, Ticks } from '../units'
import { ackAllowance, minRttOf } from './bbr_model'
import { onLoss, onLosses, onSpuriousLoss, onTimeout } from './congestion'
import { Conversation, FLIGHT } from './conversation'
import { diff } from './segment'
import {
  BY_ORDER,
  BY_PROBE,
  COPIES,
  entryOf,
  firstOf,
  isLost,
  markLost,
  SENT_AT,
  TRANSMISSIONS,
  wasLostByOrder,
} from './send_buffer'

/** Minimum reordering window. */
const MIN_REORDER_TICKS: Ticks = 1 * TICKS_PER_MS
/** The reordering window is in units of 1/8 of the minimum RTT. */
const REORDER_STEPS: u32 = 8
const REORDER_DECAY_TICKS: Ticks = 10 * TICKS_PER_SECOND
/** Probe timeout: minimum, maximum, and before the first RTT sample; time allowed for an ACK. */
const MIN_PTO_TICKS: Ticks = 15 * TICKS_PER_MS
const MAX_PTO_TICKS: Ticks = 4000 * TICKS_PER_MS
/**
 * The end of an outage of some seconds must be noticed soon: this many probes are sent at no more than EAGER_PTO_TICKS.
 */
const EAGER_PROBES: u32 = 16
const EAGER_PTO_TICKS: Ticks = 1000 * TICKS_PER_MS
const FIRST_PTO_TICKS: Ticks = 200 * TICKS_PER_MS
const ACK_ALLOWANCE_TICKS: Ticks = 5 * TICKS_PER_MS
/** A segment sent more often than this is not retransmitted by the classic rule (protocol.md 5.2). */
const FAST_RESEND_LIMIT: u32 = 5
/** ACK datagrams recorded for `resend`: a power of two above its maximum (100). Entries of 8 bytes: sentAt, sn. */
const HISTORY: u32 = 128
const HISTORY_CLASS: u32 = 10
const HISTORY_SN: usize = 4

// ---- ACKs

/**
 * Transmission (sentAt, sn) of `entry` was delivered: updates the reordering window and the newest delivered
 * transmission.
 */
export function onAckedTransmission(c: Conversation, sn: Sn, entry: usize, sentAt: Ticks, now: Ticks): void {
  // declared lost, or sent again since: the loss was spurious
  if (wasLostByOrder(entry) && (isLost(entry) || diff(sentAt, load<u32>(entry, SENT_AT)) < 0)) {
    c.reoWndMult = min(REORDER_STEPS, c.reoWndMult + 1)
    c.reoWndMultAt = now
    onSpuriousLoss(c)
  }
  updateRack(c, sn, sentAt, now)
}

/**
 * Transmission (sentAt, sn) was delivered.
 * @returns true if it was sent after all transmissions known to be delivered
 */
export function updateRack(c: Conversation, sn: Sn, sentAt: Ticks, now: Ticks): bool {
  if (c.hasRack && !isLater(sentAt, sn, c.rackSentAt, c.rackSn)) return false
  c.hasRack = 1
  c.rackSentAt = sentAt
  c.rackSn = sn
  c.rackRtt = now - sentAt
  return true
}

/** @returns true if transmission (sentAt, sn) was sent after (otherSentAt, otherSn) */
function isLater(sentAt: Ticks, sn: Sn, otherSentAt: Ticks, otherSn: Sn): bool {
  const d = diff(sentAt, otherSentAt)
  return d > 0 || (d == 0 && diff(sn, otherSn) > 0)
}

/** A segment was delivered: restarts the probe timer. */
export function onDeliveryProgress(c: Conversation, now: Ticks): void {
  c.lastActivityAt = now
  c.ptoCount = 0
  if (c.reoWndMult && now - c.reoWndMultAt >= REORDER_DECAY_TICKS) {
    c.reoWndMult--
    c.reoWndMultAt = now
  }
}

/** A segment was sent: restarts the probe timer. */
export function restartProbeTimer(c: Conversation, now: Ticks): void {
  c.lastActivityAt = now
}

/** Makes the next `detectLoss` send a probe. */
export function scheduleProbe(c: Conversation, now: Ticks): void {
  c.ptoCount = 0
  c.lastActivityAt = now - MAX_PTO_TICKS
}

// ---- detection

function reorderWindow(c: Conversation): Ticks {
  return MIN_REORDER_TICKS + (minRttOf(c) * c.reoWndMult) / REORDER_STEPS
}

/** Moves segments that are lost at `now` to the list of lost segments. */
export function detectLoss(c: Conversation, now: Ticks): void {
  let losses: u32 = 0
  if (c.hasRack) {
    const allowance = reorderWindow(c)
    while (c.flight) {
      const sn = firstOf(c, FLIGHT)
      const entry = entryOf(c, sn)
      const sentAt = load<u32>(entry, SENT_AT)
      if (!isLater(c.rackSentAt, c.rackSn, sentAt, sn)) break
      if (c.rackSentAt - sentAt <= allowance && now - sentAt < c.rackRtt + allowance) break
      const n = 1 + <u32>load<u8>(entry, COPIES)
      losses += n
      onLoss(c, sentAt, n)
      markLost(c, sn, entry, BY_ORDER)
    }
  }
  if (c.fastResend != 0 && c.ackHistoryCount >= c.fastResend) losses += detectByAcks(c)
  if (losses) onLosses(c, losses)
  if (probeDeadline(c, now) == 0) probe(c)
}

/** @returns ticks until a segment is lost if no ACK arrives, or a probe is due */
export function recoveryDeadline(c: Conversation, now: Ticks): Ticks {
  if (c.flight == 0) return NEVER
  const wanted = probeDeadline(c, now)
  if (!c.hasRack) return wanted
  const sn = firstOf(c, FLIGHT)
  const sentAt = load<u32>(entryOf(c, sn), SENT_AT)
  if (!isLater(c.rackSentAt, c.rackSn, sentAt, sn)) return wanted
  return min(wanted, remaining(sentAt, c.rackRtt + reorderWindow(c), now))
}

// ---- probes

/** @returns probe timeout in ticks (protocol.md 5.7: backoff by `nodelay`) */
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

/** From this timeout on a probe is one segment: two at once may be merged on arrival, and be lost for that reason. */
const LONE_PROBES_FROM: u32 = 4

/**
 * Retransmits the first and the last segment: the first may be the only one missing, the ACK of the last covers
 * everything before it.
 */
export function probe(c: Conversation): void {
  const first = isLost(entryOf(c, c.sndUna)) ? firstOf(c, FLIGHT) : c.sndUna
  const last = c.lastFlight
  markLost(c, first, entryOf(c, first), BY_PROBE)
  if (last != first && c.ptoCount < LONE_PROBES_FROM) markLost(c, last, entryOf(c, last), BY_PROBE)
  c.ptoCount++
  count(RTOS)
  onTimeout(c)
}

// ---- the classic rule

/** A datagram acknowledged transmission (sentAt, sn), the newest of its ACKs. */
export function onAckForResend(c: Conversation, sentAt: Ticks, sn: Sn): void {
  if (c.fastResend == 0) return
  if (!c.ackHistory) {
    c.ackHistory = alloc(HISTORY_CLASS)
    if (!c.ackHistory) return
    c.ackHistoryCount = 0
  }
  const n = c.ackHistoryCount
  if (n != 0) {
    const before = historyAt(c, n - 1)
    if (!isLater(sentAt, sn, load<u32>(before), load<u32>(before, HISTORY_SN))) {
      sentAt = load<u32>(before)
      sn = load<u32>(before, HISTORY_SN)
    }
  }
  const at = historyAt(c, n)
  store<u32>(at, sentAt)
  store<u32>(at, sn, HISTORY_SN)
  c.ackHistoryCount = n + 1
}

function historyAt(c: Conversation, n: u32): usize {
  return c.ackHistory + ((<usize>(n & (HISTORY - 1))) << 3)
}

/**
 * Marks segments older than the ACKs of `resend` datagrams.
 * @returns how many were marked
 */
function detectByAcks(c: Conversation): u32 {
  const resendAck = historyAt(c, c.ackHistoryCount - c.fastResend)
  const sentAt = load<u32>(resendAck)
  const newest = load<u32>(resendAck, HISTORY_SN)
  let found: u32 = 0
  while (c.flight) {
    const sn = firstOf(c, FLIGHT)
    const entry = entryOf(c, sn)
    if (!isLater(sentAt, newest, load<u32>(entry, SENT_AT), sn) || load<u8>(entry, TRANSMISSIONS) > FAST_RESEND_LIMIT)
      break
    onLoss(c, load<u32>(entry, SENT_AT), 1)
    markLost(c, sn, entry, BY_ORDER)
    count(FAST_RETRANSMITS)
    found++
  }
  return found
}

/** Frees the history of ACK datagrams. */
export function closeRecovery(c: Conversation): void {
  if (c.ackHistory) free(c.ackHistory, HISTORY_CLASS)
  c.ackHistory = 0
}
