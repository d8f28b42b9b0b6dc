/*
 * Life of the obfuscator's contexts (protocol.md 9.5), and its effect on their sessions.
 */

import {
  E_ARGUMENT,
  E_ENTROPY,
  E_HANDLE,
  E_MEMORY,
  E_SESSIONS,
  E_STATE,
  EVENT_OBFS_ENDED,
  EVENT_OBFS_READY,
  OBFS_INFO_ADDRESS,
  OBFS_INFO_AGE,
  OBFS_INFO_BYTES,
  OBFS_INFO_BYTES_IN,
  OBFS_INFO_BYTES_OUT,
  OBFS_INFO_CONGESTED,
  OBFS_INFO_CONTEXT,
  OBFS_INFO_ECHOES,
  OBFS_INFO_IDLE,
  OBFS_INFO_STATE,
  OBFS_STATE_AUTHENTICATED,
  OBFS_STATE_CAPTURED,
  OBFS_STATE_NEW,
  OK,
  REASON_OBFS,
  TICKS_PER_SECOND,
} from '../abi'
import { elapsed, NEVER, seconds } from '../clock'
import { addFixed } from '../memory/budget'
import { allocUrgent, classOf, usedBytes } from '../memory/slab'
import {
  AUTHENTICATED,
  authenticate,
  CAPTURED,
  Context,
  contextAt,
  contextCount,
  contextOf,
  contextSlots,
  findContext,
  insertContext,
  is,
  localOf,
  MAX_CONTEXTS,
  mostCrowded,
  oldestUnauthenticated,
  openContexts,
  READY,
  remoteOf,
  removeContext,
  unauthenticatedCount,
} from '../obfs/context'
import { openPendingPackets, pendingPayload, pendingPayloadBytes, takePending } from '../obfs/pending_packets'
import { clearPending, describe, openPackets, pending } from '../obfs/receive'
import { isObfsServer, local, NONE, obfsKind, remote, TCP, TCP_WND, takeSettings } from '../obfs/settings'
import { headerBytes, nextRandom, SYN, seedRandom } from '../obfs/tcpip'
import { openOutgoing, queueControl } from '../obfs/transmit'
import { copyAddress, familyOf, isAddress } from '../packet/address'
import { hasEntropy, takeEntropy } from '../packet/entropy'
import { queueEndpointEvent } from '../session/events'
import { count, OBFS_REFUSED } from '../stats'
import { ElapsedTicks, Seconds, Ticks } from '../units'
import { endSessionsOf } from './open'
import { silenceSeconds } from './peer'

/** Interval between checks of the contexts. */
const CHECK_TICKS: ElapsedTicks = 10 * TICKS_PER_SECOND
/** Life of a context that sent nothing authentic. */
const UNAUTHENTICATED_SECONDS: Seconds = 30
/** dpi/tcp-wnd servers: unauthenticated contexts that are accepted without restriction, and their maximum number. */
const STARTUP_BEGIN: u32 = 10
const STARTUP_FULL: u32 = 60
/** A context is not evicted in its first seconds. */
const STARTUP_SECONDS: Seconds = 3
/** Of 256 connections between those limits, this many are refused: 30 %. */
const STARTUP_REFUSED: u32 = 77
/** 64 slots of 2048 bytes. */
const SLOTS_BYTES: u32 = 64 << 11
const ENDED_BYTES: u32 = 4096 << 2
const SEED_BYTES: u32 = 8

export const contextInfo: usize = memory.data(OBFS_INFO_BYTES, 8)

let checkAt: ElapsedTicks = 0
/** Ids of contexts that timed out, for the host to fetch. */
let ended: usize = 0
let endedCount: u32 = 0

/**
 * Applies kind and local address.
 * @returns OK, E_ARGUMENT, E_ENTROPY or E_MEMORY
 */
export function configureObfs(server: bool): i32 {
  if (!takeSettings(server)) return E_ARGUMENT
  if (obfsKind() == NONE || ended) return OK
  if (!hasEntropy(SEED_BYTES)) return E_ENTROPY
  seedRandom(load<u64>(takeEntropy(SEED_BYTES)))
  const before = usedBytes()
  const incoming = allocUrgent(classOf(SLOTS_BYTES))
  const outgoing = allocUrgent(classOf(SLOTS_BYTES))
  const list = allocUrgent(classOf(ENDED_BYTES))
  if (!incoming || !outgoing || !list || !openContexts() || !openPendingPackets()) return E_MEMORY
  openPackets(incoming)
  openOutgoing(outgoing)
  ended = list
  addFixed(usedBytes() - before)
  return OK
}

/** @returns bytes of the headers that the obfuscator adds to a datagram */
export function packetOverhead(address: usize): u32 {
  return obfsKind() == NONE ? 0 : headerBytes(familyOf(address))
}

/** An authentic datagram arrived from `address`. */
export function onAuthenticPacket(address: usize): void {
  authenticate(address)
  if (obfsKind() != TCP || isObfsServer()) return
  const c = findContext(address)
  // the SYN|ACK was lost, but the peer answered what followed our SYN
  if (!c || is(c, READY)) return
  c.flags |= READY
  queueEndpointEvent(EVENT_OBFS_READY, c.id)
}

