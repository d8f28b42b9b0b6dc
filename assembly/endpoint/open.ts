/*
 * Opens sessions: for a client's TCP connection, and for a server's first datagram of an unknown conversation.
 */

import {
  ADDRESS_BYTES,
  CONFIG_CONFIRM,
  E_ARGUMENT,
  E_MEMORY,
  E_NO_PEER,
  E_SESSIONS,
  ECHO_BYTES,
  EVENT_MIGRATED,
  MODE_SERVER,
  REASON_KEY,
  REASON_MEMORY,
  REASON_MOVED,
  REASON_STALE_PEER,
  TICKS_PER_SECOND,
} from '../abi'
import { seconds } from '../clock'
import { UNANSWERED_TICKS } from '../control/keepalive'
import { sendReset } from '../control/queue'
import { openConfirm } from '../kcp/confirm'
import { openCongestion } from '../kcp/congestion'
import { PEER_CLOCK_UNKNOWN, PROBE_ASK } from '../kcp/conversation'
import { probe } from '../kcp/loss_detection'
import { openConversation } from '../kcp/options'
import { openReceiveWindow } from '../kcp/receive_window'
import {
  CMD_ACK,
  CMD_PUSH,
  CMD_WINS,
  diff,
  HEADER_BYTES,
  hashOfPayload,
  readCmd,
  readLen,
  readSn,
  readTs,
  readUna,
} from '../kcp/segment'
import {
  copyAddress,
  copyPlace,
  isAddress,
  keyOf,
  sameAddress,
  sameKey,
  samePlace,
  sameRemote,
} from '../packet/address'
import { tagBytes } from '../packet/datagram'
import { forgetKey } from '../packet/keys'
import { evictIdleOf, isRecent, joinRemote, Remote } from '../packet/remote'
import { datagramFilter, rememberedSince } from '../packet/replay'
import { queueEcho } from '../session/echo'
import { queueEvent } from '../session/events'
import { BARE_BYTES } from '../session/message'
import {
  addressOf,
  CONNECT,
  countHalfOpen,
  DRAINING,
  EOF_RECEIVED,
  EOF_SENT,
  ESTABLISHED,
  has,
  INITIATOR,
  Session,
  STREAM_INVALID,
  setState,
  TCP_GONE,
  TCP_OPEN,
  TIME_WAIT,
} from '../session/session'
import { endSession, queueDial, sendKeepalive } from '../session/stream'
import { find, firstOfConv, insert, nextOfConv, rekey, sessionAt, sessionOf, slotsInUse } from '../session/table'
import { findTombstone, onLateDatagram } from '../session/tombstones'
import { count, SESSIONS_OPENED, SESSIONS_REFUSED, SESSIONS_UNCONFIRMED } from '../stats'
import { Conv, Ticks } from '../units'
import { field } from './config'
import { isOtherPeer, onOtherAddress } from './migration'
import { currentPeer, onPathMoved, previousPeer } from './peer'
import { hasRoom, hasRoomForPeer } from './room'
import { isLive, pingUnvalidated, reschedule } from './schedule'

/** Maximum distance of the numbers of a datagram from a session it continues: the largest window. */
const MAX_MOVED_DISTANCE: i32 = 65536

/** Sessions that end at once when their key does; there is room for as many RESETs. */
const MAX_KEY_ENDS: i32 = 128

/** The address that a session moves to. */
const moved: usize = memory.data(ADDRESS_BYTES, 8)

let mode: u32 = 0
let nextConv: Conv = 0

/** @param conv random number from which convs are counted */
export function configureOpening(modeBits: u32, conv: Conv): void {
  mode = modeBits
  nextConv = conv
}

/** @param flags INITIATOR, or 0 */
function start(s: Session, conv: Conv, flags: u32, now: Ticks): void {
  s.flags = flags
  openConversation(s, conv)
  openReceiveWindow(s, now)
  openCongestion(s, addressOf(s), now)
  setState(s, CONNECT)
  s.created = s.signAt = s.progressAt = s.payloadAt = s.queuedAt = s.flushAt = now
  s.createdSecond = seconds()
  // the first pair of ACKs need not wait
  s.ackLastSentAt = now - TICKS_PER_SECOND
  countHalfOpen(s)
  count(SESSIONS_OPENED)
}

