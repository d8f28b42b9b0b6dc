/*
 * The endpoint: takes datagrams apart by conv and peer, drives sessions through their timers, and owns the order in which output is drained: control
 * messages first, then sessions in turn.
 */
import {
  E_ARGUMENT, E_CONFIG, E_ENTROPY, E_MEMORY, E_NO_PEER, E_SESSIONS, E_STATE, EVENT_MIGRATED, EVENT_PEER_FOUND, EVENT_PONG, EVENT_RESOLVE, MAX_DATAGRAM_BYTES, MAX_SLEEP_TICKS, MODE_CLIENT,
  MODE_RENDEZVOUS, MODE_SERVER, NONCE_COUNTER, OK, REASON_MEMORY, REASON_RESET, RX_ADDRESS, RX_FLAGS, RX_LEN, RX_OPENED, RX_PTR, RX_SLOTS,
  TICKS_PER_MS, TICKS_PER_SECOND, TX_SLOTS, UNSET,
} from './abi'
import {
  DROP_AUTH, DROP_MALFORMED, DROP_OVERSIZE, DROP_REPLAY, DROP_SHORT, KCP_RECEIVED_BYTES, KCP_SENT_BYTES, LAST_RECEIVED_AGE, MEMORY_USED, PKT_RECEIVED,
  PKT_RECEIVED_BYTES, PKT_SENT, PKT_SENT_BYTES, SESSIONS_OPENED, SESSIONS_REFUSED, WAITSND, add, count, set, shift,
} from './stats'
import { NEVER, until } from './clock'
import { setCeiling, usedBytes } from './memory/slab'
import { copyAddress, isAddress, sameAddress } from './packet/address'
import { isReplay, openReplay } from './packet/replay'
import { canSeal, describeTx, drawCounter, hasEntropy, nonceBytes, openDatagrams, refillRx, rxSlot, tagBytes, takeEntropy, txBlock } from './packet/datagram'
import { flushMode, kcpMtu, openConversation, setOptions, waitSnd } from './kcp/conversation'
import { CMD_PUSH, CMD_WINS, HEADER_BYTES, diff, readCmd, readConv, readSn, readUna } from './kcp/segment'
import { ADVANCED_UNA, MOVED_PAYLOAD, KEPT_BLOCK, RECEIVED_STREAM, input } from './kcp/input'
import { buildDatagram, built, hasOutput, updateProbe } from './kcp/output'
import { detectLoss, untilRto } from './kcp/recovery'
import { pendingAcks } from './kcp/ack'
import { freeIdleRecvRing } from './kcp/recv_window'
import { freeIdleSendRing } from './kcp/send_window'
import {
  CONNECT, CUT, ESTABLISHED, INITIATOR, IN_DIRTY, IN_READY, Session, TCP_GONE, TCP_OPEN, TIME_WAIT, addressOf, closeHalf, halfOpenCount, has, openHalf, setState,
} from './session/session'
import { error, find, insert, rekey, remove, sessionAt, setMaxSessions, slotsInUse } from './session/table'
import { tell, tellOwn } from './session/events'
import { advance, endSession, queueDial, resetByPeer, unblock } from './session/stream'
import { checkTimeouts, setTimeouts, untilTimeout } from './session/timeouts'
import { GOT_PONG, GOT_RESET, MALFORMED, argument, buildControl, receiver, takeControl } from './control/control'
import { isControlWaiting, sendReset } from './control/queue'
import {
  checkPing, isSilent, notePong, noteReceived, noteSent, pingSoon, setKeepalive, startKeepalive, untilPing,
} from './control/keepalive'
import { checkRendezvous, endPunches, helloSoon, rendezvousServer, setRendezvous, setServiceExpiry, untilRendezvous } from './control/rendezvous'
import { cancel, earliest, postpone, wake } from './timer'

