/*
 * Rate limits: how much payload passes between TCP and the streams (docs/architecture.md). One for all streams and one
 * for each, in each direction.
 *
 * They hold where bytes come from TCP (`reserve`) and go to TCP (`peek`). So nothing that was sent waits, a
 * retransmission costs nothing, a congestion controller sees an application that has no more to send, and a peer sees a
 * reader that is slow. What is not read from TCP is the back-pressure on the application.
 *
 * A stream asks for a quantum at a time. Those for which the bucket has none wait in a queue, and are served in turn: that
 * gives equal shares (deficit round robin, Shreedhar and Varghese 1995), however much each asks for, because what it does
 * not use of a quantum is kept. A stream that has not asked for a whole round uses less than its share: it does not wait
 * behind the others, who repay what it takes (cf. the new queues of RFC 8290).
 */

import { EVENT_READABLE, TICKS_PER_MS } from '../abi'
import { latestTime, NEVER } from '../clock'
import { segmentLimit } from '../kcp/options'
import { setWindowLimit } from '../kcp/receive_window'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { alloc, allocUrgent, free } from '../memory/slab'
import { add, RATE_DOWN_HELD_MS, RATE_DOWN_STREAMS, RATE_UP_HELD_MS, RATE_UP_STREAMS, set } from '../stats'
import { Ticks } from '../units'
import { Bucket, bucketDeadline, bytesIn, fillBucket, holds, refill, take } from './bucket'
import { queueEvent } from './events'
import { BARE_BYTES, hasPayload } from './message'
import { Session, TCP_OPEN } from './session'
import { wake } from './timer'

/** Bits per second in the unit of the config block. */
const UNIT: u64 = 1000
/** Parts of a rate (`share_rate`). */
export const ALL_PARTS: u32 = 65536
const PART_SHIFT: u64 = 16
/**
 * A quantum is what the rate gives in 1 ms, at least a segment and at most what a host moves at once; at low rates what it
 * gives in 50 ms, lest everybody waits for a segment of one.
 */
const QUANTUM_DIVISOR: u64 = 8 * 1000
const MAX_QUANTUM: u64 = 1 << 18
const SEGMENT_QUANTUM: u64 = 1500
const LOW_QUANTUM: u64 = 500
const LOW_RATE_FACTOR: u64 = 50
/** Quanta that streams which do not wait may take in advance. */
const MAX_ADVANCE: u32 = 8
/**
 * Unread segments of a stream: about a second of its rate, so that a sender that sends in intervals and over a long path
 * always finds the window open. More would be a queue.
 */
const WINDOW_DIVISOR: u64 = 8 * 1400
const MIN_WINDOW: u64 = 16
const NO_WINDOW_LIMIT: u32 = u32.MAX_VALUE

/** States of a lane: has no wish; waits for its own bucket; waits in the queue of its direction. */
const IDLE: u32 = 0
const OWN: u32 = 1
const QUEUED: u32 = 2

/** One direction of one stream, with its bucket. */
@unmanaged
class Lane extends Bucket {
  session: usize
  state: u32
  // bytes it may pass on; the round in which it got the last quantum
  credit: i32
  round: u32
  // links of the queue
  older: usize
  younger: usize
}

/** One direction of the endpoint, with its bucket. */
@unmanaged
class Direction extends Bucket {
  // bits per second of all streams, and of each; 0 = unlimited
  rate: u64
  sessionRate: u64
  // `rate` of the config block, and the parts of it that this engine has
  configured: u32
  parts: u32
  isDown: u32
  // lanes that wait for tokens, and their number
  oldest: usize
  youngest: usize
  queued: u32
  quantum: u32
  // the round, the lanes that got a quantum in it, and in the one before
  round: u32
  served: u32
  active: u32
  // lanes that wait for any bucket, and since when there are some
  waiting: u32
  heldSince: Ticks
  // ticks of that which are not counted yet: less than 1 ms
  heldTicks: Ticks
}

