/*
 * One session: a TCP connection carried by one conversation (protocol.md 6). The record, its states, and its links in
 * the lists of the endpoint.
 */

import { STATE_CONNECT, STATE_ESTABLISHED, STATE_LINGER, STATE_TIME_WAIT } from '../abi'
import { Conversation } from '../kcp/conversation'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { keyOf } from '../packet/address'
import { countKeySession } from '../packet/keys'
import { awaitValidation, isValidated, Remote } from '../packet/remote'
import { SESSIONS_BY_STATE, shift } from '../stats'
import { Seconds, Sn, Ticks } from '../units'

/** KCP side, numbered as in /stats (protocol.md 6.4). */
export const CONNECT: u32 = STATE_CONNECT
export const ESTABLISHED: u32 = STATE_ESTABLISHED
export const LINGER: u32 = STATE_LINGER
export const TIME_WAIT: u32 = STATE_TIME_WAIT

/** TCP side. GONE: the TCP connection is closed; received payload is discarded. */
export const TCP_NONE: u32 = 0
export const TCP_DIALING: u32 = 1
export const TCP_OPEN: u32 = 2
export const TCP_GONE: u32 = 3

/** Flags. */
export const INITIATOR: u32 = 1
export const EOF_SENT: u32 = 2
export const EOF_RECEIVED: u32 = 4
/** A protocol error occurred: the rest of the stream is ignored. */
export const STREAM_INVALID: u32 = 8
/** `stream_reserve` returned 0: WRITABLE is to be reported. */
export const BLOCKED: u32 = 16
/** READABLE was reported and the payload is not drained yet. */
export const READABLE_REPORTED: u32 = 32
/** Member of the endpoint's lists. */
export const IN_READY: u32 = 64
export const IN_DIRTY: u32 = 128
export const IN_EVENTS: u32 = 256
/** EOF_SENT is set, but the message is not queued yet for lack of memory. */
export const EOF_PENDING: u32 = 8192
/** Counted as half-open. */
export const HALF_OPEN: u32 = 4096
/** The peer reset the session, and what it completed before is still being written to TCP: nothing more is sent. */
export const DRAINING: u32 = 2048
/** Stream payload arrived since a message was queued last: the peer may need a KEEPALIVE. */
export const KEEPALIVE_PENDING: u32 = 1024
/** Output is held: its unvalidated address was sent as much as is allowed. */
export const SEND_HELD: u32 = 16384
/** A RESET arrived, and the peer is asked whether it sent it. */
export const RESET_CHALLENGED: u32 = 32768
/** A datagram of the session arrived from another address. */
export const MOVING: u32 = 65536
/** The session moved recently, and moves back if the old address answers. */
export const MOVED: u32 = 131072
/** A KEEPALIVE of the peer is to be echoed: now, or when the previous echo is acknowledged. */
export const ECHO_PENDING: u32 = 262144
/** The target was dialled. */
export const DIALLED: u32 = 524288
/** Another session waits for an acknowledgement of this one (session/twins.ts). */
export const HAS_TWIN: u32 = 1048576
/** It asks for an echo and carries no connection (echo.ts). */
export const ECHO_ASKED: u32 = 2097152
/** A session of a server that waits for DIAL: it may have to yield to a new one. */
export const AWAITS_DIAL: u32 = 4194304
/** It yielded to another session. */
export const EVICTED: u32 = 8388608
/** The upper bits are the number of segments that may be committed and not sent; 0 = automatic. */
export const UNSENT_SHIFT: u32 = 24
export const MAX_UNSENT_LIMIT: u32 = 255

