/*
 * Received datagrams: the checks of protocol.md 3.5 in their order, then session 0 or the conversation.
 */

import {
  EVENT_OPENED,
  EVENT_PUNCHED,
  MAX_DATAGRAM_BYTES,
  REASON_RESET,
  REASON_STALE_PEER,
  RX_ADDRESS,
  RX_FLAGS,
  RX_HASH,
  RX_LENGTH,
  RX_OPENED,
  RX_PROBE,
  RX_PTR,
  RX_SLOTS,
  TICKS_PER_SECOND,
} from '../abi'
import { seconds } from '../clock'
import {
  foundOf,
  GOT_PING,
  GOT_PONG,
  GOT_PUNCH,
  GOT_RESET,
  isListen,
  MALFORMED,
  takeControl,
  valueOf,
} from '../control/control'
import {
  argumentOf,
  closePing,
  findPing,
  HOST_PING,
  NEW_PING,
  NEW_SERVICE_PING,
  OLD_SERVICE_PING,
  PEER_PING,
  PUNCH_PING,
  purposeOf,
  SIZE_PING,
  sentAtOf,
  wasSentTo,
} from '../control/pings'
import { isProbing, sendReset, setProbing } from '../control/queue'
import { onServicePong } from '../control/services'
import { onArrival } from '../kcp/bulk'
import {
  ADVANCED_UNA,
  ANSWERED,
  CONFIRMED,
  FORGOTTEN,
  input,
  KEPT_BLOCK,
  LONE_PASSED,
  MOVED_PAYLOAD,
  RECEIVED_STREAM,
  RUN_PASSED,
} from '../kcp/input'
import { growReceiveWindow } from '../kcp/receive_window'
import { CMD_PUSH, CMD_WINS, diff, HEADER_BYTES, readCmd, readConv, readLen, readTs, readUna } from '../kcp/segment'
import { fromWireClock } from '../kcp/wire_clock'
import { NONE, obfsKind } from '../obfs/settings'
import { keyOf, sameAddress } from '../packet/address'
import { hasSpareBlock, refillRx, rxSlot, sealBytes, tagBytes } from '../packet/datagram'
import { onKeyReceived, saltOf } from '../packet/keys'
import { hashOfNonce, isOwnNonce, nonceBytes } from '../packet/nonce'
import { answersValidation, findRemote, learnClock, needsClock, onReceivedFrom, Remote } from '../packet/remote'
import { datagramFilter, isReplay, isReplayedListen, prepareReplay } from '../packet/replay'
import { queueEndpointEvent, queueEvent } from '../session/events'
import {
  addressOf,
  CONNECT,
  ESTABLISHED,
  HAS_TWIN,
  has,
  INITIATOR,
  MOVING,
  RESET_CHALLENGED,
  SEND_HELD,
  Session,
  setState,
  TCP_OPEN,
  uncountHalfOpen,
} from '../session/session'
import { advance, challengeReset, dismissReset, endSession, resetByPeer } from '../session/stream'
import { find, firstOfConv, nextOfConv } from '../session/table'
import { confirm, onTwinAcknowledged } from '../session/twins'
import {
  add,
  count,
  DROP_AUTH,
  DROP_MALFORMED,
  DROP_OVERSIZE,
  DROP_REFLECTED,
  DROP_REPLAY,
  DROP_SHORT,
  KCP_RECEIVED_BYTES,
  PKT_RECEIVED,
  PKT_RECEIVED_BYTES,
  PONGS_UNASKED,
} from '../stats'
import { Ticks } from '../units'
import { onHostPong } from './host_pings'
import { onMovePong, onOldAddress } from './migration'
import { onAuthenticPacket, packetOverhead } from './obfs'
import { acceptSession, moveSessions } from './open'
import { onSizePong } from './path_search'
import { isMappedSocket, onAuthentic, onPeerPong, onPing, onProbePong } from './peer'
import { onRunEffects } from './runs'
import { isLive, markDirty, onValidated, processDirty } from './schedule'

/** An echo of our clock in a WINS is at most this old. */
const MAX_ECHO_TICKS: Ticks = 600 * TICKS_PER_SECOND
/** Shorter datagrams contain no conv. */
const MIN_PLAIN_BYTES: u32 = 4

/**
 * Handles the first `slots` receive descriptors.
 * @returns how many were accepted
 */
