/*
 * Entry of the model checker's engine: the exports of the module, and `model_state`, which writes the values that
 * determine the further behaviour of the engine. Compiled with a copy of assembly/, see build.mjs.
 *
 * Times are written relative to `now` as powers of two, so that paths which differ only in timing reach the same state.
 */
import { elapsed } from './clock'
import { modelPings } from './control/pings'
import { modelPairs } from './endpoint/migration'
import { currentPeer } from './endpoint/peer'
import { isLost, entryOf, LEN as SEND_LEN, STATE, payloadOf, EMPTY } from './kcp/send_buffer'
import { receiveEntry, receivedLen, receivedPayload } from './kcp/receive_buffer'
import { modelRemote } from './packet/remote'
import { addressOf, RESET_CHALLENGED, Session } from './session/session'
import { sessionAt, slotsInUse } from './session/table'
import { addressOfTombstone, tombstoneAt, tombstoneCount } from './session/tombstones'

export * from './index'

const WORDS: u32 = 4096
const out: usize = memory.data(4096 * 4, 8)
let n: u32 = 0
let mutant: i32 = 0

export function model_ptr(): usize {
  return out
}

/** Selects the planted defect; 0 = none. */
export function model_plant(number: i32): void {
  mutant = number
}

export function planted(number: i32): bool {
  return mutant == number
}

export function put(value: u32): void {
  if (n < WORDS) store<u32>(out + ((<usize>n) << 2), value)
  n++
}

/** Writes a span of ticks by its order of magnitude. */
export function putSpan(ticks: u32): void {
  if (ticks == u32.MAX_VALUE) put(99)
  else put(32 - <u32>clz<u32>(ticks >> 3))
}

/** Writes the age of `time` at the resolution of session limits: 0 below a second. */
function putAge(time: u32, now: u32): void {
  put(32 - <u32>clz<u32>((now - time) >> 13))
}

export function putAddress(at: usize): void {
  put(load<u32>(at) ^ (load<u32>(at, 8) >>> 24))
}

function checksum(at: usize, len: u32): u32 {
  let h: u32 = 0x811c9dc5
  for (let i: u32 = 0; i < len; i++) h = (h ^ <u32>load<u8>(at + i)) * 0x01000193
  return h
}

/** @returns the number of words at `model_ptr`; above 4096 the state did not fit */
export function model_state(now: u32): u32 {
  n = 0
  putAddress(currentPeer)
  const slots = slotsInUse()
  for (let i: u32 = 0; i < slots; i++) {
    const s = sessionAt(i)
    if (s) putSession(s, now)
  }
  put(0xeeee0001)
  for (let i: u32 = 0; i < tombstoneCount(); i++) {
    const t = tombstoneAt(i)
    if (!t) continue
    put(t.conv)
    putAddress(addressOfTombstone(t))
    put(<u32>((elapsed() - t.since) >> 14))
    put(<u32>elapsed() - t.resetAt < 8000 ? 1 : 0)
  }
  put(0xeeee0002)
  modelPairs(now)
  put(0xeeee0003)
  modelPings(now)
  return n
}

function putSession(s: Session, now: u32): void {
  put(0xeeee0000)
  put(s.conv)
  putAddress(addressOf(s))
  put(s.state | (s.tcp << 8) | ((<u32>s.headLen) << 16))
  put(s.flags)
  put(s.events)
  put(s.head)
  put(s.messageLeft)
  put(s.readOffset)
  put(s.echoes | ((<u32>s.echoesQueued) << 16))
  put(s.keepaliveEnd)
  if (s.confirm) put(load<u32>(s.confirm))
  put(s.confirm ? 1 : 0)
  if (s.remote) modelRemote(s.remote)
  putSender(s)
  putReceiver(s)
  putSpan(s.rto)
  putAge(s.created, now)
  putAge(s.signAt, now)
  putAge(s.payloadAt, now)
  putAge(s.queuedAt, now)
  if (s.flags & RESET_CHALLENGED) putAge(s.resetAt, now)
  putSpan(<i32>(s.deadline - now) > 0 ? s.deadline - now : 0)
}

function putSender(s: Session): void {
  put(s.sndUna)
  put(s.sndNxt)
  put(s.sndEnd)
  put(s.rmtWnd == 0 ? 0 : 1)
  put(s.ptoCount)
  put(s.copies)
  put(s.peerUna)
  for (let sn = s.sndUna; sn != s.sndEnd; sn++) {
    const entry = entryOf(s, sn)
    const state = <u32>load<u8>(entry, STATE)
    put(state | (isLost(entry) ? 16 : 0))
    if (state != EMPTY) put(checksum(payloadOf(entry), load<u16>(entry, SEND_LEN)))
  }
}

function putReceiver(s: Session): void {
  put(s.rcvRead)
  put(s.rcvNxt)
  put(s.rcvTop)
  for (let sn = s.rcvRead; sn != s.rcvTop; sn++) {
    const payload = load<usize>(receiveEntry(s, sn))
    put(payload ? checksum(receivedPayload(s, sn), receivedLen(s, sn)) : 0)
  }
  put(s.wndProbes | (s.wndProbeInterval ? 16 : 0) | ((<u32>s.ackAtOnce) << 8))
  for (let i = s.ackFirst; i != s.ackEnd; i++) put(load<u32>(s.ackRing + ((<usize>(i & s.ackMask)) << 3)))
}
