/*
 * The endpoint: configuration and timers.
 */

import { E_CONFIG, E_ENTROPY, E_MEMORY, MAX_SLEEP_TICKS, MODE_CLIENT, OK } from '../abi'
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
import { setMaxSessions } from '../session/table'
import { setTimeouts } from '../session/timeouts'
import { checkTombstones, setTimeWait, tombstonesDeadline } from '../session/tombstones'
import { MEMORY_USED, set } from '../stats'
import { Ticks } from '../units'
import {
  badField,
  FLUSH,
  field,
  INTERVAL,
  KCP_MTU,
  KEEPALIVE,
  LINGER,
  MAX_SESSIONS,
  MEMORY,
  MODE,
  NC,
  NODELAY,
  NONCE_BYTES,
  NONCE_STRATEGY,
  RCVWND,
  REPLAY,
  RESEND,
  SNDWND,
  TAG_BYTES,
  TIME_WAIT,
  TIMEOUT,
} from './config'
import { checkMoves, movesDeadline } from './migration'
import { checkContexts, contextsDeadline } from './obfs'
import { configureOpening } from './open'
import { checkPeerTimers, configurePeer, peerDeadline, wakePeer } from './peer'
import { checkSessions, sessionsDeadline, wakeSessions } from './schedule'

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
    field(KCP_MTU),
    field(SNDWND),
    field(RCVWND),
    field(NODELAY),
    field(INTERVAL),
    field(RESEND),
    field(NC),
    field(FLUSH),
  )
  setTimeouts(field(TIMEOUT), field(LINGER))
  setTimeWait(field(TIME_WAIT))
  setMaxSessions(field(MAX_SESSIONS))
  setServiceExpiry(field(TIMEOUT))
  // reduced timeouts apply to existing sessions, too
  wakeSessions(now)
  setBudget(field(MEMORY))
  if (isMode(MODE_CLIENT)) setKeepalive(field(KEEPALIVE))
  configurePeer(mode, min(max(3 * field(KEEPALIVE) + 4, 10), 1800))
  return OK
}

function start(now: Ticks): i32 {
  if (!hasEntropy(START_ENTROPY_BYTES)) return E_ENTROPY
  startClock(now)
  // the ceiling is for sessions; descriptors and replay filter are added to it
  openBudget()
  if (!openReplay(datagramFilter(), field(REPLAY)) || !openDatagrams(field(TAG_BYTES))) return E_MEMORY
  mode = field(MODE)
  configureOpening(mode, load<u32>(takeEntropy(4)))
  setWireOffset(load<u32>(takeEntropy(4)))
  startKeepalive(isMode(MODE_CLIENT) ? field(KEEPALIVE) : 0, load<u32>(takeEntropy(4)), now)
  startPings(load<u64>(takeEntropy(8)))
  openNonces(field(NONCE_BYTES), field(NONCE_STRATEGY))
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
  checkSessions(now)
  checkPeerTimers(now)
  checkContexts(now)
  checkMoves(now)
  checkTombstones()
}

/** @returns ticks until `checkTimers` has something to do */
export function timersDeadline(now: Ticks): Ticks {
  set(MEMORY_USED, usedBytes())
  const wanted = min(
    min(peerDeadline(now), contextsDeadline()),
    min(min(movesDeadline(now), tombstonesDeadline()), MAX_SLEEP_TICKS),
  )
  return sessionsDeadline(wanted, now)
}