export function receive(slots: u32, now: Ticks): i32 {
  let accepted = 0
  const n = min(slots, RX_SLOTS)
  for (let i: u32 = 0; i < n; i++) prepare(i)
  for (let i: u32 = 0; i < n; i++) {
    const slot = rxSlot(i)
    setProbing((load<u32>(slot, RX_FLAGS) & RX_PROBE) != 0)
    if (onDatagram(i, now)) accepted++
    else store<u32>(slot, load<u32>(slot, RX_FLAGS) & ~RX_OPENED, RX_FLAGS)
  }
  setProbing(false)
  processDirty(now)
  return accepted
}

/** Prefetches what a datagram needs, while other datagrams are handled. */
function prepare(i: u32): void {
  const slot = rxSlot(i)
  const sealed = load<u32>(slot, RX_LENGTH)
  if (tagBytes() == 0 || !(load<u32>(slot, RX_FLAGS) & RX_OPENED)) return
  if (sealed <= sealBytes() || sealed > MAX_DATAGRAM_BYTES) return
  const hash = hashOfNonce(load<usize>(slot, RX_PTR) + sealed - nonceBytes())
  store<u64>(slot, hash, RX_HASH)
  prepareReplay(datagramFilter(), hash ^ saltOf(keyOf(slot + RX_ADDRESS)))
}

function onDatagram(i: u32, now: Ticks): bool {
  const slot = rxSlot(i)
  const sealed = load<u32>(slot, RX_LENGTH)
  const at = load<usize>(slot, RX_PTR)
  const address = slot + RX_ADDRESS
  add(PKT_RECEIVED, 1)
  add(PKT_RECEIVED_BYTES, sealed + packetOverhead(address))
  if (sealed > MAX_DATAGRAM_BYTES) {
    count(DROP_OVERSIZE)
    return false
  }
  const overhead = sealBytes()
  let hash: u64 = 0
  if (overhead) {
    if (sealed <= overhead) {
      count(DROP_SHORT)
      return false
    }
    if (!(load<u32>(slot, RX_FLAGS) & RX_OPENED)) {
      count(DROP_AUTH)
      return false
    }
    hash = load<u64>(slot, RX_HASH)
    if (isOwnNonce(at + sealed - nonceBytes(), hash)) {
      count(DROP_REFLECTED)
      return false
    }
    // only after authentication: a forged packet must not block the genuine one (protocol.md 3.5)
    hash ^= saltOf(keyOf(address))
    if (isReplay(datagramFilter(), hash)) {
      count(DROP_REPLAY)
      return false
    }
  }
  onKeyReceived(keyOf(address))
  onAuthentic(address)
  if (obfsKind() != NONE) onAuthenticPacket(address)
  const len = sealed - overhead
  if (len < MIN_PLAIN_BYTES) {
    count(DROP_SHORT)
    return false
  }
  const conv = readConv(at)
  if (conv == 0) return onControl(at, len, hash, address, now)
  add(KCP_RECEIVED_BYTES, len)
  return onSegments(i, at, len, sealed, address, now)
}

function onControl(at: usize, len: u32, hash: u64, address: usize, now: Ticks): bool {
  // a LISTEN is worth replaying: it has a filter of its own, which other traffic does not fill
  if (tagBytes() && isListen(at, len) && isReplayedListen(hash)) {
    count(DROP_REPLAY)
    return false
  }
  const result = takeControl(at, len, address, seconds(), isMappedSocket(), now)
  const found = foundOf(result)
  if (found == MALFORMED) {
    count(DROP_MALFORMED)
    return false
  }
  if (found == GOT_PING) {
    onPing(address, now)
  } else if (found == GOT_PONG) {
    onPongValue(valueOf(result), address, now)
  } else if (found == GOT_PUNCH) {
    queueEndpointEvent(EVENT_PUNCHED, 0)
  } else if (found == GOT_RESET) {
    const s = find(address, valueOf(result))
    if (s && isLive(s)) {
      if (s.confirm) {
        // it was opened for a first flight that its peer does not know
        endSession(s, REASON_RESET)
      } else if (tagBytes() == 0) {
        // an attacker who can send a RESET can send anything
        resetByPeer(s, REASON_RESET)
      } else {
        challengeReset(s, now)
      }
      markDirty(s)
    }
  }
  return true
}