/** Fields of the config block, in order (docs/abi.md). */
const MODE: u32 = 0
const TAG_BYTES: u32 = 1
const NONCE_BYTES: u32 = 2
const NONCE_STRATEGY: u32 = 3
const KCP_MTU: u32 = 4
const SNDWND: u32 = 5
const RCVWND: u32 = 6
const NODELAY: u32 = 7
const INTERVAL: u32 = 8
const RESEND: u32 = 9
const NC: u32 = 10
const FLUSH: u32 = 11
const TIMEOUT: u32 = 12
const LINGER_TIME: u32 = 13
const KEEPALIVE: u32 = 14
const TIME_WAIT_TIME: u32 = 15
const MEMORY: u32 = 16
const MAX_SESSIONS: u32 = 17
const REPLAY: u32 = 18
const MAX_HALF_OPEN: u32 = 19

/** Entropy that `configure` wants: seeds of conv and keepalive, base of the nonce counter. */
const START_ENTROPY_BYTES: u32 = 64
/** Tick of `flush` 0 if no interval is set (protocol.md 10.2). */
const DEFAULT_INTERVAL_MS: u32 = 100
/** Datagrams a session may send before the next one has its turn. */
const TURN: u32 = 16
/** Datagrams of unknown conversations that are compared with every session, a second. */
const MAX_SCANS: u32 = 256
/** A session that was heard of so recently has not moved. */
const MOVED_SILENCE_TICKS: u32 = TICKS_PER_SECOND / 2
/** How far the numbers of a datagram may lie from a session it is said to continue: the largest window. */
const MAX_MOVED_DISTANCE: i32 = 65536

export const config: usize = memory.data(20 * 4, 8)
export const peer: usize = memory.data(24, 8)
const currentPeer: usize = memory.data(24, 8)

let mode: u32 = 0
let configured: bool = false
let nextConv: u32 = 0

/** The clock, extended to 64 bits. */
let clock: u64 = 0
let lastNow: u32 = 0
let lastReceivedAt: u64 = 0
let everReceived: bool = false
let resolvedAt: u64 = 0
let silenceTicks: u64 = 0

let scanSecond: u32 = 0
let scans: u32 = 0

let firstReady: usize = 0
let lastReady: usize = 0
let firstDirty: usize = 0

function field(i: u32): u32 {
  return load<u32>(config + (<usize>i << 2))
}

function inRange(i: u32, low: u32, high: u32): bool {
  const value = field(i)
  return value >= low && value <= high
}

function unsetOrIn(i: u32, low: u32, high: u32): bool {
  return field(i) == UNSET || inRange(i, low, high)
}

function setClock(now: u32): void {
  const step = now - lastNow
  clock += step
  lastNow = now
  // the host was suspended: deadlines more than half a circle away would seem to lie ahead
  if (step > 2 * MAX_SLEEP_TICKS) wakeAll(now)
}

function wakeAll(now: u32): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s) continue
    cancel(s)
    wake(s, now)
  }
  pingSoon(now)
  helloSoon(now)
}

/** Seconds since the endpoint started. */
export function seconds(): u32 {
  return <u32>(clock / TICKS_PER_SECOND)
}

// ---- configuration