/**
 * Opens a session for a TCP connection that a client accepted.
 * @returns its handle or an error
 */
export function openStream(now: Ticks): i32 {
  return openSession(0, now)
}

/**
 * Opens a session without a connection, which asks for an echo of `bytes`.
 * @returns its handle or an error
 */
export function openEcho(bytes: u32, now: Ticks): i32 {
  if (bytes < 2 * BARE_BYTES || bytes > ECHO_BYTES || bytes % BARE_BYTES != 0) return E_ARGUMENT
  return openSession(bytes, now)
}

/** @param echo bytes of an echo to ask for, 0 = the session is for a connection */
function openSession(echo: u32, now: Ticks): i32 {
  if (!isAddress(currentPeer)) return E_NO_PEER
  if (!hasRoom(now)) {
    count(SESSIONS_REFUSED)
    return E_SESSIONS
  }
  const conv = allocateConv()
  const handle = insert(currentPeer, conv)
  const s = sessionOf(handle)
  if (!s) {
    count(SESSIONS_REFUSED)
    return handle
  }
  start(s, conv, INITIATOR, now)
  s.peerClock = PEER_CLOCK_UNKNOWN
  s.tcp = TCP_OPEN
  if (!(echo ? queueEcho(s, echo, now) : queueDial(s, now))) {
    endSession(s, REASON_MEMORY)
    s.events = 0
    count(SESSIONS_REFUSED)
    reschedule(s, now)
    return E_MEMORY
  }
  reschedule(s, now)
  return s.handle
}

/** @returns the next free conv for the peer; never 0 (protocol.md 6.6) */
function allocateConv(): Conv {
  do nextConv++
  while (nextConv == 0 || find(currentPeer, nextConv) || findTombstone(currentPeer, nextConv))
  return nextConv
}

/**
 * Handles a datagram of a conversation that is unknown at this address. A server accepts the first datagram of a
 * conversation. A datagram that continues a session at another address belongs to it, and may show that it moved.
 * Anything else is answered by RESET.
 * @returns the session of the datagram; null if it is dropped
 */
export function acceptSession(at: usize, len: u32, conv: Conv, address: usize, now: Ticks): Session | null {
  const ended = findTombstone(address, conv)
  if (ended) {
    onLateDatagram(ended, len)
    return null
  }
  const isMidway = isFromMidway(at, len)
  if (tagBytes() != 0) {
    const known = isMidway ? findContinued(at, conv, address) : findRepeated(at, len, conv, address)
    if (known) {
      // a session in CONNECT never moves: its first flight, replayed from another address, would be dialled twice
      if (known.state == CONNECT) return null
      if (isMidway) return onOtherAddress(known, address, now) ? known : null
      if (!isOtherPeer(known, address, now)) return sameAddress(addressOf(known), address) ? known : null
    }
  } else {
    const known = findAtOtherLocal(address, conv)
    if (known) {
      rekey(known, address)
      return known
    }
  }
  // una acknowledges data of a conversation that is unknown here: this server has restarted
  if (!(mode & MODE_SERVER) || (isMidway && readUna(at) != 0)) {
    sendReset(conv, address, len)
    return null
  }
  let s: Session | null = null
  if (hasRoomForPeer(keyOf(address), now)) s = sessionOf(insert(address, conv))
  if (!s) {
    count(SESSIONS_REFUSED)
    return null
  }
  start(s, conv, 0, now)
  if (tagBytes() != 0 && !admit(s, at, len, now)) {
    endSession(s, REASON_MEMORY)
    reschedule(s, now)
    count(SESSIONS_REFUSED)
    return null
  }
  return s
}

/**
 * Decides how far a new session is trusted (docs/validation.md): whether its address has to be validated, and whether
 * its first flight has to be confirmed.
 * @returns false when memory is scarce
 */