const LANES_CLASS: u32 = 7
const LINKS: usize = offsetof<Lane>('older')

const up: Direction = changetype<Direction>(memory.data(offsetof<Direction>(), 8))
const down: Direction = changetype<Direction>(memory.data(offsetof<Direction>(), 8))
let isUpLimited: bool = false
let isDownLimited: bool = false

// ---- configuration

/** Sets the limits, in kbit/s; 0 = none. To be called before all sessions are woken. */
export function setRates(all: u32, allDown: u32, each: u32, eachDown: u32, now: Ticks): void {
  down.isDown = 1
  setDirection(up, all, each, now)
  setDirection(down, allDown, eachDown, now)
  isUpLimited = all != 0 || each != 0
  isDownLimited = allDown != 0 || eachDown != 0
}

function setDirection(d: Direction, all: u32, each: u32, now: Ticks): void {
  if (d.parts == 0) d.parts = ALL_PARTS
  if (all != 0 && d.configured == 0) fillBucket(d, now)
  else if (d.rate != 0) refill(d, d.rate, now)
  d.configured = all
  d.sessionRate = <u64>each * UNIT
  applyParts(d)
}

/** Sets the parts of the limits of all streams that this engine has. */
export function shareRates(upParts: u32, downParts: u32, now: Ticks): void {
  shareRate(up, upParts, now)
  shareRate(down, downParts, now)
}

function shareRate(d: Direction, parts: u32, now: Ticks): void {
  if (d.rate != 0) refill(d, d.rate, now)
  d.parts = parts
  applyParts(d)
}

function applyParts(d: Direction): void {
  d.rate = d.configured == 0 ? 0 : max<u64>(1, (<u64>d.configured * UNIT * d.parts) >> PART_SHIFT)
  const slowest = d.rate != 0 && d.sessionRate != 0 ? min(d.rate, d.sessionRate) : d.rate | d.sessionRate
  const earned = slowest / QUANTUM_DIVISOR
  const least = max(LOW_QUANTUM, min(SEGMENT_QUANTUM, earned * LOW_RATE_FACTOR))
  d.quantum = <u32>max(least, min(earned, MAX_QUANTUM))
  limitWindow(d)
}

/** Limits the receive windows to what streams can pass on in about a second. */
function limitWindow(d: Direction): void {
  if (!d.isDown) return
  const shared = d.rate / max<u32>(1, max(d.active, d.served))
  const rate = shared != 0 && d.sessionRate != 0 ? min(shared, d.sessionRate) : shared | d.sessionRate
  setWindowLimit(rate == 0 && d.rate == 0 ? NO_WINDOW_LIMIT : <u32>max<u64>(MIN_WINDOW, rate / WINDOW_DIVISOR))
}

// ---- what a stream may pass on

export function isUploadLimited(): bool {
  return isUpLimited
}

export function isDownloadLimited(): bool {
  return isDownLimited
}

/**
 * @returns bytes of `want` that may come from TCP now; if less than wanted, WRITABLE follows
 */
export function mayCommit(s: Session, want: u32): u32 {
  const allowed = allowance(s, up, want)
  if (allowed >= want) return want
  // as many segments as that fills, because what is committed is sent at once
  const size = segmentLimit(s)
  const segments = (allowed + BARE_BYTES) / size
  if (segments != 0) return segments * size - BARE_BYTES
  return isCommitHeld(s) ? 0 : allowed
}

/** @returns bytes of `want` that may go to TCP now; if less than wanted and all are used, READABLE follows */
export function mayConsume(s: Session, want: u32): u32 {
  return allowance(s, down, want)
}

export function onCommitted(s: Session, bytes: u32): void {
  if (s.rate) laneOf(s, up).credit -= <i32>bytes
}

export function onConsumed(s: Session, bytes: u32): void {
  if (s.rate) laneOf(s, down).credit -= <i32>bytes
}