/** Handles a PONG, which counts only as the answer to one of our PINGs. */
function onPongValue(value: u32, address: usize, now: Ticks): void {
  const remote = findRemote(address)
  if (remote && answersValidation(remote, value)) {
    onValidated(remote, now)
    return
  }
  const ping = findPing(value, now)
  if (!ping) {
    count(PONGS_UNASKED)
    return
  }
  const purpose = purposeOf(ping)
  if (purpose == PEER_PING || purpose == PUNCH_PING) {
    if (isProbing()) onProbePong(ping, address)
    else if (onPeerPong(ping, address, now)) moveSessions(now)
  } else if (purpose == HOST_PING) {
    onHostPong(ping, address, now)
  } else if (wasSentTo(ping, address)) {
    closePing(ping)
    if (purpose == SIZE_PING) {
      onSizePong(argumentOf(ping), sentAtOf(ping), address, now)
      return
    }
    const isService = purpose == OLD_SERVICE_PING || purpose == NEW_SERVICE_PING
    if (isService) onServicePong(argumentOf(ping), purpose == NEW_SERVICE_PING)
    else onMovePong(argumentOf(ping), purpose == NEW_PING, now)
  }
}

function onSegments(i: u32, at: usize, len: u32, sealed: u32, address: usize, now: Ticks): bool {
  const conv = readConv(at)
  let s = find(address, conv)
  if (s) {
    if (has(s, MOVING)) onOldAddress(s, now)
  } else {
    s = acceptSession(at, len, conv, address, now)
    if (!s) return false
  }
  markDirty(s)
  if (!isLive(s)) return false
  if (s.state == CONNECT) {
    setState(s, ESTABLISHED)
    if (has(s, INITIATOR)) {
      uncountHalfOpen(s)
      if (s.tcp == TCP_OPEN) queueEvent(s, EVENT_OPENED)
    }
  }
  s.signAt = now
  if (has(s, RESET_CHALLENGED)) dismissReset(s)
  const remote = s.remote ? changetype<Remote>(s.remote) : null
  if (remote) {
    // the address may be sent more now
    onReceivedFrom(remote, sealed)
    s.flags &= ~SEND_HELD
  }
  const una = s.sndUna
  const top = s.rcvTop
  const effects = input(s, at, len, hasSpareBlock(), now)
  if (effects & KEPT_BLOCK) refillRx(i)
  if (effects & FORGOTTEN) {
    sendReset(conv, address, len)
    endSession(s, REASON_STALE_PEER)
    return true
  }
  if (effects & (RECEIVED_STREAM | ADVANCED_UNA)) s.progressAt = now
  if (effects & MOVED_PAYLOAD) s.payloadAt = now
  const isConfirmed = effects & CONFIRMED && confirm(s, now)
  const isTwin = effects & ADVANCED_UNA && has(s, HAS_TWIN)
  if (isTwin) onTwinAcknowledged(s, now)
  if (isTwin || (effects & CONFIRMED && !isConfirmed)) markTwinsDirty(s)
  const hasData = s.rcvTop != top || (effects & (RECEIVED_STREAM | KEPT_BLOCK)) != 0
  onArrival(s, len, hasData, s.sndUna - una, now)
  if (effects & (RUN_PASSED | LONE_PASSED)) onRunEffects(s, effects)
  if (remote) {
    if (effects & ANSWERED && sameAddress(address, addressOf(s))) onValidated(remote, now)
    if (!s.confirm && needsClock(remote, s.conv)) readClock(s, remote, at, len, now)
  }
  if (effects & RECEIVED_STREAM || isConfirmed) advance(s, now)
  growReceiveWindow(s, now)
  return true
}

function markTwinsDirty(s: Session): void {
  let other = firstOfConv(s.conv)
  while (other) {
    markDirty(other)
    other = nextOfConv(other)
  }
}

/**
 * Reads the sender's clock from a PUSH, or from a WINS of this implementation, which a client without data sends
 * instead. In a WINS of kcptun-libev it is an echo of our own clock, or 0 (protocol.md 5.7).
 */
function readClock(s: Session, remote: Remote, at: usize, len: u32, now: Ticks): void {
  const end = at + len
  while (end - at >= HEADER_BYTES) {
    const cmd = readCmd(at)
    const una = readUna(at)
    const ts = readTs(at)
    const isEcho = cmd == CMD_WINS && (ts == 0 || now - fromWireClock(ts) <= MAX_ECHO_TICKS)
    if ((cmd == CMD_PUSH || (cmd == CMD_WINS && !isEcho)) && diff(una, s.sndNxt) <= 0) {
      learnClock(remote, s.conv, ts, una)
      return
    }
    at += HEADER_BYTES
    if (readLen(at - HEADER_BYTES) > <u32>(end - at)) return
    at += readLen(at - HEADER_BYTES)
  }
}