function admit(s: Session, at: usize, len: u32, now: Ticks): bool {
  s.remote = joinRemote(addressOf(s))
  if (!s.remote) return false
  const remote = changetype<Remote>(s.remote)
  if (!isRecentFlight(remote, s.conv, at, len)) {
    if (!openConfirm(s)) return false
    count(SESSIONS_UNCONFIRMED)
    sendKeepalive(s, now)
  }
  pingUnvalidated(s, now)
  return true
}

/** @returns true if a first flight cannot be a replay: it was sent so recently that the filter would contain it */
function isRecentFlight(remote: Remote, conv: Conv, at: usize, len: u32): bool {
  if (field(CONFIG_CONFIRM) != 0 || len < HEADER_BYTES || readCmd(at) != CMD_PUSH) return false
  return isRecent(remote, readTs(at), conv, rememberedSince(datagramFilter()))
}

/**
 * @returns true for a datagram that cannot be the first of its conversation, which is a PUSH with sn 0 and una 0. A WASK or
 *   WINS with these is that of a client that has received nothing yet.
 */
function isFromMidway(at: usize, len: u32): bool {
  if (len < HEADER_BYTES) return false
  const cmd = readCmd(at)
  return cmd >= CMD_PUSH && cmd <= CMD_WINS && (cmd > CMD_ACK || readUna(at) != 0 || readSn(at) != 0)
}

/**
 * @returns the session of this peer that was at another local address, null if there is none. Without a method nothing
 *   is authenticated, and the session follows at once.
 */
function findAtOtherLocal(address: usize, conv: Conv): Session | null {
  let s = firstOfConv(conv)
  while (s && !sameRemote(addressOf(s), address)) s = nextOfConv(s)
  return s
}

/**
 * @returns the live session at another address that a datagram from midway may belong to, null if there is none. One
 *   that is confirmed comes first: another may be a replay of its first flight.
 */
function findContinued(at: usize, conv: Conv, address: usize): Session | null {
  let found: Session | null = null
  let s = firstOfConv(conv)
  while (s) {
    if (isMovable(s, address) && (s.state == CONNECT || continues(at, s))) {
      if (isConfirmed(s)) return s
      if (!found) found = s
    }
    s = nextOfConv(s)
  }
  return found
}

/**
 * @returns the live session at another address that the same first flight opened, null if there is none; one that is
 *   confirmed comes first
 */
function findRepeated(at: usize, len: u32, conv: Conv, address: usize): Session | null {
  let s = firstOfConv(conv)
  if (!s || len < HEADER_BYTES || readCmd(at) != CMD_PUSH || readLen(at) > len - HEADER_BYTES) return null
  const first = hashOfPayload(at + HEADER_BYTES, readLen(at))
  let found: Session | null = null
  while (s) {
    if (isMovable(s, address) && s.firstHash == first) {
      if (isConfirmed(s)) return s
      if (!found) found = s
    }
    s = nextOfConv(s)
  }
  return found
}

/** @returns true if the session serves its peer, not what may be a replay of its first flight */
function isConfirmed(s: Session): bool {
  return s.state != CONNECT && s.confirm == 0
}

/** @returns true if a peer at `address` may be that of the session: it has the same key */
function isMovable(s: Session, address: usize): bool {
  return s.state != TIME_WAIT && !has(s, DRAINING) && sameKey(addressOf(s), address)
}

/**
 * @returns true if the numbers of a datagram are inside the windows of a session at another address: its peer may have
 *   moved, for example when a NAT assigned a new port. The datagram must be authentic.
 */
function continues(at: usize, s: Session): bool {
  const una = readUna(at)
  if (diff(una, s.sndNxt) > 0 || diff(una, s.sndUna) < -MAX_MOVED_DISTANCE) return false
  return readCmd(at) != CMD_PUSH || abs(diff(readSn(at), s.rcvNxt)) <= MAX_MOVED_DISTANCE
}

/**
 * The peer is at another address: moves its sessions, and sends something for each, so that a server that knows them
 * follows, and one that has restarted answers RESET.
 */
