/*
 * Confirmation of a conversation (docs/validation.md, "First flights"): only an ACK that names one of our transmissions
 * with its exact `ts` proves that the other side is alive. A recorded datagram cannot contain one.
 *
 *   block of 128 bytes: u32 count, u32 `twinUna`, then pairs of sn and sentAt
 */

import { alloc, free } from '../memory/slab'
import { Sn, Ticks } from '../units'
import { Conversation } from './conversation'

const CLASS: u32 = 7
/** Number of transmissions remembered: the most recent ones. */
const ENTRIES: u32 = 15
const TWIN_UNA: usize = 4
const FIRST: usize = 8
const ENTRY_SENT_AT: usize = 4

/**
 * Makes a conversation unconfirmed.
 * @returns false when memory is scarce
 */
export function openConfirm(c: Conversation): bool {
  c.confirm = alloc(CLASS)
  if (!c.confirm) return false
  store<u64>(c.confirm, 0)
  return true
}

/** `twinUna`: no other session is known that the peer may mean; it has to acknowledge something first. */
export const NO_TWIN: Sn = 0
export const TWIN_ASKED: Sn = 1

/** @returns what the peers of the other sessions have acknowledged (session/twins.ts), or one of the above */
export function twinUna(c: Conversation): Sn {
  return load<u32>(c.confirm, TWIN_UNA)
}

/** From now on only an ACK of a later transmission confirms the conversation. */
export function confirmAnew(c: Conversation, una: Sn): void {
  store<u32>(c.confirm, 0)
  store<u32>(c.confirm, una, TWIN_UNA)
}

/** Records transmission (sn, sentAt) of an unconfirmed conversation. */
export function onUnconfirmedSent(c: Conversation, sn: Sn, sentAt: Ticks): void {
  const n = load<u32>(c.confirm)
  const at = c.confirm + FIRST + ((<usize>(n % ENTRIES)) << 3)
  store<u32>(at, sn)
  store<u32>(at, sentAt, ENTRY_SENT_AT)
  store<u32>(c.confirm, n + 1)
}

/** @returns true if the ACK of (sn, sentAt) acknowledges a recorded transmission */
export function isConfirmedBy(c: Conversation, sn: Sn, sentAt: Ticks): bool {
  const n = min(load<u32>(c.confirm), ENTRIES)
  for (let i: u32 = 0; i < n; i++) {
    const at = c.confirm + FIRST + ((<usize>i) << 3)
    if (load<u32>(at) == sn && load<u32>(at, ENTRY_SENT_AT) == sentAt) return true
  }
  return false
}

/** The conversation is confirmed, or ends. */
export function closeConfirm(c: Conversation): void {
  if (c.confirm) free(c.confirm, CLASS)
  c.confirm = 0
}