/** @returns true while a stream waits until it may commit more */
export function isCommitHeld(s: Session): bool {
  return s.rate != 0 && laneOf(s, up).state != IDLE
}

function allowance(s: Session, d: Direction, want: u32): u32 {
  // without memory for a record it is not limited: what it passes on frees memory
  if (!s.rate && !openLanes(s)) return want
  const lane = laneOf(s, d)
  const enough = <i32>min(want, d.quantum)
  while (lane.credit < enough && lane.state == IDLE) request(lane, d, latestTime())
  return lane.credit > 0 ? min(want, <u32>lane.credit) : 0
}

function laneOf(s: Session, d: Direction): Lane {
  return changetype<Lane>(s.rate + (d.isDown ? offsetof<Lane>() : 0))
}

/** Allocates the lanes of a stream. */
function openLanes(s: Session): bool {
  let at = alloc(LANES_CLASS)
  if (!at) at = allocUrgent(LANES_CLASS)
  if (!at) return false
  memory.fill(at, 0, 1 << LANES_CLASS)
  s.rate = at
  openLane(laneOf(s, up), up, s)
  openLane(laneOf(s, down), down, s)
  return true
}

function openLane(lane: Lane, d: Direction, s: Session): void {
  fillBucket(lane, latestTime())
  lane.session = changetype<usize>(s)
  // it had nothing for more than a round
  lane.round = d.round - 2
}

/** A stream that ends waits for nothing. */
export function closeRate(s: Session): void {
  if (!s.rate) return
  leave(laneOf(s, up), up, latestTime())
  leave(laneOf(s, down), down, latestTime())
  free(s.rate, LANES_CLASS)
  s.rate = 0
}

// ---- buckets and queue

/** A lane needs a quantum. */
function request(lane: Lane, d: Direction, now: Ticks): void {
  if (d.sessionRate != 0) {
    refill(lane, d.sessionRate, now)
    if (!holds(lane, d.quantum)) {
      wait(lane, d, OWN, now)
      return
    }
  }
  enter(lane, d, now)
}

/** A lane whose own bucket has a quantum takes it from that of the direction, or waits for its turn. */
function enter(lane: Lane, d: Direction, now: Ticks): void {
  if (d.rate == 0) {
    grant(lane, d, d.quantum)
    return
  }
  refill(d, d.rate, now)
  const isSparse = d.round - lane.round >= 2
  if (isSparse ? holds(d, -(<i32>(MAX_ADVANCE * d.quantum))) : d.oldest == 0 && holds(d, d.quantum) && isNext(lane, d))
    grant(lane, d, d.quantum)
  else wait(lane, d, QUEUED, now)
}

/** @returns true if nobody who was served in this or the previous round could have come before `lane` */
function isNext(lane: Lane, d: Direction): bool {
  return lane.round != d.round || max(d.served, d.active) <= 1
}

function grant(lane: Lane, d: Direction, bytes: u32): void {
  lane.credit += <i32>bytes
  if (d.sessionRate != 0) take(lane, bytes)
  if (d.rate == 0) return
  take(d, bytes)
  if (lane.round == d.round) {
    d.round++
    d.active = d.served
    d.served = 0
    set(d.isDown ? RATE_DOWN_STREAMS : RATE_UP_STREAMS, d.active)
    limitWindow(d)
  }
  lane.round = d.round
  d.served++
}

function wait(lane: Lane, d: Direction, state: u32, now: Ticks): void {
  if (d.waiting++ == 0) d.heldSince = now
  lane.state = state
  if (state == OWN) {
    lane.heldAt = now
    wake(changetype<Session>(lane.session), now + laneDeadline(lane, d, now))
    return
  }
  d.heldAt = now
  d.queued++
  appendEntry(queueOf(d), changetype<usize>(lane), LINKS)
}

