/*
 * Bulk transfers: how long the host may leave datagrams in its sockets, so that it handles several per wake-up, and how
 * long a paced segment may wait for the ones after it.
 *
 * A wake-up costs several times what a datagram costs, and each has an ACK and a write to TCP of its own. While bulk
 * data, or the ACKs of bulk data, arrive back to back, the host therefore looks after its sockets every few
 * milliseconds. Not in the first flights, hardly while a gap is open, and not while anything interactive is on its way
 * in either direction.
 *
 * Arrivals are those of the endpoint, not of a conversation: a delay of the sockets delays all of them.
 */

import { TICKS_PER_MS, TICKS_PER_SECOND } from '../abi'
import { Ticks } from '../units'
import { bandwidthOf, minRttOf, modelOf, STARTUP } from './bbr_model'
import { Conversation } from './conversation'
import { PeerPath, UNKNOWN } from './peer_path'

/** A datagram of at least this many bytes of plaintext belongs to a bulk transfer. */
const BULK_BYTES: u32 = 500
/** Segments in order, received or acknowledged, before the first delay: several initial windows. */
const MIN_RUN: u32 = 128
/** After a small datagram of the transfer itself, which is handled at once, fewer are enough. */
const RESUMED_RUN: u32 = 16
/** Segments over which their rate is measured. */
const MEASURED: u32 = 64
/** Segments that the host should find per wake-up. Fewer than two are not worth a delay. */
const BATCH: u32 = 8
const MIN_BATCH: u32 = 2
/**
 * A delay that would gather more keeps a fast sender waiting, and a busy host finds several anyway; while a gap is open,
 * fewer.
 */
const MAX_BATCH: u32 = 64
const MAX_GAP_BATCH: u32 = 12
/** Bounds of a delay: timers of hosts count milliseconds; shares of the RTT, usually and while a gap is open. */
const MIN_DELAY_TICKS: Ticks = 1 * TICKS_PER_MS
const MAX_DELAY_TICKS: Ticks = 5 * TICKS_PER_MS
const RTT_SHARE: u32 = 8
const GAP_RTT_SHARE: u32 = 32
/** The run ends when nothing of it arrives for this long. */
const PAUSE_TICKS: Ticks = 20 * TICKS_PER_MS
/** Nothing is delayed for this long after something interactive. */
const INTERACTIVE_TICKS: Ticks = 1 * TICKS_PER_SECOND
/** After a small write an application waits for an answer, if at most this many segments are in flight. */
const MAX_INTERACTIVE_FLIGHT: u32 = 16
/** Payload of a message without data: KEEPALIVE, EOF. */
const BARE_BYTES: u32 = 4
/** Bounds of the bursts that pacing makes of a bulk transfer, in time and segments. */
const MAX_BURST_TICKS: Ticks = 2 * TICKS_PER_MS
const MIN_BURST: f64 = 2
const BURST: f64 = 4

/** Segments of the run; the last one, and the conversation that it belonged to; when a gap was open last. */
let run: u32 = 0
let runAt: Ticks = 0
let runOwner: usize = 0
let hasGap: bool = false
/** Segments since `measuredAt`, and the ticks that MEASURED of them took; 0 = not measured. */
let counted: u32 = 0
let measuredAt: Ticks = 0
let span: Ticks = 0
/** Smallest RTT of the conversations of the run, UNKNOWN if the one of the last is not known. */
let runRtt: Ticks = UNKNOWN

let hadInteractive: bool = false
let interactiveAt: Ticks = 0

function onInteractive(now: Ticks): void {
  run = 0
  hadInteractive = true
  interactiveAt = now
}

/** @returns true if something interactive was sent or received recently */
function isInteractive(now: Ticks): bool {
  if (hadInteractive && now - interactiveAt >= INTERACTIVE_TICKS) hadInteractive = false
  return hadInteractive
}

/**
 * A datagram of a conversation was handled.
 * @param bytes length of its plaintext
 * @param hasStream it brought new data
 * @param acked segments that una advanced by
 */
export function onArrival(c: Conversation, bytes: u32, hasStream: bool, acked: u32, now: Ticks): void {
  const owner = changetype<usize>(c)
  if (hasStream && bytes < BULK_BYTES) {
    if (owner != runOwner || run == 0) onInteractive(now)
    // the tail of a bulk transfer
    else run = run < MIN_RUN ? 0 : MIN_RUN - RESUMED_RUN
    return
  }
  const segments = acked + (hasStream ? 1 : 0)
  if (segments == 0) return
  if (run == 0 || now - runAt > PAUSE_TICKS) {
    run = counted = span = 0
    measuredAt = now
    runRtt = UNKNOWN
  }
  run += segments
  counted += segments
  runAt = now
  runOwner = owner
  hasGap = c.rcvTop != c.rcvNxt || c.lost != 0
  runRtt = min(runRtt, rttOf(c))
  if (counted < MEASURED) return
  span = max<u32>(1, ((now - measuredAt) * MEASURED) / counted)
  measuredAt = now
  counted = 0
}

/** @returns the smallest RTT that is known of the path of a conversation; UNKNOWN if none is */
function rttOf(c: Conversation): Ticks {
  const rtt = c.srtt ? c.srtt : UNKNOWN
  return c.peerPath ? min(rtt, changetype<PeerPath>(c.peerPath).minRtt) : rtt
}

/** A new segment with `payload` bytes was sent, after which nothing is queued. */
export function onLastSent(c: Conversation, payload: u32, now: Ticks): void {
  if (payload > BARE_BYTES && payload < BULK_BYTES && c.flight <= MAX_INTERACTIVE_FLIGHT) onInteractive(now)
}

/** @returns ticks for which the host may leave datagrams in its sockets; 0 = not at all */
export function receiveDelay(now: Ticks): Ticks {
  if (isInteractive(now)) return 0
  if (run < MIN_RUN || span == 0 || runRtt == UNKNOWN || now - runAt > PAUSE_TICKS) return 0
  const most = min(MAX_DELAY_TICKS, runRtt / (hasGap ? GAP_RTT_SHARE : RTT_SHARE))
  const wanted = max(MIN_DELAY_TICKS, (BATCH * span) / MEASURED)
  const delay = min(wanted, most)
  const gathered = delay * MEASURED
  const limit = hasGap ? MAX_GAP_BATCH : MAX_BATCH
  return delay < MIN_DELAY_TICKS || gathered < MIN_BATCH * span || gathered > limit * span ? 0 : delay
}

/**
 * @returns ticks by which a segment that pacing allows may be late, so that several leave at once; pacing catches up
 */
export function burstDelay(c: Conversation, now: Ticks): Ticks {
  if (!c.model || c.lost != 0 || c.copies != 0 || isInteractive(now)) return 0
  const m = modelOf(c)
  if (m.state == STARTUP) return 0
  const rate = bandwidthOf(m)
  const most = min(MAX_BURST_TICKS, minRttOf(c) / RTT_SHARE)
  if (rate * <f64>most < MIN_BURST) return 0
  return min(most, <u32>((BURST - 1) / rate))
}
