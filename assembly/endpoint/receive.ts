/*
 * Datagrams in: the checks of protocol.md 3.5 in their order, then session 0 or the conversation they belong to.
 */
import {
  MAX_DATAGRAM_BYTES,
  REASON_RESET,
  RX_ADDRESS,
  RX_FLAGS,
  RX_HASH,
  RX_LEN,
  RX_OPENED,
  RX_PTR,
  RX_SLOTS,
  TICKS_PER_SECOND,
} from '../abi'
import { seconds } from '../clock'
import { argument, GOT_PONG, GOT_RESET, MALFORMED, takeControl } from '../control/control'
import { sendReset } from '../control/queue'
import { ADVANCED_UNA, input, KEPT_BLOCK, MOVED_PAYLOAD, RECEIVED_STREAM } from '../kcp/input'
import { readConv } from '../kcp/segment'
import { growRecvWindow } from '../kcp/window'
import { segmentShare } from '../memory/slab'
import { kind, NONE } from '../obfs/settings'
import { hasSpareBlock, refillRx, rxSlot, tagBytes } from '../packet/datagram'
import { hashOfNonce, isOwnNonce, nonceBytes } from '../packet/nonce'
import { isReplay, prepareReplay } from '../packet/replay'
import { CONNECT, closeHalf, ESTABLISHED, has, INITIATOR, setState, TIME_WAIT } from '../session/session'
import { advance, resetByPeer } from '../session/stream'
import { find } from '../session/table'
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
} from '../stats'
import { authenticated, packetOverhead } from './obfs'
import { acceptSession, moveSessions } from './open'
import { isMappedSocket, noteAuthentic, takePong } from './peer'
import { isLive, settleTouched, touch } from './schedule'

/** Too short to hold a conv. */
const MIN_PLAIN_BYTES: u32 = 4

/** Takes the first `slots` receive descriptors; how many were accepted. */
export function receive(slots: u32, now: u32): i32 {
  let accepted = 0
  const n = min(slots, RX_SLOTS)
  for (let i: u32 = 0; i < n; i++) prepare(i)
  for (let i: u32 = 0; i < n; i++) if (takeDatagram(i, now)) accepted++
  settleTouched(now)
  return accepted
}

/** What a datagram needs from far away is on its way while others are looked at. */
function prepare(i: u32): void {
  const slot = rxSlot(i)
  const sealed = load<u32>(slot, RX_LEN)
  if (!(load<u32>(slot, RX_FLAGS) & RX_OPENED) || sealed <= tagBytes + nonceBytes) return
  const hash = hashOfNonce(load<usize>(slot, RX_PTR) + sealed - nonceBytes)
  store<u64>(slot, hash, RX_HASH)
  prepareReplay(hash)
}

function takeDatagram(i: u32, now: u32): bool {
  const slot = rxSlot(i)
  const sealed = load<u32>(slot, RX_LEN)
  const at = load<usize>(slot, RX_PTR)
  const address = slot + RX_ADDRESS
  add(PKT_RECEIVED, 1)
  add(PKT_RECEIVED_BYTES, sealed + packetOverhead(address))
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
    const hash = load<u64>(slot, RX_HASH)
    if (isOwnNonce(at + sealed - nonceBytes, hash)) {
      count(DROP_REFLECTED)
      return false
    }
    // a packet that fails authentication does not get here: it must not block the genuine one (protocol.md 3.5)
    if (isReplay(hash)) {
      count(DROP_REPLAY)
      return false
    }
  }
  noteAuthentic(address)
  if (kind != NONE) authenticated(address)
  const len = sealed - overhead
  if (len < MIN_PLAIN_BYTES) {
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
    if (takePong(address, now)) moveSessions(now)
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
  if (!isLive(s)) {
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
  const did = input(s, at, len, hasSpareBlock(), now)
  if (did & KEPT_BLOCK) refillRx(i)
  if (did & (RECEIVED_STREAM | ADVANCED_UNA)) s.progressAt = now
  if (did & MOVED_PAYLOAD) s.payloadAt = now
  if (did & RECEIVED_STREAM) advance(s, now)
  growRecvWindow(s, segmentShare(), now)
  return true
}
