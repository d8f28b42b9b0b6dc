/*
 * Loss detection: which segments in flight are to be sent again (protocol.md 5.6, 5.7), the classic way.
 *
 * Fast resend: a segment is lost once `resend` datagrams with ACKs told of transmissions later than its own. The history keeps, for each such
 * datagram, the newest transmission known by then, so the test looks at one remembered time and at list heads alone. Timeout: every level has one RTO, so
 * the head of its list expires first.
 */
import { TICKS_PER_MS } from '../abi'
import { NEVER, remaining } from '../clock'
import { alloc, free } from '../memory/slab'
import { count, FAST_RETRANSMITS, RTOS } from '../stats'
import { onFastResend, onTimeoutLoss } from './congestion'
import { Conversation, fastResend, LEVEL_LOST, LEVELS, nodelay } from './conversation'
import { diff } from './segment'
import { entryOf, firstOf, markLost, TS } from './send_window'

/** A segment sent oftener than this waits for its timer (protocol.md 5.2). */
const FAST_RESEND_LIMIT: u32 = 5
/** The longest pause between two transmissions of a segment. */
const MAX_BACKOFF_TICKS: u32 = 10000 * TICKS_PER_MS
/** Remembered ACK datagrams: a power of two above the largest `resend` (100). Entries of 8 bytes: ts, sn. */
const HISTORY: u32 = 128
const HISTORY_CLASS: u32 = 10
/** RTO of the levels in eighths of the base, by `nodelay`: doubling, half as much again, plus one half (protocol.md 5.7 step 5). */
const BACKOFF: usize = memory.data<u32>([
  9, 18, 36, 72, 144, 288, 576, 1152, 8, 12, 18, 27, 40, 61, 91, 137, 8, 12, 16, 20, 24, 28, 32, 36,
])

/** Time after which a segment of a level counts as lost. */
export function levelRto(c: Conversation, level: u32): u32 {
  const eighths = load<u32>(BACKOFF + ((<usize>(nodelay * LEVELS + level)) << 2))
  return max(min((c.rto * eighths) >> 3, MAX_BACKOFF_TICKS), c.rto)
}

/** Notes that a datagram acknowledged transmission (ts, sn), the newest of its ACKs. */
export function noteAckDatagram(c: Conversation, ts: u32, sn: u32): void {
  if (fastResend == 0) return
  if (!c.ackHistory) {
    c.ackHistory = alloc(HISTORY_CLASS)
    if (!c.ackHistory) return
    c.ackHistoryCount = 0
  }
  const n = c.ackHistoryCount
  if (n != 0) {
    const before = historyAt(c, n - 1)
    const newer = diff(ts, load<u32>(before))
    if (newer < 0 || (newer == 0 && diff(sn, load<u32>(before, 4)) < 0)) {
      ts = load<u32>(before)
      sn = load<u32>(before, 4)
    }
  }
  const at = historyAt(c, n)
  store<u32>(at, ts)
  store<u32>(at, sn, 4)
  c.ackHistoryCount = n + 1
}

function historyAt(c: Conversation, n: u32): usize {
  return c.ackHistory + ((<usize>(n & (HISTORY - 1))) << 3)
}

/** Moves what is lost at `now` to the list of lost segments. */
export function detectLoss(c: Conversation, now: u32): void {
  if (fastResend != 0 && c.ackHistoryCount >= fastResend) detectByAcks(c)
  let expired = false
  for (let level: u32 = 0; level < LEVELS; level++) {
    while (c.levels & (1 << level)) {
      const sn = firstOf(c, level)
      const entry = entryOf(c, sn)
      if (now - load<u32>(entry, TS) < levelRto(c, level)) break
      markLost(c, sn, entry)
      count(RTOS)
      expired = true
    }
  }
  if (expired) onTimeoutLoss(c)
}

function detectByAcks(c: Conversation): void {
  const told = historyAt(c, c.ackHistoryCount - fastResend)
  const ts = load<u32>(told)
  const newest = load<u32>(told, 4)
  let found = false
  for (let level: u32 = 0; level < FAST_RESEND_LIMIT; level++) {
    while (c.levels & (1 << level)) {
      const sn = firstOf(c, level)
      const entry = entryOf(c, sn)
      const older = diff(load<u32>(entry, TS), ts)
      if (older > 0 || (older == 0 && diff(sn, newest) >= 0)) break
      markLost(c, sn, entry)
      count(FAST_RETRANSMITS)
      found = true
    }
  }
  if (found) onFastResend(c)
}

/** Ticks from `now` until the earliest retransmission timer; NEVER if nothing is in flight. */
export function untilRto(c: Conversation, now: u32): u32 {
  let soonest = NEVER
  const inFlight = c.levels & ~(1 << LEVEL_LOST)
  if (inFlight == 0) return soonest
  for (let level: u32 = 0; level < LEVELS; level++) {
    if (!(inFlight & (1 << level))) continue
    const sentAt = load<u32>(entryOf(c, firstOf(c, level)), TS)
    soonest = min(soonest, remaining(sentAt, levelRto(c, level), now))
  }
  return soonest
}

export function closeRecovery(c: Conversation): void {
  if (c.ackHistory) free(c.ackHistory, HISTORY_CLASS)
  c.ackHistory = 0
}