function leave(lane: Lane, d: Direction, now: Ticks): void {
  if (lane.state == IDLE) return
  if (lane.state == QUEUED) {
    d.queued--
    unlinkEntry(queueOf(d), changetype<usize>(lane), LINKS)
  }
  lane.state = IDLE
  if (--d.waiting == 0) countHeld(d, now)
}

function queueOf(d: Direction): List {
  return changetype<List>(changetype<usize>(d) + offsetof<Direction>('oldest'))
}

function countHeld(d: Direction, now: Ticks): void {
  const passed = <i32>(now - d.heldSince)
  d.heldSince = now
  if (passed <= 0) return
  d.heldTicks += passed
  add(d.isDown ? RATE_DOWN_HELD_MS : RATE_UP_HELD_MS, d.heldTicks / TICKS_PER_MS)
  d.heldTicks %= TICKS_PER_MS
}

/** Counts the time for which streams wait up to now. */
export function refreshHeld(now: Ticks): void {
  if (up.waiting) countHeld(up, now)
  if (down.waiting) countHeld(down, now)
}

// ---- timers

/**
 * Serves the lanes of a stream that wait for its own bucket, or for a limit that is no more. Events are queued; what the
 * host may commit is reported by `unblock`.
 */
export function serveOwn(s: Session, now: Ticks): void {
  serveLane(s, up, now)
  serveLane(s, down, now)
}

function serveLane(s: Session, d: Direction, now: Ticks): void {
  const lane = laneOf(s, d)
  if (lane.state == IDLE || (lane.state == QUEUED && d.rate != 0)) return
  if (lane.state == OWN && d.sessionRate != 0) {
    lane.heldAt = now
    refill(lane, d.sessionRate, now)
    if (!holds(lane, d.quantum)) return
  }
  leave(lane, d, now)
  enter(lane, d, now)
  if (lane.state == IDLE && d.isDown) queueReadable(s)
}

/**
 * Gives the next stream that waits its quantum, if there are tokens.
 * @returns the stream, which is to be rescheduled; null if none can be served
 */
export function serveNext(now: Ticks): Session | null {
  const s = serveQueue(up, now)
  return s ? s : serveQueue(down, now)
}

/** Reports READABLE if there is payload for TCP. */
function queueReadable(s: Session): void {
  if (s.tcp == TCP_OPEN && hasPayload(s)) queueEvent(s, EVENT_READABLE)
}

function serveQueue(d: Direction, now: Ticks): Session | null {
  if (!d.oldest || d.rate == 0) return null
  d.heldAt = now
  refill(d, d.rate, now)
  if (!holds(d, d.quantum)) return null
  const lane = changetype<Lane>(d.oldest)
  const s = changetype<Session>(lane.session)
  const part = bytesIn(d) / d.queued
  leave(lane, d, now)
  // one whose TCP connection ended has no use for it
  if (s.tcp != TCP_OPEN) return s
  // after a late wake-up all that wait get equal parts of what that left
  const most = d.sessionRate == 0 ? part : min(part, bytesIn(lane))
  grant(lane, d, max(d.quantum, most))
  if (d.isDown) queueReadable(s)
  return s
}

/** @returns ticks until `serveNext` has something to do */
export function ratesDeadline(now: Ticks): Ticks {
  return min(queueDeadline(up, now), queueDeadline(down, now))
}

function queueDeadline(d: Direction, now: Ticks): Ticks {
  return d.oldest && d.rate != 0 ? bucketDeadline(d, d.quantum, d.rate, now) : NEVER
}

/** @returns ticks until `serveOwn` has something to do */
export function ownDeadline(s: Session, now: Ticks): Ticks {
  return min(laneDeadline(laneOf(s, up), up, now), laneDeadline(laneOf(s, down), down, now))
}

function laneDeadline(lane: Lane, d: Direction, now: Ticks): Ticks {
  return lane.state == OWN && d.sessionRate != 0 ? bucketDeadline(lane, d.quantum, d.sessionRate, now) : NEVER
}