/** Checks the config block: -1 if it is good, else the index of the first bad field. */
function badField(): i32 {
  if (!inRange(MODE, 0, 7) || (field(MODE) & 3) == 3) return MODE
  if (field(TAG_BYTES) != 0 && field(TAG_BYTES) != 16) return TAG_BYTES
  if (field(NONCE_BYTES) != 0 && field(NONCE_BYTES) != 12 && field(NONCE_BYTES) != 24) return NONCE_BYTES
  if (!inRange(NONCE_STRATEGY, 0, 2) || (field(NONCE_STRATEGY) == NONCE_COUNTER && field(NONCE_BYTES) != 12)) return NONCE_STRATEGY
  if (!inRange(KCP_MTU, 64, MAX_DATAGRAM_BYTES)) return KCP_MTU
  if (!unsetOrIn(SNDWND, 1, 65536)) return SNDWND
  if (!unsetOrIn(RCVWND, 1, 65536)) return RCVWND
  if (!unsetOrIn(NODELAY, 0, 2)) return NODELAY
  if (!unsetOrIn(INTERVAL, 1, 5000)) return INTERVAL
  if (!unsetOrIn(RESEND, 0, 100)) return RESEND
  if (!unsetOrIn(NC, 0, 1)) return NC
  if (!unsetOrIn(FLUSH, 0, 2)) return FLUSH
  if (!inRange(TIMEOUT, 1, 86400)) return TIMEOUT
  if (!inRange(LINGER_TIME, 1, 86400)) return LINGER_TIME
  if (!inRange(KEEPALIVE, 0, 86400)) return KEEPALIVE
  if (!inRange(TIME_WAIT_TIME, 1, 86400)) return TIME_WAIT_TIME
  if (!inRange(MEMORY, 1 << 20, 0xf0000000)) return MEMORY
  if (!inRange(MAX_SESSIONS, 1, 65535)) return MAX_SESSIONS
  if (!inRange(REPLAY, 0, 1 << 20)) return REPLAY
  if (!inRange(MAX_HALF_OPEN, 0, 65535)) return MAX_HALF_OPEN
  return -1
}

export function configureEndpoint(now: u32): i32 {
  const bad = badField()
  if (bad >= 0) return E_CONFIG - bad
  if (!configured) {
    if (!hasEntropy(START_ENTROPY_BYTES)) return E_ENTROPY
    lastNow = now
    // descriptors and replay filter come on top of the ceiling, which is for sessions
    setCeiling(0xf0000000)
    if (!openReplay(field(REPLAY)) || !openDatagrams(field(TAG_BYTES), field(NONCE_BYTES), field(NONCE_STRATEGY))) return E_MEMORY
    mode = field(MODE)
    nextConv = load<u32>(takeEntropy(4))
    startKeepalive(mode & MODE_CLIENT ? field(KEEPALIVE) : 0, load<u32>(takeEntropy(4)), now)
    fixedBytes = usedBytes()
    configured = true
  }
  setClock(now)
  setOptions(field(KCP_MTU), field(SNDWND), field(RCVWND), field(NODELAY), field(INTERVAL), field(RESEND), field(NC), field(FLUSH))
  setTimeouts(field(TIMEOUT), field(LINGER_TIME), field(TIME_WAIT_TIME))
  setMaxSessions(field(MAX_SESSIONS))
  setServiceExpiry(field(TIMEOUT))
  setCeiling(fixedBytes + min(field(MEMORY), 0xf0000000 - fixedBytes))
  if (mode & MODE_CLIENT) setKeepalive(field(KEEPALIVE))
  silenceTicks = <u64>min(max(3 * field(KEEPALIVE) + 4, 10), 1800) * TICKS_PER_SECOND
  return OK
}

let fixedBytes: u32 = 0

export function setPeer(now: u32): i32 {
  if (!configured) return E_STATE
  setClock(now)
  if (sameAddress(currentPeer, peer)) return OK
  copyAddress(currentPeer, peer)
  pingSoon(now)
  return OK
}

/** The rendezvous server, our local address and the service id are as the host wrote them. */
export function setRendezvousServer(idBytes: u32, now: u32): i32 {
  if (!configured) return E_STATE
  setClock(now)
  return setRendezvous(idBytes, now) ? OK : E_ARGUMENT
}

export function renewNonce(): i32 {
  return field(NONCE_STRATEGY) != NONCE_COUNTER || drawCounter() ? OK : E_ENTROPY
}

// ---- sessions in the lists of the endpoint

function enqueueReady(s: Session): void {
  if (has(s, IN_READY)) return
  s.flags |= IN_READY
  s.nextReady = 0
  if (lastReady) changetype<Session>(lastReady).nextReady = changetype<usize>(s)
  else firstReady = changetype<usize>(s)
  lastReady = changetype<usize>(s)
}

