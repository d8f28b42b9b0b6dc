/*
 * How sessions begin: a client's TCP connection, a server's first datagram of an unknown conversation, and the session
 * that continues from another address.
 */
import {
  E_MEMORY,
  E_NO_PEER,
  E_SESSIONS,
  EVENT_MIGRATED,
  MODE_SERVER,
  REASON_MEMORY,
  REASON_STALE_PEER,
  TICKS_PER_SECOND,
} from '../abi'
import { seconds } from '../clock'
import { sendReset } from '../control/queue'
import { openCongestion } from '../kcp/congestion'
import { openConversation, wireClock } from '../kcp/conversation'
import { probe } from '../kcp/recovery'
import { CMD_ACK, CMD_PUSH, CMD_WINS, diff, HEADER_BYTES, readCmd, readSn, readTs, readUna } from '../kcp/segment'
import { openRecvWindow } from '../kcp/window'
import { isAddress, sameAddress } from '../packet/address'
import { tagBytes } from '../packet/datagram'
import { tell } from '../session/events'
import {
  addressOf,
  CONNECT,
  CUT,
  EOF_SENT,
  ESTABLISHED,
  halfOpenCount,
  has,
  INITIATOR,
  openHalf,
  Session,
  setState,
  TCP_GONE,
  TCP_OPEN,
  TIME_WAIT,
} from '../session/session'
import { endSession, queueDial, sendKeepalive } from '../session/stream'
import { error, find, insert, rekey, sessionAt, slotsInUse } from '../session/table'
import { count, SESSIONS_OPENED, SESSIONS_REFUSED } from '../stats'
import { field, MAX_HALF_OPEN } from './config'
import { currentPeer, followPeer, previousPeer } from './peer'
import { isLive, settle } from './schedule'

/** Sessions that datagrams of unknown conversations are compared with, a second: some percent of a core. */
const MAX_VISITS: u32 = 4000000
/** A session that was heard of so recently has not moved. */
const MOVED_SILENCE_TICKS: u32 = TICKS_PER_SECOND / 2
/** How far the numbers of a datagram may lie from a session it is said to continue: the largest window. */
const MAX_MOVED_DISTANCE: i32 = 65536

let mode: u32 = 0
let nextConv: u32 = 0
let scanSecond: u32 = 0
let visits: u32 = 0

/** `conv`: a random number to count on from. */
export function configureOpening(modeBits: u32, conv: u32): void {
  mode = modeBits
  nextConv = conv
}

function start(s: Session, conv: u32, state: u32, now: u32): void {
  openConversation(s, conv)
  openRecvWindow(s, now)
  openCongestion(s, addressOf(s), now)
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

/** First datagram of an unknown conversation: a server accepts it, anybody else answers RESET. */
export function acceptSession(at: usize, len: u32, conv: u32, address: usize, now: u32): Session | null {
  const isMidway = isFromMidway(at, len)
  if (isMidway && tagBytes != 0) {
    if (!mayScan()) return null
    const known = findElsewhere(conv)
    if (known) {
      // while the old address is alive it has not moved; if it has, a retransmission will tell
      if (now - known.signAt < MOVED_SILENCE_TICKS || !continues(at, known, now)) return null
      migrate(known, address)
      return known
    }
  }
  // una tells of something received on a conversation we do not know: its server was restarted since
  if (!(mode & MODE_SERVER) || (isMidway && readUna(at) != 0)) {
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
    visits = 0
  }
  visits += slotsInUse() + 1
  return visits <= MAX_VISITS
}

/** A living session of this conv with another address. */
function findElsewhere(conv: u32): Session | null {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (s && s.conv == conv && s.state != TIME_WAIT && !has(s, CUT)) return s
  }
  return null
}

/**
 * True if this datagram continues a session from another address: numbers inside its windows, and sent by the other
 * side. A NAT that gave its client a new port looks like that. Only authentic datagrams get here.
 */
function continues(at: usize, s: Session, now: u32): bool {
  const una = readUna(at)
  if (diff(una, s.sndNxt) > 0 || diff(una, s.sndUna) < -MAX_MOVED_DISTANCE) return false
  if (readCmd(at) == CMD_PUSH && abs(diff(readSn(at), s.rcvNxt)) > MAX_MOVED_DISTANCE) return false
  return isFromOtherSide(at, s, now)
}

/**
 * Tells a datagram of the peer from one of ours that a stranger sent back: both directions share one key. The ts of an
 * ACK is of our clock, that of a PUSH is not, and our clock starts at a random time (`wireClock`).
 */
function isFromOtherSide(at: usize, s: Session, now: u32): bool {
  const age = wireClock(now) - readTs(at)
  const isOurs = age <= now - s.created
  return readCmd(at) == CMD_ACK ? isOurs : readCmd(at) == CMD_PUSH && !isOurs
}

function migrate(s: Session, address: usize): void {
  followPeer(addressOf(s), address)
  rekey(s, address)
  if (s.tcp != TCP_GONE) tell(s, EVENT_MIGRATED)
}

/**
 * The peer is elsewhere: its sessions move along and say something at once, so that a server that knows them follows,
 * and one that was started anew answers RESET.
 */
export function moveSessions(now: u32): void {
  if (!isAddress(previousPeer) || !isAddress(currentPeer)) return
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || !isLive(s) || !sameAddress(addressOf(s), previousPeer)) continue
    if (find(currentPeer, s.conv)) {
      // the same conv is in use there: it cannot be ours
      endSession(s, REASON_STALE_PEER, now)
      settle(s, now)
      continue
    }
    rekey(s, currentPeer)
    if (s.tcp != TCP_GONE) tell(s, EVENT_MIGRATED)
    if (s.flight != 0) probe(s)
    else if (s.state == ESTABLISHED && !has(s, EOF_SENT)) sendKeepalive(s, now)
    settle(s, now)
  }
}

/** Every session of a remote address ends; nothing is sent. */
export function endSessionsOf(address: usize, reason: u32, now: u32): void {
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (!s || s.state == TIME_WAIT || !sameAddress(addressOf(s), address)) continue
    endSession(s, reason, now)
    settle(s, now)
  }
}

/** Sessions without DIAL, or that nobody answered, against their own limit. */
function isHalfOpenFull(): bool {
  return field(MAX_HALF_OPEN) != 0 && halfOpenCount() >= field(MAX_HALF_OPEN)
}
