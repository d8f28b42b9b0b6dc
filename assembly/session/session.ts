/*
 * One session: a TCP connection carried by one conversation (protocol.md 6). The record, its states, and the lists of
 * the endpoint it stands in.
 */

import { Conversation } from '../kcp/conversation'
import { appendEntry, List, unlinkEntry } from '../memory/list'
import { awaitValidation, isValidated, Remote } from '../packet/remote'
import { SESSIONS_BY_STATE, shift } from '../stats'
import { Seconds, Sn, Ticks } from '../units'

/** KCP side, numbered as /stats shows it (protocol.md 6.4). */
export const CONNECT: u32 = 1
export const ESTABLISHED: u32 = 2
export const LINGER: u32 = 3
export const TIME_WAIT: u32 = 4

/** TCP side. GONE: no TCP connection any more; what arrives is discarded. */
export const TCP_NONE: u32 = 0
export const TCP_DIALING: u32 = 1
export const TCP_OPEN: u32 = 2
export const TCP_GONE: u32 = 3

/** Flags. */
export const INITIATOR: u32 = 1
export const EOF_SENT: u32 = 2
export const EOF_RECEIVED: u32 = 4
/** A protocol error: the rest of the stream is not looked at. */
export const POISONED: u32 = 8
/** `stream_reserve` returned 0: WRITABLE is owed. */
export const BLOCKED: u32 = 16
/** READABLE was given and not drained yet. */
export const READABLE_REPORTED: u32 = 32
/** Queued in the endpoint's lists. */
export const IN_READY: u32 = 64
export const IN_DIRTY: u32 = 128
export const IN_EVENTS: u32 = 256
/** EOF was handed to the host. */
export const EOF_REPORTED: u32 = 512
/** EOF_SENT, but there was no memory to queue the message: it follows. */
export const EOF_OWED: u32 = 8192
/** Counted as half-open. */
export const HALF_OPEN: u32 = 4096
/** The peer reset the session, what it completed before is still being written to TCP: nothing is sent any more. */
export const CUT: u32 = 2048
/** Stream payload arrived since a message was queued last: the peer may need a KEEPALIVE. */
export const OWES_KEEPALIVE: u32 = 1024
/** Output waits: its receiver was sent all that an address may get before it answered. */
export const SEND_HELD: u32 = 16384
/** The peer was said to have no such conversation: it is asked whether that is so. */
export const RESET_CHALLENGED: u32 = 32768
/** A datagram of it came from another address. */
export const MOVING: u32 = 65536
/** It moved lately, and would move back if the old address answered. */
export const MOVED: u32 = 131072
/** A KEEPALIVE of the peer is to be answered: at once, or when the answer before is acknowledged. */
export const ECHO_OWED: u32 = 262144

@unmanaged
export class Session extends Conversation {
  // reading of messages: header bytes so far; reason of an abort. First: they fill the gap before the address
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
  hash: u32
  state: u32
  tcp: u32
  flags: u32
  // times in ticks: creation in s, last datagram, last progress of the stream, last payload, last message queued
  createdSecond: Seconds
  created: Ticks
  signAt: Ticks
  progressAt: Ticks
  payloadAt: Ticks
  queuedAt: Ticks
  resetAt: Ticks
  // bytes that arrived for a TCP side that is gone
  discarded: u32
  flushAt: Ticks
  // neighbours in the list of sessions in LINGER
  lingerOlder: usize
  lingerYounger: usize
  // events owed to the host
  events: u32
  // sn behind the KEEPALIVE queued last, 0 = none
  keepaliveEnd: Sn
  // echoes of KEEPALIVEs that are owed, and those queued since the last time that all were acknowledged
  echoes: u16
  echoesQueued: u16
  // lists
  // waitsnd as the gauge knows it
  waitingCounted: u32
  nextReady: usize
  nextDirty: usize
  nextEvent: usize
  deadline: Ticks
  heapIndex: u32
  // reading of messages: the header so far, payload bytes left of a PUSH, offset in the first unread segment
  head: u32
  messageLeft: u32
  readOffset: u32
  // what is known of a client's address (remote.ts); 0 at the side that opened the session, and without a method
  remote: usize
  // writing: where the header of the reserved message stands, and bytes reserved in the last queued segment
  reservedHeader: usize
  reservedTail: u32
}

/** 512 at most: blocks are powers of two. */
export const SESSION_BYTES: u32 = offsetof<Session>()

/** The 24-byte address record of a session. */
export function addressOf(s: Session): usize {
  return changetype<usize>(s) + offsetof<Session>('address0')
}

export function has(s: Session, flag: u32): bool {
  return (s.flags & flag) != 0
}

let halfOpen: u32 = 0

/** Sessions that are half-open: a client's that nobody answered, a server's without DIAL. */
export function halfOpenCount(): u32 {
  return halfOpen
}

export function countHalfOpen(s: Session): void {
  s.flags |= HALF_OPEN
  halfOpen++
}

/** The session is no longer half-open, unless its address has yet to answer. */
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

const lingering: List = changetype<List>(memory.data(8, 8))
const LINGER_LINKS: usize = offsetof<Session>('lingerOlder')

/** The session that has been in LINGER longest, null if there is none; `nextLinger` goes on. */
export function oldestLinger(): Session | null {
  return changetype<Session | null>(lingering.oldest)
}

export function nextLinger(s: Session): Session | null {
  return changetype<Session | null>(s.lingerYounger)
}

/** Changes the state and the gauges that count states. */
export function setState(s: Session, state: u32): void {
  if (s.state == state) return
  if (s.state == LINGER) unlinkEntry(lingering, changetype<usize>(s), LINGER_LINKS)
  if (s.state) shift(SESSIONS_BY_STATE + s.state - 1, -1)
  s.state = state
  if (state) shift(SESSIONS_BY_STATE + state - 1, 1)
  if (state == LINGER) appendEntry(lingering, changetype<usize>(s), LINGER_LINKS)
}
