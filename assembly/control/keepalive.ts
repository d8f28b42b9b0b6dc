/*
 * The client's keepalive (protocol.md 7.3), and whether the peer is silent. A rendezvous endpoint without a peer pings
 * its rendezvous server: it announces itself there, and nothing else shows that no answer can arrive.
 *
 * Unlike kcptun-libev, a peer that does not answer a datagram is pinged within seconds, and again with increasing
 * intervals, so that silence is detected before the next regular ping.
 */

import { TICKS_PER_SECOND } from '../abi'
import { NEVER, ticksUntil } from '../clock'
import { PEER_SILENT_PINGS, set } from '../stats'
import { Seconds, Ticks } from '../units'
import { PEER_PING, sendPing } from './pings'

/** A ping without PONG is lost after this time. */
const PING_TIMEOUT_TICKS: Ticks = 4 * TICKS_PER_SECOND
/** The interval after lost pings doubles up to this. */
const MAX_PAUSE_TICKS: Ticks = 32 * TICKS_PER_SECOND
/** A ping is sent when a datagram was not answered for this long. */
export const UNANSWERED_TICKS: Ticks = 4 * TICKS_PER_SECOND

let keepaliveTicks: Ticks = 0
let pingAt: Ticks = 0
let outstanding: bool = false
let everPinged: bool = false
/** The last ping, or the time when one was not necessary. */
let turnAt: Ticks = 0
let lost: u32 = 0
let random: u32 = 1
/** A datagram was sent since the last one was received. */
let unanswered: bool = false
let unansweredAt: Ticks = 0
let lastSentAt: Ticks = 0
/** Only PINGs count as sent, because other datagrams go elsewhere or have no answer. */
let isAlone: bool = false

/**
 * Starts the keepalive; the first ping is due at once.
 * @param seed any random number
 */
export function startKeepalive(seconds: Seconds, seed: u32, now: Ticks): void {
  keepaliveTicks = seconds * TICKS_PER_SECOND
  random = seed | 1
  pingAt = turnAt = now
}

/** Sets the keepalive interval; 0 turns it off. */
export function setKeepalive(seconds: Seconds): void {
  keepaliveTicks = seconds * TICKS_PER_SECOND
}

/** @param alone whether the pinged address is sent nothing that is answered, except PINGs */
export function setAlone(alone: bool): void {
  isAlone = alone
  if (alone) unanswered = false
}

/** A datagram was sent to any address. */
export function onDatagramSent(now: Ticks): void {
  if (isAlone) return
  lastSentAt = now
  if (unanswered) return
  unanswered = true
  unansweredAt = now
}

/** A datagram of the peer arrived. */
export function onPeerDatagram(): void {
  unanswered = false
  if (lost) setLost(0)
}

/**
 * Nothing was received for long. Without a keepalive this shows a silent peer if data waits for its answer.
 * @param waiting something sent is not acknowledged
 */
export function onSilence(waiting: bool, now: Ticks): void {
  if (keepaliveTicks == 0 && lost == 0 && waiting && unanswered && now - unansweredAt >= UNANSWERED_TICKS) setLost(1)
}

/** A PONG arrived. */
export function onPong(): void {
  outstanding = false
  setLost(0)
}

function setLost(n: u32): void {
  lost = n
  set(PEER_SILENT_PINGS, n)
}

/** @returns true when the last ping and everything since is unanswered */
export function isSilent(): bool {
  return lost != 0
}

/** Makes a ping due now, whatever was sent just before: the peer or the path to it changed. */
export function schedulePing(now: Ticks): void {
  everPinged = outstanding = false
  setLost(0)
  pingAt = now
}

/** @returns keepalive interval with jitter: keepalive / (1 - 0.2 r), r uniform in [0, 1) */
function interval(): Ticks {
  random = random * 1664525 + 1013904223
  const r = <u64>(random >> 16)
  return <u32>((<u64>keepaliveTicks * 65536 * 5) / (65536 * 5 - r))
}

/** @returns ticks until `checkPing` has something to do; NEVER when off */
export function pingDeadline(now: Ticks): Ticks {
  if (keepaliveTicks == 0) return NEVER
  const wanted = ticksUntil(pingAt, now)
  if (outstanding || lost || !unanswered) return wanted
  return min(wanted, ticksUntil(unansweredAt + UNANSWERED_TICKS, now))
}

/**
 * Pings the peer if a ping is due.
 * @returns true once in every interval, whether or not other datagrams make the ping unnecessary, and at every ping
 */
export function checkPing(peer: usize, now: Ticks): bool {
  if (pingDeadline(now) != 0) return false
  if (ticksUntil(pingAt, now) == 0) {
    if (outstanding) {
      outstanding = false
      setLost(lost + 1)
    }
    const due = everPinged && lost == 0 ? lastSentAt + interval() : now
    if (ticksUntil(due, now) != 0) {
      pingAt = due
      // not without traffic since the last turn: then the ping comes soon
      if (now - turnAt < keepaliveTicks || lastSentAt - turnAt < UNANSWERED_TICKS) return false
      turnAt = now
      return true
    }
  }
  sendPing(PEER_PING, 0, peer, now)
  turnAt = now
  outstanding = everPinged = true
  if (isAlone) lastSentAt = now
  pingAt = now + min(PING_TIMEOUT_TICKS << min(lost, 8), MAX_PAUSE_TICKS)
  return true
}