/** Ticks until the session wants to be looked at. */
function untilWanted(s: Session, now: u32): u32 {
  let wanted = untilTimeout(s, now)
  // a session in the ready list waits for the host, not for a time
  if (s.state == TIME_WAIT || has(s, CUT | IN_READY)) return wanted
  wanted = min(wanted, untilRto(s, now))
  if (pendingAcks(s)) wanted = min(wanted, until(s.ackDue, now))
  if (s.probeWait) wanted = min(wanted, until(s.probeAt, now))
  if (flushMode == 0) {
    const tick = until(s.tickAt, now)
    wanted = hasOutput(s, now) ? tick : max(wanted, tick)
    wanted = min(wanted, untilTimeout(s, now))
  }
  return wanted
}

function isTickOpen(s: Session, now: u32): bool {
  return flushMode != 0 || until(s.tickAt, now) == 0
}

/** To be called after anything that changed a session: queues its output, sets its deadline. */
export function settle(s: Session, now: u32): void {
  if (s.state != TIME_WAIT && !has(s, CUT)) {
    updateProbe(s, now)
    unblock(s)
    if (hasOutput(s, now)) {
      if (isTickOpen(s, now)) enqueueReady(s)
      else wake(s, s.tickAt)
    }
    freeIdleSendRing(s)
    freeIdleRecvRing(s)
  }
  const waiting = waitSnd(s)
  if (waiting != s.waitingCounted) {
    shift(WAITSND, waiting - s.waitingCounted)
    s.waitingCounted = waiting
  }
  const wanted = untilWanted(s, now)
  if (wanted != NEVER) wake(s, now + wanted)
}

function forget(s: Session): void {
  cancel(s)
  setState(s, 0)
  remove(s)
}

function start(s: Session, conv: u32, state: u32, now: u32): void {
  openConversation(s, conv)
  setState(s, state)
  s.created = s.signAt = s.progressAt = s.payloadAt = s.queuedAt = s.tickAt = now
  s.createdSecond = seconds()
  // so that the first pair of ACKs need not wait
  s.ackLast = now - TICKS_PER_SECOND
  // likewise the first RESET
  s.resetAt = now - TICKS_PER_SECOND
  openHalf(s)
  count(SESSIONS_OPENED)
}

/** A session for a TCP connection that a client accepted: its handle or an error. */
export function openStream(now: u32): i32 {
  if (!configured || !(mode & MODE_CLIENT)) return E_STATE
  setClock(now)
  if (!isAddress(currentPeer)) return E_NO_PEER
  if (isHalfOpenFull()) {
    count(SESSIONS_REFUSED)
    return E_SESSIONS
  }
  const conv = allocateConv()
  const s = insert(currentPeer, conv)
  if (!s) {
    count(SESSIONS_REFUSED)
    return error
  }
  start(s, conv, CONNECT, now)
  s.flags |= INITIATOR
  s.tcp = TCP_OPEN
  if (!queueDial(s, now)) {
    endSession(s, REASON_MEMORY, now)
    s.events = 0
    count(SESSIONS_REFUSED)
    settle(s, now)
    return E_MEMORY
  }
  settle(s, now)
  return s.handle
}

/** Next free conv for the peer; never 0 (protocol.md 6.6). */
function allocateConv(): u32 {
  do nextConv++
  while (nextConv == 0 || find(currentPeer, nextConv))
  return nextConv
}

// ---- datagrams in

export function handleDatagrams(slots: u32, now: u32): i32 {
  if (!configured) return E_STATE
  setClock(now)
  let accepted = 0
  const n = min(slots, RX_SLOTS)
  for (let i: u32 = 0; i < n; i++) if (handleDatagram(i, now)) accepted++
  while (firstDirty) {
    const s = changetype<Session>(firstDirty)
    firstDirty = s.nextDirty
    s.flags &= ~IN_DIRTY
    if (s.state != TIME_WAIT && !has(s, CUT)) detectLoss(s, now)
    settle(s, now)
  }
  return accepted
}