/**
 * A dpi/tcp-wnd server accepted a connection from `remote`.
 * @returns id of its context, or an error
 */
export function acceptContext(now: Ticks): i32 {
  clearPending()
  if (obfsKind() != TCP_WND || !isObfsServer()) return E_STATE
  let c: Context | null = null
  if (!findContext(remote) && hasStartupRoom(now)) c = insertContext(remote)
  if (!c) {
    count(OBFS_REFUSED)
    return E_SESSIONS
  }
  const entry = takePending(c, remote)
  const bytes = entry ? pendingPayloadBytes(entry) : 0
  if (bytes) describe(pending, c, pendingPayload(entry), bytes)
  return c.id
}

/**
 * Makes room for one more connection. The address with most unauthenticated connections is evicted first, so that one
 * address cannot exclude the others; each connection has some seconds to authenticate.
 * @returns false if the connection is refused
 */
function hasStartupRoom(now: Ticks): bool {
  const half = unauthenticatedCount()
  if (contextCount() >= MAX_CONTEXTS || half >= STARTUP_BEGIN) {
    const victim = mostCrowded(STARTUP_SECONDS)
    if (victim) {
      timeOut(victim, now)
      return true
    }
  }
  if (contextCount() >= MAX_CONTEXTS || half >= STARTUP_FULL) return false
  return half < STARTUP_BEGIN || (nextRandom() & 255) >= STARTUP_REFUSED
}

/**
 * A client connects to `remote` from `local`; ends an existing context of the same address.
 * @returns id of the context, or an error
 */
export function dialContext(now: Ticks): i32 {
  if (obfsKind() == NONE || isObfsServer() || !isAddress(remote)) return E_STATE
  const old = findContext(remote)
  if (old) end(old, now)
  const c = insertContext(remote)
  if (!c) return E_MEMORY
  copyAddress(localOf(c), local)
  if (obfsKind() == TCP) {
    c.seq = nextRandom()
    c.synAck = c.seq + 1
    queueControl(c, SYN)
    c.seq++
  }
  return c.id
}

/** The host releases a context. */
export function releaseContext(id: u32, now: Ticks): i32 {
  const c = contextOf(id)
  if (!c) return E_HANDLE
  end(c, now)
  return OK
}

function end(c: Context, now: Ticks): void {
  // only an authenticated peer, or a client towards its server, can have sessions
  if (!isObfsServer() || is(c, AUTHENTICATED)) endSessionsOf(remoteOf(c), REASON_OBFS, now)
  removeContext(c)
}

function timeOut(c: Context, now: Ticks): void {
  if (endedCount < ENDED_BYTES >> 2) {
    store<u32>(ended + ((<usize>endedCount) << 2), c.id)
    endedCount++
  }
  queueEndpointEvent(EVENT_OBFS_ENDED, c.id)
  end(c, now)
}

/** @returns id of the next context that timed out, 0 if there is none */
export function takeEnded(): u32 {
  if (endedCount == 0) return 0
  endedCount--
  return load<u32>(ended + ((<usize>endedCount) << 2))
}

/** Ends contexts that timed out. */
export function checkContexts(now: Ticks): void {
  if (contextCount() == 0 || elapsed() < checkAt) return
  checkAt = elapsed() + CHECK_TICKS
  const second = seconds()
  while (true) {
    const c = oldestUnauthenticated()
    if (!c || second - c.createdSecond < UNAUTHENTICATED_SECONDS) break
    timeOut(c, now)
  }
  const silence = silenceSeconds()
  const slots = contextSlots()
  for (let i: u32 = 0; i < slots; i++) {
    const c = contextAt(i)
    if (c && is(c, AUTHENTICATED) && second - c.payloadSecond >= silence) timeOut(c, now)
  }
}

/** @returns ticks until `checkContexts` has something to do */
export function contextsDeadline(): Ticks {
  if (contextCount() == 0) return NEVER
  return checkAt > elapsed() ? <u32>(checkAt - elapsed()) : 0
}

/**
 * Fills the info block.
 * @returns id of the context, 0 for an empty slot
 */
export function describeContext(slot: u32): u32 {
  const c = contextAt(slot)
  if (!c) return 0
  const isKnown = is(c, CAPTURED)
  const state = is(c, AUTHENTICATED) ? OBFS_STATE_AUTHENTICATED : isKnown ? OBFS_STATE_CAPTURED : OBFS_STATE_NEW
  store<u32>(contextInfo, state, OBFS_INFO_STATE)
  store<u32>(contextInfo, seconds() - c.payloadSecond, OBFS_INFO_IDLE)
  store<u64>(contextInfo, c.bytesIn, OBFS_INFO_BYTES_IN)
  store<u64>(contextInfo, c.bytesOut, OBFS_INFO_BYTES_OUT)
  store<u32>(contextInfo, c.congested, OBFS_INFO_CONGESTED)
  store<u32>(contextInfo, c.echoes, OBFS_INFO_ECHOES)
  copyAddress(contextInfo + OBFS_INFO_ADDRESS, remoteOf(c))
  store<u32>(contextInfo, c.id, OBFS_INFO_CONTEXT)
  store<u32>(contextInfo, seconds() - c.createdSecond, OBFS_INFO_AGE)
  return c.id
}