@unmanaged
export class Session extends Conversation {
  // message reader: header bytes so far; reason of an abort. First, to fill the gap before the address
  headLen: u8
  reason: u8
  // address record, 24 bytes
  address0: u64
  address1: u64
  address2: u64
  // bytes of the TCP side
  tcpRead: u64
  tcpWritten: u64
  handle: u32
  state: u32
  tcp: u32
  flags: u32
  // times in ticks, except for the first, in seconds: creation, last datagram, last progress of the stream, last
  // payload, last message queued
  createdSecond: Seconds
  created: Ticks
  signAt: Ticks
  progressAt: Ticks
  payloadAt: Ticks
  queuedAt: Ticks
  resetAt: Ticks
  // bytes received for a closed TCP side; of an echo the bytes of its longest segment
  discarded: u32
  flushAt: Ticks
  // links in the list of sessions in LINGER, or of those that wait for DIAL
  older: usize
  younger: usize
  // events to report
  events: u32
  // sn after the last KEEPALIVE, 0 = none
  keepaliveEnd: Sn
  // echoes of KEEPALIVEs to send, and those queued since all were acknowledged
  echoes: u16
  echoesQueued: u16
  // value of waitsnd that the gauge includes; links of lists
  waitingCounted: u32
  nextReady: usize
  nextDirty: usize
  nextEvent: usize
  deadline: Ticks
  heapIndex: u32
  // message reader: the header so far, payload bytes left of a PUSH, offset in the first unread segment
  head: u32
  messageLeft: u32
  readOffset: u16
  // message writer: bytes reserved in the last queued segment, and header of the reserved message
  reservedTail: u16
  reservedHeader: usize
  // record of a client's address (remote.ts); 0 on the initiating side, and without a method
  remote: usize
  // its lanes under rate limits (rate.ts); 0 = nothing was limited yet
  rate: usize
}

/** At most 512: blocks are powers of two. */
export const SESSION_BYTES: u32 = offsetof<Session>()

/** @returns the address record of a session */
export function addressOf(s: Session): usize {
  return changetype<usize>(s) + offsetof<Session>('address0')
}

export function has(s: Session, flag: u32): bool {
  return (s.flags & flag) != 0
}

const lingering: List = changetype<List>(memory.data(8, 8))
const awaiting: List = changetype<List>(memory.data(8, 8))
const LINKS: usize = offsetof<Session>('older')

let halfOpen: u32 = 0

/** @returns number of half-open sessions: a client's without an answer, a server's without DIAL */
export function halfOpenCount(): u32 {
  return halfOpen
}

/** Begins the half-open state. */
export function countHalfOpen(s: Session): void {
  s.flags |= HALF_OPEN
  halfOpen++
  if (has(s, INITIATOR)) return
  s.flags |= AWAITS_DIAL
  appendEntry(awaiting, changetype<usize>(s), LINKS)
}

/** DIAL arrived, or the session ends without. */
export function endAwait(s: Session): void {
  if (!has(s, AWAITS_DIAL)) return
  s.flags &= ~AWAITS_DIAL
  unlinkEntry(awaiting, changetype<usize>(s), LINKS)
}

/** Ends the half-open state, unless the address of the session is not validated yet. */
export function uncountHalfOpen(s: Session): void {
  if (!has(s, HALF_OPEN)) return
  if (s.remote) {
    const remote = changetype<Remote>(s.remote)
    if (!isValidated(remote)) {
      awaitValidation(remote)
      return
    }
  }
  s.flags &= ~HALF_OPEN
  halfOpen--
}

/** @returns the session that has been in LINGER longest, null if there is none; `nextOf` continues */
export function oldestLinger(): Session | null {
  return changetype<Session | null>(lingering.oldest)
}

/** @returns the session that has waited for DIAL longest, null if there is none; `nextOf` continues */
export function oldestAwaiting(): Session | null {
  return changetype<Session | null>(awaiting.oldest)
}

/** @returns the next session of the same list */
export function nextOf(s: Session): Session | null {
  return changetype<Session | null>(s.younger)
}

/** @returns true for a session that counts for its key: one in LINGER is over for TCP */
function isOpen(state: u32): bool {
  return state == CONNECT || state == ESTABLISHED
}

/** Changes the state and the gauges of states. */
export function setState(s: Session, state: u32): void {
  if (s.state == state) return
  if (s.state == LINGER) unlinkEntry(lingering, changetype<usize>(s), LINKS)
  if (state != CONNECT && state != ESTABLISHED) endAwait(s)
  if (s.state) shift(SESSIONS_BY_STATE + s.state - 1, -1)
  const change = <i32>isOpen(state) - <i32>isOpen(s.state)
  if (change) countKeySession(keyOf(addressOf(s)), change)
  s.state = state
  if (state) shift(SESSIONS_BY_STATE + state - 1, 1)
  if (state == LINGER) appendEntry(lingering, changetype<usize>(s), LINKS)
}