function handleDatagram(i: u32, now: u32): bool {
  const slot = rxSlot(i)
  const sealed = load<u32>(slot, RX_LEN)
  const at = load<usize>(slot, RX_PTR)
  const address = slot + RX_ADDRESS
  add(PKT_RECEIVED, 1)
  add(PKT_RECEIVED_BYTES, sealed)
  everReceived = true
  lastReceivedAt = clock
  if (sealed > MAX_DATAGRAM_BYTES) {
    count(DROP_OVERSIZE)
    return false
  }
  const overhead = tagBytes + nonceBytes
  if (overhead) {
    if (sealed <= overhead) {
      count(DROP_SHORT)
      return false
    }
    if (!(load<u32>(slot, RX_FLAGS) & RX_OPENED)) {
      count(DROP_AUTH)
      return false
    }
    // a packet that fails authentication does not get here: it must not block the genuine one (protocol.md 3.5)
    if (isReplay(at + sealed - nonceBytes, nonceBytes)) {
      count(DROP_REPLAY)
      return false
    }
  }
  if (sameAddress(address, currentPeer)) noteReceived()
  const len = sealed - overhead
  if (len < 4) {
    count(DROP_SHORT)
    return false
  }
  const conv = readConv(at)
  if (conv == 0) return takeMessage(at, len, address, now)
  add(KCP_RECEIVED_BYTES, len)
  return takeSegments(i, at, len, conv, address, now)
}

function takeMessage(at: usize, len: u32, address: usize, now: u32): bool {
  const found = takeControl(at, len, address, seconds(), isMappedSocket(), now)
  if (found == MALFORMED) {
    count(DROP_MALFORMED)
    return false
  }
  if (found == GOT_PONG) {
    takePong(address, now)
  } else if (found == GOT_RESET) {
    const s = find(address, argument)
    if (s && s.state != TIME_WAIT) {
      resetByPeer(s, REASON_RESET, now)
      touch(s)
    }
  }
  return true
}

function takeSegments(i: u32, at: usize, len: u32, conv: u32, address: usize, now: u32): bool {
  let s = find(address, conv)
  if (!s) {
    s = acceptSession(at, len, conv, address, now)
    if (!s) return false
  }
  touch(s)
  if (s.state == TIME_WAIT || has(s, CUT)) {
    if (s.state == TIME_WAIT && now - s.resetAt >= TICKS_PER_SECOND) {
      s.resetAt = now
      s.timeWaitAt = now
      sendReset(conv, address)
    }
    return false
  }
  if (s.state == CONNECT) {
    setState(s, ESTABLISHED)
    if (has(s, INITIATOR)) closeHalf(s)
  }
  s.signAt = now
  const did = input(s, at, len, true, now)
  if (did & KEPT_BLOCK) refillRx(i)
  if (did & (RECEIVED_STREAM | ADVANCED_UNA)) s.progressAt = now
  if (did & MOVED_PAYLOAD) s.payloadAt = now
  if (did & RECEIVED_STREAM) advance(s, now)
  return true
}

/** First datagram of an unknown conversation: a server accepts it, anybody else answers RESET. */
function acceptSession(at: usize, len: u32, conv: u32, address: usize, now: u32): Session | null {
  const isMidway = isFromMidway(at, len)
  if (isMidway && mayScan()) {
    const moved = findMoved(at, conv, now)
    if (moved) {
      migrate(moved, address)
      return moved
    }
    if (readUna(at) != 0) {
      // it has received something on a conversation we do not know: it talks to a server that was restarted since
      sendReset(conv, address)
      return null
    }
  } else if (isMidway && readUna(at) != 0) {
    return null
  }
  if (!(mode & MODE_SERVER)) {
    sendReset(conv, address)
    return null
  }
  if (isHalfOpenFull()) {
    count(SESSIONS_REFUSED)
    return null
  }
  const s = insert(address, conv)
  if (!s) {
    count(SESSIONS_REFUSED)
    return null
  }
  start(s, conv, CONNECT, now)
  return s
}

