/*
 * Queue of events for the host. A session is in the list once, however many events it has, so the list is bounded by
 * the session table.
 */
import {
  EVENT_ABORT,
  EVENT_ARG,
  EVENT_ARG2,
  EVENT_BYTES,
  EVENT_ECHO,
  EVENT_HANDLE,
  EVENT_SLOTS,
  EVENT_TYPE,
} from '../abi'
import { HEADER_BYTES } from '../kcp/segment'
import { sealBytes } from '../packet/datagram'
import { has, IN_EVENTS, Session, TIME_WAIT } from './session'

export const events: usize = memory.data(EVENT_SLOTS * EVENT_BYTES, 8)

let first: usize = 0
let last: usize = 0
/** Events of the endpoint itself: one type bit and one argument each. */
let endpointEvents: u32 = 0
/** Sessions that ended and whose last event the host has taken. */
let drained: usize = 0
const endpointArguments: usize = memory.data(32 * 4)

/** Queues an event (EVENT_*) of a session. */
export function queueEvent(s: Session, event: u32): void {
  s.events |= 1 << event
  if (has(s, IN_EVENTS)) return
  s.flags |= IN_EVENTS
  s.nextEvent = 0
  if (last) changetype<Session>(last).nextEvent = changetype<usize>(s)
  else first = changetype<usize>(s)
  last = changetype<usize>(s)
}

/** Queues the last event of a session, whose TCP side is closed; discards the events queued before. */
export function queueLastEvent(s: Session, event: u32, reason: u32): void {
  s.events = 0
  s.reason = <u8>reason
  queueEvent(s, event)
}

/** Queues an event of the endpoint; a later one of the same type replaces it. */
export function queueEndpointEvent(event: u32, argument: u32): void {
  endpointEvents |= 1 << event
  store<u32>(endpointArguments + ((<usize>event) << 2), argument)
}

/**
 * Moves events into the event array.
 * @returns their number
 */
export function takeEvents(): u32 {
  let n: u32 = 0
  while (endpointEvents && n < EVENT_SLOTS) {
    const type = <u32>ctz(endpointEvents)
    endpointEvents &= endpointEvents - 1
    n = put(n, type, 0, load<u32>(endpointArguments + ((<usize>type) << 2)), 0)
  }
  while (first && n < EVENT_SLOTS) {
    const s = changetype<Session>(first)
    while (s.events && n < EVENT_SLOTS) {
      const type = <u32>ctz(s.events)
      s.events &= s.events - 1
      if (type == EVENT_ECHO) n = put(n, type, s.handle, s.discarded + HEADER_BYTES + sealBytes(), <u32>s.tcpWritten)
      else n = put(n, type, s.handle, type == EVENT_ABORT ? s.reason : 0, 0)
    }
    if (s.events) break
    first = s.nextEvent
    if (!first) last = 0
    s.flags &= ~IN_EVENTS
    if (s.state != TIME_WAIT) continue
    s.nextEvent = drained
    drained = changetype<usize>(s)
  }
  return n
}

/** @returns a session that ended and has no more events; null if there is none */
export function takeDrained(): Session | null {
  if (!drained) return null
  const s = changetype<Session>(drained)
  drained = s.nextEvent
  return s
}

function put(n: u32, type: u32, handle: u32, argument: u32, argument2: u32): u32 {
  const at = events + <usize>(n * EVENT_BYTES)
  store<u32>(at, type, EVENT_TYPE)
  store<u32>(at, handle, EVENT_HANDLE)
  store<u32>(at, argument, EVENT_ARG)
  store<u32>(at, argument2, EVENT_ARG2)
  return n + 1
}
