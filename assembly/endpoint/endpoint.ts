/*
 * The endpoint as a whole: its start, and its time.
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
  CONFIG_RCVWND,
  CONFIG_REPLAY_CAPACITY,
  CONFIG_RESEND,
  CONFIG_SNDWND,
  CONFIG_TAG_BYTES,
  CONFIG_TIME_WAIT,
  CONFIG_TIMEOUT,
  E_CONFIG,
  E_ENTROPY,
  E_MEMORY,
  MAX_SLEEP_TICKS,
  MODE_CLIENT,
  OK,
} from '../abi'
import { advanceClock, startClock } from '../clock'
import { setKeepalive, startKeepalive } from '../control/keepalive'
import { startPings } from '../control/pings'
import { setServiceExpiry } from '../control/services'
import { setOptions, setWireOffset } from '../kcp/conversation'
import { fixBudget, openBudget, setBudget } from '../memory/budget'
import { usedBytes } from '../memory/slab'
import { openDatagrams } from '../packet/datagram'
import { hasEntropy, takeEntropy } from '../packet/entropy'
import { openNonces, renewCounter } from '../packet/nonce'
import { datagramFilter, openReplay } from '../packet/replay'
import { setMaxSessions } from '../session/table'
import { setTimeouts } from '../session/timeouts'
import { checkTombstones, setTimeWait, untilTombstones } from '../session/tombstones'
import { MEMORY_USED, set } from '../stats'
import { badField, field } from './config'
import { checkMoves, untilMoves } from './migration'
import { checkContexts, untilContexts } from './obfs'
import { configureOpening } from './open'
import { checkPeerTimers, configurePeer, refreshReceivedAge, untilPeerTimers, wakePeer } from './peer'
import { checkSessions, untilSessions, wakeSessions } from './schedule'

/** Entropy the start wants: conv, clock, keepalive, pings, secret and base of nonces. */
const START_ENTROPY_BYTES: u32 = 64

let mode: u32 = 0
let configured: bool = false

/** True once `configure` succeeded; takes in the time of a call. */
export function isReady(now: u32): bool {
  if (!configured) return false
  if (advanceClock(now)) {
    wakeSessions(now)
    wakePeer(now)
  }
  return true
}

export function isMode(bit: u32): bool {
  return (mode & bit) != 0
}

/** Applies the config block; the first time it starts the endpoint. */
export function configure(now: u32): i32 {
  const bad = badField()
  if (bad >= 0) return E_CONFIG - bad
  if (!configured) {
    const result = start(now)
    if (result != OK) return result
  }
  isReady(now)
  setOptions(
    field(CONFIG_KCP_MTU),
    field(CONFIG_SNDWND),
    field(CONFIG_RCVWND),
    field(CONFIG_NODELAY),
    field(CONFIG_INTERVAL),
    field(CONFIG_RESEND),
    field(CONFIG_NC),
    field(CONFIG_FLUSH),
  )
  setTimeouts(field(CONFIG_TIMEOUT), field(CONFIG_LINGER))
  setTimeWait(field(CONFIG_TIME_WAIT))
  setMaxSessions(field(CONFIG_MAX_SESSIONS))
  setServiceExpiry(field(CONFIG_TIMEOUT))
  // limits that were lowered hold for sessions that wait already
  wakeSessions(now)
  setBudget(field(CONFIG_MEMORY_CEILING))
  if (isMode(MODE_CLIENT)) setKeepalive(field(CONFIG_KEEPALIVE))
  configurePeer(mode, min(max(3 * field(CONFIG_KEEPALIVE) + 4, 10), 1800))
  return OK
}

function start(now: u32): i32 {
  if (!hasEntropy(START_ENTROPY_BYTES)) return E_ENTROPY
  startClock(now)
  // descriptors and replay filter come on top of the ceiling, which is for sessions
  openBudget()
  if (!openReplay(datagramFilter(), field(CONFIG_REPLAY_CAPACITY)) || !openDatagrams(field(CONFIG_TAG_BYTES)))
    return E_MEMORY
  mode = field(CONFIG_MODE)
  configureOpening(mode, load<u32>(takeEntropy(4)))
  setWireOffset(load<u32>(takeEntropy(4)))
  startKeepalive(isMode(MODE_CLIENT) ? field(CONFIG_KEEPALIVE) : 0, load<u32>(takeEntropy(4)), now)
  startPings(load<u64>(takeEntropy(8)))
  openNonces(field(CONFIG_NONCE_BYTES), field(CONFIG_NONCE_STRATEGY))
  fixBudget()
  configured = true
  return OK
}

/** Draws the base of the nonce counter again. */
export function renewNonce(): i32 {
  return renewCounter() ? OK : E_ENTROPY
}

export function checkTimers(now: u32): void {
  checkSessions(now)
  checkPeerTimers(now)
  checkContexts(now)
  checkMoves(now)
  checkTombstones()
}

/** Brings the gauges up to date that nothing else keeps. */
export function refreshGauges(): void {
  set(MEMORY_USED, usedBytes())
  refreshReceivedAge()
}

/** Ticks until `checkTimers` has something to do. */
export function untilTimers(now: u32): u32 {
  const wanted = min(
    min(untilPeerTimers(now), untilContexts()),
    min(min(untilMoves(now), untilTombstones()), MAX_SLEEP_TICKS),
  )
  return untilSessions(wanted, now)
}