/** True for a datagram that cannot be the first of its conversation: those begin with sn 0 and una 0. */
function isFromMidway(at: usize, len: u32): bool {
  if (len < HEADER_BYTES) return false
  const cmd = readCmd(at)
  return cmd >= CMD_PUSH && cmd <= CMD_WINS && (readUna(at) != 0 || readSn(at) != 0)
}

/** A budget for what looks at every session. */
function mayScan(): bool {
  if (scanSecond != seconds()) {
    scanSecond = seconds()
    scans = 0
  }
  return scans++ < MAX_SCANS
}

/**
 * The session that this datagram continues from another address: same conv, numbers inside its windows, and its old address silent. A NAT that gave its
 * client a new port looks like that. Only authentic datagrams are believed.
 */
function findMoved(at: usize, conv: u32, now: u32): Session | null {
  if (tagBytes == 0) return null
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || s.conv != conv || s.state == TIME_WAIT || has(s, CUT) || now - s.signAt < MOVED_SILENCE_TICKS) continue
    const una = readUna(at)
    if (diff(una, s.sndNxt) > 0 || diff(una, s.sndUna) < -MAX_MOVED_DISTANCE) continue
    if (readCmd(at) == CMD_PUSH && abs(diff(readSn(at), s.rcvNxt)) > MAX_MOVED_DISTANCE) continue
    return s
  }
  return null
}

function migrate(s: Session, address: usize): void {
  // a client follows its server
  if (sameAddress(addressOf(s), currentPeer)) {
    copyAddress(currentPeer, address)
    copyAddress(peer, address)
  }
  rekey(s, address)
  if (s.tcp != TCP_GONE) tell(s, EVENT_MIGRATED)
}

/** Sessions without DIAL, or that nobody answered, against their own limit. */
function isHalfOpenFull(): bool {
  return field(MAX_HALF_OPEN) != 0 && halfOpenCount() >= field(MAX_HALF_OPEN)
}

/** Marks a session for the work that follows a receive batch. */
function touch(s: Session): void {
  if (has(s, IN_DIRTY)) return
  s.flags |= IN_DIRTY
  s.nextDirty = firstDirty
  firstDirty = changetype<usize>(s)
}

// ---- time

export function handleTimeout(now: u32): i32 {
  if (!configured) return E_STATE
  setClock(now)
  while (true) {
    const s = earliest()
    if (!s || until(s.deadline, now) != 0) break
    cancel(s)
    if (checkTimeouts(s, now)) {
      if (s.state != TIME_WAIT && !has(s, CUT)) {
        detectLoss(s, now)
      }
      settle(s, now)
    } else {
      forget(s)
    }
  }
  if (isAddress(currentPeer)) checkPeer(now)
  checkRendezvous(wantsRendezvous(), listenTicks(), now)
  if (untilResolve() == 0) {
    resolvedAt = clock
    tellOwn(EVENT_RESOLVE, 0)
  }
  return OK
}

/** Ticks until names are to be resolved again (protocol.md 7.6). */
function untilResolve(): u32 {
  const since = clock - max(resolvedAt, lastReceivedAt)
  return since >= silenceTicks ? 0 : <u32>(silenceTicks - since)
}

