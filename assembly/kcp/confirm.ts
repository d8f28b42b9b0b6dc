/*
 * Whether a conversation is alive at the other side (docs/validation.md, "First flights"): only an ACK that names one of
 * our transmissions with its very `ts` shows that. What was recorded earlier cannot.
 *
 *   block of 128 bytes: u32 count, then pairs of sn and ts
 */

import { alloc, free } from '../memory/slab'
import { Sn, Ts } from '../units'
import { Conversation } from './conversation'

const CLASS: u32 = 7
/** Transmissions remembered: the last ones. */
const ENTRIES: u32 = 15
const FIRST: usize = 8
const ENTRY_TS: usize = 4

/** Makes a conversation unconfirmed. False when memory is scarce. */
export function openConfirm(c: Conversation): bool {
  c.confirm = alloc(CLASS)
  if (!c.confirm) return false
  store<u32>(c.confirm, 0)
  return true
}

/** Transmission (sn, ts) leaves. */
export function onUnconfirmedSent(c: Conversation, sn: Sn, ts: Ts): void {
  const n = load<u32>(c.confirm)
  const at = c.confirm + FIRST + ((<usize>(n % ENTRIES)) << 3)
  store<u32>(at, sn)
  store<u32>(at, ts, ENTRY_TS)
  store<u32>(c.confirm, n + 1)
}

/** True if the ACK of (sn, ts) answers one of them. */
export function isConfirmedBy(c: Conversation, sn: Sn, ts: Ts): bool {
  const n = min(load<u32>(c.confirm), ENTRIES)
  for (let i: u32 = 0; i < n; i++) {
    const at = c.confirm + FIRST + ((<usize>i) << 3)
    if (load<u32>(at) == sn && load<u32>(at, ENTRY_TS) == ts) return true
  }
  return false
}

export function closeConfirm(c: Conversation): void {
  if (c.confirm) free(c.confirm, CLASS)
  c.confirm = 0
}