export function moveSessions(now: Ticks): void {
  if (!isAddress(previousPeer) || !isAddress(currentPeer)) return
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || !isLive(s) || !samePlace(addressOf(s), previousPeer)) continue
    copyAddress(moved, addressOf(s))
    copyPlace(moved, currentPeer)
    if (find(moved, s.conv)) {
      // another session uses this conv there: the sessions cannot both be ours
      endSession(s, REASON_STALE_PEER)
      reschedule(s, now)
      continue
    }
    rekey(s, moved)
    if (s.tcp != TCP_GONE) queueEvent(s, EVENT_MIGRATED)
    sendProbe(s, now)
    reschedule(s, now)
  }
}

/** Sends something of a session, to which a peer that has ended it answers RESET. */
function sendProbe(s: Session, now: Ticks): void {
  if (s.flight != 0) probe(s)
  else if (s.state == ESTABLISHED && !has(s, EOF_SENT)) sendKeepalive(s, now)
}

/** Asks the peer of a session whether it still has it. */
function askSession(s: Session, now: Ticks): void {
  sendProbe(s, now)
  // one that waits for the end of the stream sends nothing by itself; without una it would look like a new one
  if (s.state == ESTABLISHED && has(s, EOF_SENT) && s.rcvNxt != 0) s.wndProbes |= PROBE_ASK
  reschedule(s, now)
}

/**
 * A NAT may have assigned this client another port. A PING names no session, so the server would go on sending to the old
 * one until a session sends something: of those that send nothing, the one that has been silent for the longest asks for
 * an answer. The server moves all of them (endpoint/migration.ts).
 */
export function askSilent(now: Ticks): void {
  if (!isAddress(currentPeer)) return
  let found: Session | null = null
  let silence = UNANSWERED_TICKS
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || !mayAsk(s) || now - s.signAt < silence) continue
    found = s
    silence = now - s.signAt
  }
  if (!found) return
  found.wndProbes |= PROBE_ASK
  reschedule(found, now)
}

/** @returns true for a session of this client, at its peer, that has nothing to send and whose end nothing is to delay */
function mayAsk(s: Session): bool {
  if (s.state != ESTABLISHED || has(s, DRAINING | STREAM_INVALID | EOF_RECEIVED) || s.flight != 0) return false
  // without una it would look like a new one
  return has(s, INITIATOR) && s.rcvNxt != 0 && samePlace(addressOf(s), currentPeer)
}

/** The machine was suspended: finds out which sessions the peers still have. */
export function probeSessions(now: Ticks): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (s && isLive(s)) askSession(s, now)
  }
}

/**
 * The host sends from another local port, or to another address. Sessions of which nothing is acknowledged end, because
 * a server that does not know their first flight by the new path may dial it again (kcptun-libev, another worker).
 */
export function movePath(now: Ticks): void {
  onPathMoved(now)
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || !isLive(s)) continue
    if ((s.state == CONNECT || s.sndUna == 0) && has(s, INITIATOR)) {
      endSession(s, REASON_MOVED)
      reschedule(s, now)
    } else askSession(s, now)
  }
}

/** Ends every session of a remote address, whatever its key; nothing is sent. */
export function endSessionsOf(address: usize, reason: u32, now: Ticks): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || s.state == TIME_WAIT || !samePlace(addressOf(s), address)) continue
    endSession(s, reason)
    reschedule(s, now)
  }
}

/**
 * A key is not accepted any more: ends sessions of its peers, which get a RESET, and what is known of their addresses.
 * @returns number of sessions that are left
 */
export function endKey(key: u32, now: Ticks): i32 {
  forgetKey(key)
  let ended: i32 = 0
  let left: i32 = 0
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || s.state == TIME_WAIT || keyOf(addressOf(s)) != key) continue
    if (ended == MAX_KEY_ENDS) {
      left++
      continue
    }
    ended++
    sendReset(s.conv, addressOf(s), HEADER_BYTES)
    endSession(s, REASON_KEY)
    reschedule(s, now)
  }
  evictIdleOf(key)
  return left
}
