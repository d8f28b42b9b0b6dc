/*
 * The endpoint: configuration and timers.
 */

import {
  CONFIG_FLUSH,
  CONFIG_INTERVAL,
  CONFIG_KCP_MTU,
  CONFIG_KEEPALIVE,
  CONFIG_LINGER,
  CONFIG_MAX_SESSIONS,
  CONFIG_MEMORY_CEILING,
  CONFIG_MODE,
  CONFIG_NC,
  CONFIG_NODELAY,
  CONFIG_NONCE_BYTES,
  CONFIG_NONCE_STRATEGY,
  CONFIG_RATE_DOWN,
  CONFIG_RATE_UP,
  CONFIG_RCVWND,
  CONFIG_REPLAY_CAPACITY,
  CONFIG_RESEND,
  CONFIG_SEARCH_MTU,
  CONFIG_SEND_ONCE,
  CONFIG_SESSION_RATE_DOWN,
  CONFIG_SESSION_RATE_UP,
  CONFIG_SNDWND,
  CONFIG_TAG_BYTES,
  CONFIG_TIME_WAIT,
  CONFIG_TIMEOUT,
  E_CONFIG,
  E_ENTROPY,
  E_MEMORY,
  MAX_SLEEP_TICKS,
  MODE_CLIENT,
  MODE_RENDEZVOUS,
  OK,
  UNSET,
} from '../abi'
import { advanceClock, startClock } from '../clock'
import { setKeepalive, startKeepalive } from '../control/keepalive'
import { startPings } from '../control/pings'
import { setServiceExpiry } from '../control/services'
import { setOptions } from '../kcp/options'
import { setWireOffset } from '../kcp/wire_clock'

import { fixBudget, openBudget, setBudget } from '../memory/budget'
import { usedBytes } from '../memory/slab'
import { openDatagrams } from '../packet/datagram'
import { hasEntropy, takeEntropy } from '../packet/entropy'
import { openNonces, renewCounter } from '../packet/nonce'
import { datagramFilter, openReplay } from '../packet/replay'
import { ratesDeadline, refreshHeld, setRates } from '../session/rate'
import { setMaxSessions } from '../session/table'
import { setTimeouts } from '../session/timeouts'
import { checkTombstones, setTimeWait, tombstonesDeadline } from '../session/tombstones'
import { MEMORY_USED, set } from '../stats'
import { Ticks } from '../units'
import { badField, field } from './config'
import { checkMoves, movesDeadline } from './migration'
import { checkContexts, contextsDeadline } from './obfs'
import { askSilent, configureOpening } from './open'
import { checkPeerTimers, configurePeer, peerDeadline, refreshReceivedAge, wakePeer } from './peer'
import { checkRates, checkSessions, sessionsDeadline, wakeSessions } from './schedule'

/** Entropy needed by the start: conv, clock, keepalive, pings, secret and base of nonces. */
const START_ENTROPY_BYTES: u32 = 64

let mode: u32 = 0
let configured: bool = false

/**
 * Advances the clock.
 * @returns true once `configure` succeeded
 */
export function isReady(now: Ticks): bool {
  if (!configured) return false
  if (advanceClock(now)) {
    wakeSessions(now)
    wakePeer(now)
  }
  return true
}

/** @returns true if a bit of the mode is set (MODE_*) */
export function isMode(bit: u32): bool {
  return (mode & bit) != 0
}

/**
 * Applies the config block; the first call starts the endpoint.
 * @returns OK, E_CONFIG - index, E_ENTROPY or E_MEMORY
 */
export function configure(now: Ticks): i32 {
  const bad = badField()
  if (bad >= 0) return E_CONFIG - bad
  if (!configured) {
    const result = start(now)
    if (result != OK) return result
  }
  isReady(now)
  setOptions(
    field(CONFIG_KCP_MTU),
    field(CONFIG_SEARCH_MTU),
    field(CONFIG_SNDWND),
    field(CONFIG_RCVWND),
    field(CONFIG_NODELAY),
    field(CONFIG_INTERVAL),
    field(CONFIG_RESEND),
    field(CONFIG_NC),
    field(CONFIG_FLUSH),
    field(CONFIG_SEND_ONCE) != 0,
  )
  setTimeouts(field(CONFIG_TIMEOUT), field(CONFIG_LINGER))
  setTimeWait(field(CONFIG_TIME_WAIT))
  setMaxSessions(field(CONFIG_MAX_SESSIONS))
  setServiceExpiry(field(CONFIG_TIMEOUT))
  setRates(
    rateField(CONFIG_RATE_UP),
    rateField(CONFIG_RATE_DOWN),
    rateField(CONFIG_SESSION_RATE_UP),
    rateField(CONFIG_SESSION_RATE_DOWN),
    now,
  )
  // reduced timeouts apply to existing sessions, too, and who waits for a limit may not have to any more
  wakeSessions(now)
  setBudget(field(CONFIG_MEMORY_CEILING))
  if (isMode(MODE_CLIENT | MODE_RENDEZVOUS)) setKeepalive(field(CONFIG_KEEPALIVE))
  configurePeer(mode, min(max(3 * field(CONFIG_KEEPALIVE) + 4, 10), 1800))
  return OK
}

/** @returns a rate, 0 = unlimited */
function rateField(i: u32): u32 {
  const value = field(i)
  return value == UNSET ? 0 : value
}

function start(now: Ticks): i32 {
  if (!hasEntropy(START_ENTROPY_BYTES)) return E_ENTROPY
  startClock(now)
  // the ceiling is for sessions; descriptors and replay filter are added to it
  openBudget()
  if (!openReplay(datagramFilter(), field(CONFIG_REPLAY_CAPACITY)) || !openDatagrams(field(CONFIG_TAG_BYTES)))
    return E_MEMORY
  mode = field(CONFIG_MODE)
  configureOpening(mode, load<u32>(takeEntropy(4)))
  setWireOffset(load<u32>(takeEntropy(4)))
  startKeepalive(isMode(MODE_CLIENT | MODE_RENDEZVOUS) ? field(CONFIG_KEEPALIVE) : 0, load<u32>(takeEntropy(4)), now)
  startPings(load<u64>(takeEntropy(8)))
  openNonces(field(CONFIG_NONCE_BYTES), field(CONFIG_NONCE_STRATEGY))
  fixBudget()
  configured = true
  return OK
}

/**
 * Draws a new base of the nonce counter.
 * @returns OK or E_ENTROPY
 */
export function renewNonce(): i32 {
  return renewCounter() ? OK : E_ENTROPY
}

/** Performs what is due at `now`. */
export function checkTimers(now: Ticks): void {
  checkRates(now)
  checkSessions(now)
  if (checkPeerTimers(now)) askSilent(now)
  checkContexts(now)
  checkMoves(now)
  checkTombstones()
}

/** Updates the gauges that no event updates. */
export function refreshGauges(now: Ticks): void {
  set(MEMORY_USED, usedBytes())
  refreshReceivedAge()
  refreshHeld(now)
}

/** @returns ticks until `checkTimers` has something to do */
export function timersDeadline(now: Ticks): Ticks {
  const wanted = min(
    min(peerDeadline(now), contextsDeadline()),
    min(min(movesDeadline(now), tombstonesDeadline()), min(ratesDeadline(now), MAX_SLEEP_TICKS)),
  )
  return sessionsDeadline(wanted, now)
}