export function nextTimeout(now: u32): i32 {
  if (!configured) return -1
  setClock(now)
  set(LAST_RECEIVED_AGE, everReceived ? (clock - lastReceivedAt) / TICKS_PER_MS : u64.MAX_VALUE)
  set(MEMORY_USED, usedBytes())
  let wanted = min(untilResolve(), MAX_SLEEP_TICKS)
  if (isAddress(currentPeer)) wanted = min(wanted, untilPing(now))
  wanted = min(wanted, untilRendezvous(wantsRendezvous(), now))
  while (true) {
    const s = earliest()
    if (!s || until(s.deadline, now) >= wanted) break
    const real = untilWanted(s, now)
    if (real > until(s.deadline, now)) {
      postpone(s, now + min(real, MAX_SLEEP_TICKS))
      continue
    }
    wanted = until(s.deadline, now)
    break
  }
  return wanted
}

// ---- peer

/** Pings the peer; when it falls silent the host resolves again at once, and a rendezvous client asks for it anew. */
function checkPeer(now: u32): void {
  const wasSilent = isSilent()
  checkPing(currentPeer, now)
  if (wasSilent || !isSilent()) return
  resolvedAt = clock
  tellOwn(EVENT_RESOLVE, 0)
  helloSoon(now)
}

/** True when a LISTEN or CONNECT is wanted: always of a server, of a client while it has no peer that answers. */
function wantsRendezvous(): bool {
  if (!(mode & MODE_RENDEZVOUS)) return false
  return (mode & MODE_SERVER) != 0 || ((mode & MODE_CLIENT) != 0 && (!isAddress(currentPeer) || isSilent()))
}

function listenTicks(): u32 {
  return mode & MODE_SERVER ? field(KEEPALIVE) * TICKS_PER_SECOND : 0
}

/** True if the socket is an IPv6 one, as the rendezvous server's address tells. */
function isMappedSocket(): bool {
  return load<u16>(rendezvousServer) == 6
}

/** The first PONG a rendezvous client without a living peer gets tells where the peer is. */
function takePong(address: usize, now: u32): void {
  if (wantsRendezvous() && mode & MODE_CLIENT && !sameAddress(address, currentPeer)) {
    copyAddress(currentPeer, address)
    copyAddress(peer, address)
    endPunches()
    tellOwn(EVENT_PEER_FOUND, 0)
    pingSoon(now)
  }
  if (!sameAddress(address, currentPeer)) return
  notePong()
  tellOwn(EVENT_PONG, now - argument)
}

// ---- datagrams out

export function pollTransmit(limit: u32, now: u32): i32 {
  if (!configured) return E_STATE
  setClock(now)
  const slots = min(limit, TX_SLOTS)
  let n: u32 = 0
  let turn: u32 = 0
  while (n < slots && (isControlWaiting() || firstReady)) {
    if (!canSeal()) return n ? n : E_ENTROPY
    if (isControlWaiting()) {
      const block = txBlock(n)
      const len = buildControl(block)
      sent(describeTx(n++, block, len, kcpMtu, receiver, 0))
      continue
    }
    const s = changetype<Session>(firstReady)
    const len = s.state == TIME_WAIT || has(s, CUT) || !hasOutput(s, now) ? 0 : buildDatagram(s, txBlock(n), now)
    if (len) {
      add(KCP_SENT_BYTES, len)
      sent(describeTx(n++, built, len, kcpMtu, addressOf(s), s.handle))
      turn++
    }
    const more = len != 0 && hasOutput(s, now)
    if (!more || turn >= TURN) {
      dequeueReady(s, more, now)
      turn = 0
    }
  }
  return n
}

function sent(bytes: u32): void {
  noteSent(lastNow)
  count(PKT_SENT)
  add(PKT_SENT_BYTES, bytes)
}

/** Ends a session's turn. */
function dequeueReady(s: Session, more: bool, now: u32): void {
  firstReady = s.nextReady
  if (!firstReady) lastReady = 0
  s.flags &= ~IN_READY
  if (more) {
    enqueueReady(s)
    return
  }
  if (flushMode == 0) s.tickAt = now + tickLength()
  settle(s, now)
}

function tickLength(): u32 {
  return (field(INTERVAL) == UNSET ? DEFAULT_INTERVAL_MS : field(INTERVAL)) * TICKS_PER_MS
}
